//! Types of texts in configuration files. Their type errors name an accepted value: `"20s"` for `20`.

use std::fmt::{self, Display};
use std::ops::Deref;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

/// Declares a text. `of_number`: the value that the writer of a bare number may have meant.
macro_rules! setting_text {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $of_number:literal) => {
        $(#[$doc])*
        pub struct $name(String);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_str<E: Error>(self, text: &str) -> Result<$name, E> {
                        Ok($name(text.to_owned()))
                    }

                    fn visit_i64<E: Error>(self, number: i64) -> Result<$name, E> {
                        let expected = format!($of_number, number);
                        Err(E::invalid_type(Unexpected::Signed(number), &expected.as_str()))
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self)
            }
        }
    };
}

setting_text! {
    /// A duration as it is written.
    DurationText, "a duration such as `\"200ms\"`", "a duration such as `\"{}s\"`"
}

setting_text! {
    /// A bit rate as it is written.
    BitRateText, "a bit rate such as `\"400 Mbit/s\"`", "a bit rate such as `\"{} Mbit/s\"`"
}

/// An expected type of serde's errors in words: `a list` for `a sequence`.
pub fn type_in_words(expected: &str) -> &str {
    match expected {
        "a sequence" => "a list",
        "a map" => "a table",
        "i64" | "u32" => "a whole number",
        "f64" => "a number",
        "a boolean" => "true or false",
        other => other,
    }
}
