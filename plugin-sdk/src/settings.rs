//! Settings of a policy: read from JSON, described by a JSON Schema.

use std::time::Duration;

use crate::json::Json;
use crate::manifest::Text;

/// A type usable in settings: integers and real numbers, `bool`, `String`, [`Duration`] (`"250ms"`,
/// `"8s"`, `"2m"`, `"1h"`), [`BitRate`] (`"300 kbit/s"`, `"1.5 Mbit/s"`), `Option` and `Vec` of
/// those, and enums and structs that derive [`Settings`].
pub trait Setting: Sized {
    /// Members of the type's JSON Schema except bounds: `"type":"integer"`.
    const SCHEMA: Text;
    /// The schema's `,"minimum":0`, or empty.
    const MIN: Text = Text::EMPTY;
    /// The schema's `,"maximum":255`, or empty.
    const MAX: Text = Text::EMPTY;
    /// Unit of the value's [`size`](Setting::size), if the value is written with one: `ms`, `kbit/s`.
    const COUNTS: &'static str = "";
    /// True if the type is a struct whose fields may have defaults.
    const HAS_FIELDS: bool = false;

    /// Parses a value. The error names the found and the expected value.
    fn read(json: &Json) -> Result<Self, String>;

    /// Returns the number to compare with `min` and `max`: milliseconds for a duration, kbit/s for a bit rate. `None`
    /// if bounds do not apply.
    fn size(&self) -> Option<f64> {
        None
    }
}

/// The settings of a policy. Derive this trait.
///
/// A field becomes a key of the same name. `#[setting(default = 30, unit = "ms", min = 1, max = 500)]` sets its
/// default, its unit (shown in the schema), and its inclusive bounds. The field's doc comment becomes the description.
/// A field without a default is required, unless it is an `Option`. If every field has a default (or is an `Option`),
/// the derive also implements `Default`. On an enum without fields, the allowed values are the variants' names in kebab
/// case.
///
/// Bounds of a [`Duration`] or a [`BitRate`] are written like values: `min = "1s"`, `max = "2 Mbit/s"`.
/// `#[setting(default)]` makes a field with a nested settings struct optional; its fields then have their own defaults.
/// On other fields `default` needs a value:
///
/// ```compile_fail,E0080
/// # use evenkeel_plugin_sdk::prelude::*;
/// #[derive(Settings)]
/// struct Knobs {
///     #[setting(default)]
///     jitter: u32,
/// }
/// ```
pub trait Settings: Setting + 'static {
    /// Parses settings from JSON text and fills in defaults.
    ///
    /// The error names the key, the found and the expected value.
    fn parse(text: &str) -> Result<Self, String> {
        Self::read(&Json::parse(text)?)
    }
}

/// No settings.
impl Settings for () {}

impl Setting for () {
    const SCHEMA: Text =
        Text::Plain("\"type\":\"object\",\"properties\":{},\"additionalProperties\":false");

    fn read(json: &Json) -> Result<Self, String> {
        fields(json, &[]).map(|_| ())
    }
}

/// Returns the fields of an object. Names outside `known` are errors.
pub fn fields<'a>(json: &'a Json, known: &[&str]) -> Result<&'a [(String, Json)], String> {
    let Json::Object(fields) = json else {
        return Err(expected("an object", json));
    };
    match fields.iter().find(|(key, _)| !known.contains(&key.as_str())) {
        Some((key, _)) => {
            Err(format!("{key}: there is no such setting; there is {}", known.join(", ")))
        }
        None => Ok(fields),
    }
}

/// Returns a field's value from JSON, or its default if the field is missing.
pub fn field<T: Setting>(
    fields: &[(String, Json)],
    key: &str,
    default: Option<&str>,
    bounds: Bounds,
) -> Result<T, String> {
    let named = |error: String| format!("{key}: {error}");
    let set = fields.iter().find(|(name, _)| name == key).map(|(_, json)| json);
    let value = match (set, default) {
        (Some(json), _) => T::read(json),
        (None, Some(default)) => T::read(&Json::parse(default)?),
        (None, None) => T::read(&Json::Null).map_err(|_| "it must be set".to_owned()),
    };
    let value = value.map_err(named)?;
    bounds.check(value.size()).map_err(named)?;
    Ok(value)
}

/// Inclusive bounds of a value.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The minimum.
    pub min: Option<f64>,
    /// The maximum.
    pub max: Option<f64>,
    /// Unit of both bounds, for error messages.
    pub unit: &'static str,
}

