//! Arrays in records. Serde itself handles at most 32 elements.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub(crate) fn serialize<S: Serializer, T: Serialize, const N: usize>(
    array: &[T; N],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(array)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: Deserialize<'de>, const N: usize>(
    deserializer: D,
) -> Result<[T; N], D::Error> {
    let elements = Vec::deserialize(deserializer)?;
    let wrong = |elements: Vec<T>| {
        de::Error::custom(format_args!("{} elements instead of {N}", elements.len()))
    };
    elements.try_into().map_err(wrong)
}
