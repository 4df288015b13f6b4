//! The process and its operating system: files, signals, descriptors, scheduling, sandbox, allocator, the host; texts of configuration
//! files; and text made safe for terminals.

pub mod allocator;
pub mod descriptors;
pub mod documents;
pub mod file;
pub mod host;
pub mod program;
pub mod random;
pub mod sandbox;
pub mod scheduling;
pub mod setting_text;
pub mod signals;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Locks data that no panic leaves inconsistent, also after a panic.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Unix time in microseconds; 0 before 1970.
pub fn unix_us(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

/// The SHA-256 digest (FIPS 180-4).
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Serialises a value as the text that it displays.
pub fn as_text<T: std::fmt::Display, S: serde::Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Escapes control characters (C0, DEL, C1), as JSON does, line separators, and controls of direction (Unicode Standard Annex 9).
/// On a terminal they could move the cursor, change or reorder what was printed before, or write to the clipboard.
pub fn escape(text: &str) -> Cow<'_, str> {
    escaped(text, is_unsafe)
}

/// Like [`escape`], for text of several lines.
pub fn escape_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_unsafe(c) && c != '\n')
}

fn is_unsafe(c: char) -> bool {
    let reorders = matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    c.is_control() || reorders || matches!(c, '\u{2028}' | '\u{2029}')
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
