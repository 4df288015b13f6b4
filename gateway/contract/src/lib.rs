//! The types of the admin API: requests, answers, events and errors. The API builds and reads them, its clients read and build them.
//!
//! - Times in names end with their unit: `_us` (a Unix time, if nothing else is said) and `_ms`. Rates are kbit/s, shares `_permille`,
//!   `_percent` or `_ppm`.
//! - A member that an answer may lack is an `Option` with `skip_serializing_if`; any other `Option` is null.
//! - An answer is read leniently: members that a gateway of another version lacks have their default, and unknown ones are
//!   ignored. A request is read strictly: an unknown member is an error.
//! - The feature `openapi` adds schemas of all types, and the description of the API that `/openapi.json` answers.
//! - A [`Word`] is of a fixed vocabulary, which its documentation lists. It is text, so that a client reads the words of a later
//!   version too.

#![deny(missing_docs)]

use std::borrow::Cow;

pub mod alerts;
pub mod blast;
pub mod errors;
pub mod events;
pub mod gateway;
pub mod nodes;
pub mod offers;
#[cfg(feature = "openapi")]
pub mod openapi;
pub mod operations;
pub mod policies;
pub mod probes;
pub mod sessions;

/// A word of a vocabulary, such as `up`.
pub type Word = Cow<'static, str>;