impl Bounds {
    fn check(self, size: Option<f64>) -> Result<(), String> {
        let Some(size) = size else { return Ok(()) };
        let unit = self.unit;
        match (self.min, self.max) {
            (Some(min), _) if size < min => Err(format!("{size}{unit} is below {min}{unit}")),
            (_, Some(max)) if size > max => Err(format!("{size}{unit} is above {max}{unit}")),
            _ => Ok(()),
        }
    }
}

/// Returns the error `found 3, expected a string`.
pub fn expected(what: &str, found: &Json) -> String {
    match found {
        Json::Null => format!("found nothing, expected {what}"),
        Json::Bool(value) => format!("found {value}, expected {what}"),
        Json::Whole(value) => format!("found {value}, expected {what}"),
        Json::Real(value) => format!("found {value}, expected {what}"),
        Json::Text(value) => format!("found \"{value}\", expected {what}"),
        Json::List(_) => format!("found a list, expected {what}"),
        Json::Object(_) => format!("found an object, expected {what}"),
    }
}

macro_rules! whole {
    ($($type:ty, $min:literal, $max:literal;)*) => {$(
        impl Setting for $type {
            const SCHEMA: Text = Text::Plain("\"type\":\"integer\"");
            const MIN: Text = Text::Plain(concat!(",\"minimum\":", $min));
            const MAX: Text = Text::Plain(concat!(",\"maximum\":", $max));

            fn read(json: &Json) -> Result<Self, String> {
                match json {
                    Json::Whole(value) => <$type>::try_from(*value).ok(),
                    _ => None,
                }
                .ok_or_else(|| expected(concat!("a whole number from ", $min, " to ", $max), json))
            }

            fn size(&self) -> Option<f64> {
                Some(*self as f64)
            }
        }
    )*};
}

whole! {
    u8, "0", "255";
    u16, "0", "65535";
    u32, "0", "4294967295";
    u64, "0", "9223372036854775807";
    i32, "-2147483648", "2147483647";
    i64, "-9223372036854775808", "9223372036854775807";
}

impl Setting for f64 {
    const SCHEMA: Text = Text::Plain("\"type\":\"number\"");

    fn read(json: &Json) -> Result<Self, String> {
        match json {
            Json::Whole(value) => Ok(*value as f64),
            Json::Real(value) => Ok(*value),
            _ => Err(expected("a number", json)),
        }
    }

    fn size(&self) -> Option<f64> {
        Some(*self)
    }
}

impl Setting for bool {
    const SCHEMA: Text = Text::Plain("\"type\":\"boolean\"");

    fn read(json: &Json) -> Result<Self, String> {
        match json {
            Json::Bool(value) => Ok(*value),
            _ => Err(expected("true or false", json)),
        }
    }
}

impl Setting for String {
    const SCHEMA: Text = Text::Plain("\"type\":\"string\"");

    fn read(json: &Json) -> Result<Self, String> {
        match json {
            Json::Text(value) => Ok(value.clone()),
            _ => Err(expected("a string", json)),
        }
    }
}

impl Setting for Duration {
    const SCHEMA: Text =
        Text::Plain("\"type\":\"string\",\"pattern\":\"^[0-9]+([.][0-9]+)?(ms|s|m|h)$\"");
    const COUNTS: &'static str = "ms";

    fn read(json: &Json) -> Result<Self, String> {
        let text = match json {
            Json::Text(text) => text.as_str(),
            _ => "",
        };
        duration(text).ok_or_else(|| expected("a duration such as \"250ms\" or \"8s\"", json))
    }

    fn size(&self) -> Option<f64> {
        Some(self.as_secs_f64() * 1000.0)
    }
}

/// Parses `1.5s`, to the millisecond.
fn duration(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    let ms = match unit {
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 6e4,
        "h" => 3.6e6,
        _ => return None,
    };
    Some(Duration::from_millis((count(digits)? * ms).round() as u64))
}

/// A bit rate in kbit/s, the unit of measurements and actions. In settings it has a unit: `"300 kbit/s"`, `"1.5
/// Mbit/s"`. A bound without a unit, or with a unit of another quantity, does not compile:
///
/// ```compile_fail,E0080
/// # use evenkeel_plugin_sdk::prelude::*;
/// #[derive(Settings)]
/// struct Knobs {
///     #[setting(default = "300 kbit/s", min = 24)]
///     cap: BitRate,
/// }
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BitRate(u32);

impl BitRate {
    /// Creates a bit rate in kbit/s.
    pub const fn of_kbps(kbps: u32) -> BitRate {
        BitRate(kbps)
    }

