//! The manifest of a plugin: JSON assembled at compile time.

use crate::data::Document;
use crate::registry::{CONTRACT, Metric, Op};

/// JSON text assembled at compile time.
#[derive(Clone, Copy, Debug)]
pub enum Text {
    /// Verbatim text.
    Plain(&'static str),
    /// An integer.
    Number(u32),
    /// A concatenation.
    All(&'static [Text]),
    /// A list of metric numbers: those of sessions and rooms, or those of nodes and regions.
    Metrics {
        /// The metrics that the plugin reads.
        reads: &'static [Metric],
        /// True for metrics of sessions and rooms, false for those of nodes and regions.
        subject: bool,
    },
    /// A list of action numbers.
    Ops(&'static [Op]),
    /// The member of a manifest with the schemas of data documents, and the comma before it; empty without documents.
    Documents(&'static [Document]),
    /// A list of reasons.
    Reasons(&'static [(u32, &'static str)]),
}

impl Text {
    /// The empty text.
    pub const EMPTY: Text = Text::Plain("");

    /// Returns the length of the text in bytes.
    pub const fn len(&self) -> usize {
        self.write(&mut [], 0)
    }

    /// Returns whether the text is empty.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the text; `N` is [`Text::len`].
    pub const fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        let end = self.write(&mut out, 0);
        assert!(end == N, "N is the length of the text");
        out
    }

    /// Writes the part of the text that fits at `at`, and returns the end position. With an empty `out` this only
    /// measures.
    const fn write(&self, out: &mut [u8], at: usize) -> usize {
        match self {
            Text::Plain(text) => plain(text, out, at),
            Text::Number(value) => number(*value, out, at),
            Text::All(parts) => {
                let (mut at, mut i) = (at, 0);
                while i < parts.len() {
                    at = parts[i].write(out, at);
                    i += 1;
                }
                at
            }
            Text::Metrics { reads, subject } => {
                let (mut at, mut i, mut first) = (at, 0, true);
                while i < reads.len() {
                    if reads[i].is_subject() == *subject {
                        at = separated(reads[i] as u32, first, out, at);
                        first = false;
                    }
                    i += 1;
                }
                at
            }
            Text::Ops(ops) => {
                let (mut at, mut i) = (at, 0);
                while i < ops.len() {
                    at = separated(ops[i] as u32, i == 0, out, at);
                    i += 1;
                }
                at
            }
            Text::Documents(documents) => {
                let (mut at, mut i) = (at, 0);
                while i < documents.len() {
                    let Document { name, value } = &documents[i];
                    at = plain(if i == 0 { ",\"data\":{\"" } else { ",\"" }, out, at);
                    at = plain(name, out, at);
                    at = plain("\":{\"type\":\"object\",\"additionalProperties\":{", out, at);
                    let mut part = 0;
                    while part < value.len() {
                        at = value[part].write(out, at);
                        part += 1;
                    }
                    at = plain("}}", out, at);
                    i += 1;
                }
                plain(if i == 0 { "" } else { "}" }, out, at)
            }
            Text::Reasons(reasons) => {
                let (mut at, mut i) = (at, 0);
                while i < reasons.len() {
                    at = plain(if i == 0 { "{\"number\":" } else { ",{\"number\":" }, out, at);
                    at = number(reasons[i].0, out, at);
                    at = plain(",\"name\":\"", out, at);
                    at = plain(reasons[i].1, out, at);
                    at = plain("\"}", out, at);
                    i += 1;
                }
                at
            }
        }
    }
}

const fn plain(text: &str, out: &mut [u8], at: usize) -> usize {
    let text = text.as_bytes();
    let mut i = 0;
    while i < text.len() && at + i < out.len() {
        out[at + i] = text[i];
        i += 1;
    }
    at + text.len()
}

const fn separated(value: u32, first: bool, out: &mut [u8], at: usize) -> usize {
    let at = if first { at } else { plain(",", out, at) };
    number(value, out, at)
}

const fn number(value: u32, out: &mut [u8], at: usize) -> usize {
    let (mut scale, mut digits) = (1, 1);
    while value / scale >= 10 {
        scale *= 10;
        digits += 1;
    }
    let mut i = 0;
    while i < digits {
        if at + i < out.len() {
            out[at + i] = b'0' + (value / scale % 10) as u8;
        }
        scale = if scale > 1 { scale / 10 } else { 1 };
        i += 1;
    }
    at + digits
}

/// Facts about a plugin that an attribute macro knows.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The package's name.
    pub name: &'static str,
    /// The package's version.
    pub version: &'static str,
    /// The hook's name: `routing`.
    pub hook: &'static str,
    /// Members of the JSON Schema of the settings.
    pub settings: Text,
    /// Data documents in which the plugin looks up.
    pub data: &'static [Document],
    /// Schema number of the state.
    pub state_schema: u32,
    /// Schema number of the memo.
    pub memo_schema: u32,
    /// Metrics that the plugin reads.
    pub reads: &'static [Metric],
    /// Actions that the plugin takes.
    pub ops: &'static [Op],
    /// Reasons of the plugin.
    pub reasons: &'static [(u32, &'static str)],
    /// Declared costs: a manifest member with the comma before it, or empty.
    pub cost: &'static str,
}

