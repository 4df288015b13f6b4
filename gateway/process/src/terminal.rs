//! Text from outside, made safe for terminals.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Escapes control characters (C0, DEL, C1), as JSON does. On a terminal they could move the cursor, change what was
/// printed before, or write to the clipboard.
pub fn escape(text: &str) -> Cow<'_, str> {
    escaped(text, char::is_control)
}

/// Like [`escape`], for text of several lines.
pub fn escape_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c.is_control() && c != '\n')
}

fn escaped(text: &str, escapes: fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(escapes) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if !escapes(c) => safe.push(c),
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            // Writing to a `String` does not fail.
            c => _ = write!(safe, "\\u{:04x}", u32::from(c)),
        }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests;
