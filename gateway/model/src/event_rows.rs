//! Rows of the lists of events: log line, counters and fields for clients. Telemetry, the API and the reference read them.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ask::PolicyName;
use crate::forwarding::Hop;
use crate::id::{AskId, NodeId, RoomId, SessionId};
use crate::offer::Decider;

/// The level of a log line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogLevel {
    /// For developers.
    Debug,
    /// A change that operators expect.
    Info,
    /// A fault, or a change that operators may have to act on.
    Warn,
}

/// The log line of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogRow {
    /// The level of all lines of the event.
    pub level: LogLevel,
    /// The text before the fields.
    pub message: &'static str,
    /// `message`, and the names of the fields.
    pub fields: &'static [&'static str],
}

/// A counter that each event increments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CountRow {
    /// The name of the metric: `evenkeel.hops.removed`.
    pub metric: &'static str,
    /// Its labels without their prefix: `node`.
    pub labels: &'static [&'static str],
}

/// An event of `GET /v1/events`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoticeRow {
    /// Its name there: `hop-removed`. Several events may share it.
    pub name: &'static str,
    /// Its fields as the reference lists them; empty if another event of the name has them. The type is in `contract/src/events.rs`.
    pub fields: &'static str,
}

/// An event in its list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventRow {
    /// The meaning, for the reference.
    pub doc: &'static str,
    /// `None`: the log line depends on the event's values, and `telemetry/src/recorder.rs` writes it; or there is none.
    pub log: Option<LogRow>,
    /// The recorder may count more, depending on the event's values.
    pub counts: &'static [CountRow],
    /// `None`: the event is for telemetry alone.
    pub notice: Option<NoticeRow>,
}

/// A value of an event, by its row.
#[derive(Clone)]
pub enum EventValue<'a> {
    /// Not known: the field is left out.
    Absent,
    /// A number.
    Number(u64),
    /// A yes or no.
    Flag(bool),
    /// A word, or a text that the log quotes.
    Word(Cow<'a, str>),
    /// An id or another text.
    Shown(&'a (dyn Display + Sync)),
    /// A time, in microseconds for clients.
    Time(Duration),
    /// The time since then, in microseconds for clients.
    Since(Instant),
    /// The name of the node.
    Node(NodeId),
    /// The name of the hop's node.
    Hop(Hop),
    /// The decider, in metrics without its revision.
    By(&'a Decider),
}

/// An event of a list.
pub trait ListedEvent: Sized {
    /// The whole list.
    fn rows() -> &'static [EventRow];

    /// The place of its row in the list.
    fn number(&self) -> usize;

    /// The fields of the log line, in the order of the row.
    fn logged(&self) -> Vec<EventValue<'_>>;

    /// The increment of each counter, and the labels' values, in the order of the row.
    fn counted(&self) -> Vec<(u64, Vec<EventValue<'_>>)>;

    /// Its row in the list.
    fn row(&self) -> &'static EventRow {
        &Self::rows()[self.number()]
    }
}

macro_rules! values {
    ($($type:ty: $value:ident => $made:expr;)*) => {
        $(impl<'a> From<$type> for EventValue<'a> {
            fn from($value: $type) -> EventValue<'a> {
                $made
            }
        })*
    };
}

values! {
    u64: it => EventValue::Number(it);
    usize: it => EventValue::Number(it as u64);
    &'a u8: it => EventValue::Number(u64::from(*it));
    &'a u32: it => EventValue::Number(u64::from(*it));
    &'a u64: it => EventValue::Number(*it);
    &'a bool: it => EventValue::Flag(*it);
    &'a str: it => EventValue::Word(Cow::Borrowed(it));
    String: it => EventValue::Word(Cow::Owned(it));
    &'a Arc<str>: it => EventValue::Shown(it);
    &'a Box<str>: it => EventValue::Shown(it);
    &'a AskId: it => EventValue::Shown(it);
    &'a SessionId: it => EventValue::Shown(it);
    &'a RoomId: it => EventValue::Shown(it);
    &'a PolicyName: it => EventValue::Shown(it);
    &'a Duration: it => EventValue::Time(*it);
    &'a Instant: it => EventValue::Since(*it);
    &'a NodeId: it => EventValue::Node(*it);
    &'a Hop: it => EventValue::Hop(*it);
    &'a Decider: it => EventValue::By(it);
}

impl<'a, T: Into<EventValue<'a>>> From<Option<T>> for EventValue<'a> {
    fn from(value: Option<T>) -> EventValue<'a> {
        value.map_or(EventValue::Absent, Into::into)
    }
}

