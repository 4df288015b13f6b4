//! Finds network addresses in text.

use std::net::{Ipv6Addr, SocketAddr};
use std::ops::Range;

/// The kind of text to search. It determines how strict the match is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SearchContext {
    /// Text for people: `media1:5004` and `ip-10-0-0-1` are addresses.
    Text,
    /// Text found in binary data.
    Binary,
}

/// Finds, in order: IPv4 and IPv6 addresses with or without a port, hosts with a port, hardware addresses, and four
/// numbers joined like an IPv4 address.
pub(crate) fn addresses(text: &str, context: SearchContext) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for word in words(text) {
        let here = &text[word.clone()];
        if is_whole(here) || context == SearchContext::Text && is_host_and_port(here) {
            found.push(word);
            continue;
        }
        let mut at = 0;
        while let Some(range) = next_within(here, at, context) {
            at = range.end;
            found.push(word.start + range.start..word.start + range.end);
        }
    }
    found
}

/// Splits at characters that never occur in an address.
fn words(text: &str) -> impl Iterator<Item = Range<usize>> {
    let within =
        |c: char| c.is_alphanumeric() || matches!(c, '.' | ':' | '-' | '_' | '[' | ']' | '%');
    let mut rest = 0;
    std::iter::from_fn(move || {
        let start = rest + text[rest..].find(within)?;
        let end = text[start..].find(|c| !within(c)).map_or(text.len(), |length| start + length);
        rest = end;
        Some(start..end)
    })
}

/// Returns whether the word is exactly one address, possibly with brackets, a zone or a port.
fn is_whole(word: &str) -> bool {
    let bare = word.trim_start_matches('[').trim_end_matches(']');
    let bare = bare.split_once('%').map_or(bare, |(bare, _zone)| bare);
    word.parse::<SocketAddr>().is_ok() || is_v6(bare)
}

fn is_v6(text: &str) -> bool {
    let is_mac = || {
        let groups = text.split(':');
        let is_pair =
            |group: &str| group.len() == 2 && group.bytes().all(|byte| byte.is_ascii_hexdigit());
        groups.clone().count() == 6 && groups.clone().all(is_pair)
    };
    let has_digit = text.bytes().any(|byte| byte.is_ascii_hexdigit());
    has_digit && (text.parse::<Ipv6Addr>().is_ok() || is_mac())
}

fn is_host_and_port(word: &str) -> bool {
    let Some((host, port)) = word.rsplit_once(':') else { return false };
    let is_host = host.starts_with(char::is_alphanumeric)
        && host.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'));
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    is_host && is_port
}

/// Finds the next address inside a longer word.
fn next_within(word: &str, from: usize, context: SearchContext) -> Option<Range<usize>> {
    let bytes = word.as_bytes();
    (from..bytes.len()).find_map(|start| {
        // An address starts neither inside a number nor inside a run of groups.
        let before = start.checked_sub(1).filter(|at| *at >= from).map(|at| bytes[at]);
        let begins = !before.is_some_and(|byte| byte.is_ascii_digit());
        let quad = begins.then(|| quad(&bytes[start..], context)).flatten();
        let groups = || {
            let begins = !before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b':');
            begins.then(|| groups(&word[start..])).flatten()
        };
        let length = quad.or_else(|| word.is_char_boundary(start).then(groups).flatten())?;
        Some(start..start + length + port(&bytes[start + length..]))
    })
}

/// Returns the length of four numbers up to 255 with one separator.
fn quad(bytes: &[u8], context: SearchContext) -> Option<usize> {
    let (mut at, mut expected) = (0, None);
    for part in 0..4 {
        if part > 0 {
            let separator = *bytes.get(at)?;
            let is_separator = match context {
                SearchContext::Text => matches!(separator, b'.' | b'-' | b'_'),
                SearchContext::Binary => separator == b'.',
            };
            if !is_separator || *expected.get_or_insert(separator) != separator {
                return None;
            }
            at += 1;
        }
        let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = std::str::from_utf8(&bytes[at..at + digits]).ok()?;
        number.parse::<u8>().ok()?;
        at += digits;
    }
    Some(at)
}

/// Returns the length of an IPv6 or hardware address.
fn groups(text: &str) -> Option<usize> {
    let is_part = |byte: &u8| byte.is_ascii_hexdigit() || *byte == b':';
    let length = text.bytes().take_while(is_part).count();
    is_v6(&text[..length]).then_some(length)
}

/// Returns the length of a port with its colon, including a closing bracket.
fn port(bytes: &[u8]) -> usize {
    let bracket = usize::from(bytes.first() == Some(&b']'));
    let digits =
        |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    match bytes.get(bracket) {
        Some(b':') if digits(bracket + 1) > 0 => bracket + 1 + digits(bracket + 1),
        Some(_) | None => 0,
    }
}

#[cfg(test)]
mod tests;
