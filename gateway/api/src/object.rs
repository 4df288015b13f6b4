//! JSON objects of answers and events.

use std::time::Duration;

/// A JSON object with these fields, in this order. A field `name?` is left out if its value is `None`.
macro_rules! object {
    (@of [$($(#[$attribute:meta])* $field:ident: $type:ty = $value:expr,)*] $(,)?) => {{
        #[expect(non_camel_case_types, reason = "a type parameter has the name of its field")]
        let object = {
            #[derive(serde::Serialize)]
            struct JsonObject<$($field),*> {
                $($(#[$attribute])* $field: $type),*
            }
            JsonObject { $($field: $value),* }
        };
        object
    }};
    (@of [$($fields:tt)*] $field:ident?: $value:expr, $($more:tt)*) => {
        object!(@of [
            $($fields)*
            #[serde(skip_serializing_if = "Option::is_none")] $field: Option<$field> = $value,
        ] $($more)*)
    };
    (@of [$($fields:tt)*] $(#[$attribute:meta])* $field:ident: $value:expr, $($more:tt)*) => {
        object!(@of [$($fields)* $(#[$attribute])* $field: $field = $value,] $($more)*)
    };
    ($($fields:tt)*) => { object!(@of [] $($fields)*,) };
}
pub(super) use object;

pub(super) fn milliseconds(time: Option<Duration>) -> Option<u64> {
    time.map(|time| time.as_millis() as u64)
}