    /// Returns the bit rate in kbit/s.
    pub const fn kbps(self) -> u32 {
        self.0
    }
}

impl Setting for BitRate {
    const SCHEMA: Text = Text::Plain(
        "\"type\":\"string\",\"pattern\":\"^[0-9]+([.][0-9]+)? (kbit/s|Mbit/s|Gbit/s)$\"",
    );
    const COUNTS: &'static str = "kbit/s";

    fn read(json: &Json) -> Result<Self, String> {
        let text = match json {
            Json::Text(text) => text.as_str(),
            _ => "",
        };
        let wrong = || expected("a bit rate such as \"300 kbit/s\" or \"1.5 Mbit/s\"", json);
        bit_rate(text).ok_or_else(wrong)
    }

    fn size(&self) -> Option<f64> {
        Some(self.0.into())
    }
}

/// Parses `1.5 Mbit/s`, to the kbit/s.
fn bit_rate(text: &str) -> Option<BitRate> {
    let (digits, unit) = text.split_once(' ')?;
    let kbps = match unit {
        "kbit/s" => 1.0,
        "Mbit/s" => 1e3,
        "Gbit/s" => 1e6,
        _ => return None,
    };
    let rate = (count(digits)? * kbps).round();
    (rate <= f64::from(u32::MAX)).then_some(BitRate(rate as u32))
}

/// Parses a number without a sign.
fn count(digits: &str) -> Option<f64> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    Some(digits).filter(|_| plain)?.parse().ok()
}

/// Compares two texts at compile time.
pub const fn same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

impl<T: Setting> Setting for Option<T> {
    const SCHEMA: Text = T::SCHEMA;
    const MIN: Text = T::MIN;
    const MAX: Text = T::MAX;
    const COUNTS: &'static str = T::COUNTS;

    fn read(json: &Json) -> Result<Self, String> {
        match json {
            Json::Null => Ok(None),
            _ => T::read(json).map(Some),
        }
    }

    fn size(&self) -> Option<f64> {
        self.as_ref().and_then(T::size)
    }
}

impl<T: Setting> Setting for Vec<T> {
    const SCHEMA: Text = Text::All(&[
        Text::Plain("\"type\":\"array\",\"items\":{"),
        T::SCHEMA,
        T::MIN,
        T::MAX,
        Text::Plain("}"),
    ]);

    fn read(json: &Json) -> Result<Self, String> {
        match json {
            Json::List(items) => items.iter().map(T::read).collect(),
            _ => Err(expected("a list", json)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Setting>(json: &str) -> Result<T, String> {
        T::read(&Json::parse(json).unwrap())
    }

    #[test]
    fn integers_are_bounded_by_their_type() {
        assert_eq!(read::<u8>("255"), Ok(255));
        assert_eq!(
            read::<u8>("256"),
            Err("found 256, expected a whole number from 0 to 255".into())
        );
        assert!(read::<u8>("-1").is_err());
        assert!(read::<u32>("1.5").is_err());
        assert_eq!(read::<i32>("-3"), Ok(-3));
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(read(r#""250ms""#), Ok(Duration::from_millis(250)));
        assert_eq!(read(r#""1.5s""#), Ok(Duration::from_millis(1500)));
        assert_eq!(read(r#""2m""#), Ok(Duration::from_secs(120)));
        assert_eq!(read(r#""1h""#), Ok(Duration::from_secs(3600)));
        for bad in [r#""8""#, r#""s""#, r#""8 s""#, r#""-8s""#, r#""8d""#, "8"] {
            assert!(read::<Duration>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bit_rates_have_a_unit() {
        let kbps = |json| read::<BitRate>(json).map(BitRate::kbps);
        assert_eq!(kbps(r#""300 kbit/s""#), Ok(300));
        assert_eq!(kbps(r#""1.5 Mbit/s""#), Ok(1500));
        assert_eq!(kbps(r#""2 Gbit/s""#), Ok(2_000_000));
        assert_eq!(kbps(r#""4294967295 kbit/s""#), Ok(u32::MAX));
        for bad in [
            r#""4294967296 kbit/s""#,
            r#""300""#,
            r#""300kbit/s""#,
            r#""-1 kbit/s""#,
            r#""1 kb/s""#,
            "300",
        ] {
            assert!(read::<BitRate>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn real_number_may_be_written_as_integer() {
        assert_eq!(read::<f64>("3"), Ok(3.0));
        assert_eq!(read::<Vec<f64>>("[3, 0.5]"), Ok(vec![3.0, 0.5]));
        assert!(read::<f64>(r#""3""#).is_err());
    }
}