/// The field of this name, or this value for it.
#[doc(hidden)]
#[macro_export]
macro_rules! event_value {
    ($field:ident) => {
        $crate::EventValue::from($field)
    };
    ($field:ident = $value:expr) => {
        $crate::EventValue::from($value)
    };
}

/// A part of a row that not all rows have.
#[doc(hidden)]
#[macro_export]
macro_rules! event_part {
    () => {
        None
    };
    ($part:expr) => {
        Some($part)
    };
}

/// The increment of a counter.
#[doc(hidden)]
#[macro_export]
macro_rules! event_times {
    () => {
        1
    };
    ($times:expr) => {
        u64::from($times)
    };
}

/// A list of events. After the fields of each stand, if it has them: its log line and its counters with their fields, and its name for
/// clients with the reference of its fields. `node = hop` is the value `hop` under the name `node`; `room` is the field of that name.
///
/// ```text
/// /// A hop left the route of a room although its node is up.
/// HopRemoved { room: RoomId, hop: Hop, why: Strike, … }
///     logs Debug "hop removed from a route" [room, node = hop, why = why.name()];
///     counts "evenkeel.hops.removed" [node = hop, reason = why.name()];
///     sends "hop-removed" with "`room`, `node`, `reason`, `session`";
/// ```
#[macro_export]
macro_rules! events {
    (
        $(#[$meta:meta])*
        pub enum $enum:ident {
            $(
                $(#[doc = $doc:literal])+
                $variant:ident
                    $({ $($(#[$field_doc:meta])+ $field:ident: $type:ty,)* })?
                    $(($payload:ident: $payload_type:ty))?
                $(logs $level:ident $message:literal [$($logged:ident $(= $log_value:expr)?),*];)?
                $(counts $metric:literal [$($label:ident $(= $label_value:expr)?),*] $(times $times:expr)?;)*
                $(sends $name:literal $(with $text:literal)?;)?
            )*
        }
    ) => {
        $(#[$meta])*
        pub enum $enum {
            $(
                $(#[doc = $doc])+
                $variant $({ $($(#[$field_doc])+ $field: $type,)* })? $(($payload_type))?,
            )*
        }

        #[expect(unused_variables, reason = "a row needs some of an event's fields")]
        impl $crate::ListedEvent for $enum {
            fn rows() -> &'static [$crate::EventRow] {
                static ROWS: &[$crate::EventRow] = &[$($crate::EventRow {
                    doc: concat!($($doc,)+).trim_ascii(),
                    log: $crate::event_part!($($crate::LogRow {
                        level: $crate::LogLevel::$level,
                        message: $message,
                        fields: &["message", $(stringify!($logged)),*],
                    })?),
                    counts: &[$($crate::CountRow {
                        metric: $metric,
                        labels: &[$(stringify!($label)),*],
                    }),*],
                    notice: $crate::event_part!($($crate::NoticeRow {
                        name: $name,
                        fields: concat!($($text)?),
                    })?),
                }),*];
                ROWS
            }

            fn number(&self) -> usize {
                enum Row { $($variant),* }
                match self {
                    $($enum::$variant { .. } => Row::$variant as usize,)*
                }
            }

            fn logged(&self) -> Vec<$crate::EventValue<'_>> {
                match self {
                    $($enum::$variant $({ $($field),* })? $(($payload))? => {
                        vec![$($($crate::event_value!($logged $(= $log_value)?)),*)?]
                    })*
                }
            }

            fn counted(&self) -> Vec<(u64, Vec<$crate::EventValue<'_>>)> {
                match self {
                    $($enum::$variant $({ $($field),* })? $(($payload))? => vec![
                        $((
                            $crate::event_times!($($times)?),
                            vec![$($crate::event_value!($label $(= $label_value)?)),*],
                        )),*
                    ],)*
                }
            }
        }
    };
}