/// Returns the schema number that state and memo of a plugin share.
pub const fn schema(state: u32, memo: u32) -> u32 {
    assert!(
        state == 0 || memo == 0 || state == memo,
        "state and memo share one schema number: raise both when either changes"
    );
    if state == 0 { memo } else { state }
}

/// Lists the parts of a manifest, as a constant expression.
#[doc(hidden)]
#[macro_export]
macro_rules! manifest_text {
    ($facts:expr) => {{
        use $crate::manifest::{Facts, Text};
        const FACTS: Facts = $facts;
        Text::All(&[
            Text::Plain("{\"name\":\""),
            Text::Plain(FACTS.name),
            Text::Plain("\",\"version\":\""),
            Text::Plain(FACTS.version),
            Text::Plain("\",\"contract\":\""),
            Text::Plain($crate::manifest::contract()),
            Text::Plain("\",\"hooks\":[\""),
            Text::Plain(FACTS.hook),
            Text::Plain("\"],\"settings\":{"),
            FACTS.settings,
            Text::Plain("}"),
            Text::Documents(FACTS.data),
            Text::Plain(",\"state_schema\":"),
            Text::Number($crate::manifest::schema(FACTS.state_schema, FACTS.memo_schema)),
            Text::Plain(",\"subject_metrics\":["),
            Text::Metrics { reads: FACTS.reads, subject: true },
            Text::Plain("],\"node_metrics\":["),
            Text::Metrics { reads: FACTS.reads, subject: false },
            Text::Plain("],\"ops\":["),
            Text::Ops(FACTS.ops),
            Text::Plain("],\"reasons\":["),
            Text::Reasons(FACTS.reasons),
            Text::Plain("]"),
            Text::Plain(FACTS.cost),
            Text::Plain("}"),
        ])
    }};
}

/// Returns the version of the contract.
pub const fn contract() -> &'static str {
    CONTRACT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_concatenated_in_order() {
        const TEXT: Text = Text::All(&[
            Text::Plain("["),
            Text::Metrics { reads: &[Metric::Delay, Metric::Cap, Metric::Load], subject: false },
            Text::Plain("]"),
            Text::Number(0),
            Text::Number(1_203_050),
            Text::Ops(Op::ALL),
            Text::Reasons(&[(1, "near"), (20, "far")]),
        ]);
        let bytes: [u8; TEXT.len()] = TEXT.bytes();
        let expected = r#"[32,35]012030501,2,3,4,5,6,7,8{"number":1,"name":"near"},{"number":20,"name":"far"}"#;
        assert_eq!(std::str::from_utf8(&bytes), Ok(expected));
    }
}
