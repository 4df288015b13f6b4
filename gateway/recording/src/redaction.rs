//! Removes addresses from records.

use std::collections::HashMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;

use evenkeel_model::{
    HookAnswer, Labels, PluginFault, PluginState, PolicyQuestion, RevisionAnswer,
};
use serde_json::Value;

use crate::record::{RecordedCall, RecordedCatalog, RecordedRevision};

/// Limit of distinct addresses in one recording: one per session of the largest gateway, with a margin. Further
/// addresses share one name.
const ADDRESSES_MAX: usize = 1 << 17;

/// Limit of redacted revisions and catalogs kept for reuse: a few per policy.
const KNOWN_MAX: usize = 64;

/// Replaces addresses in one recording by `address-1`, `address-2` and so on, in order of
/// appearance. Equal addresses get equal names, and no table maps them back.
///
/// Covers labels, names and labels of the catalog, texts in settings, keys of notes, and fault messages. States and
/// memos are opaque: text in them that looks like an address is overwritten with `x`; other encodings are not detected.
#[derive(Default)]
pub struct Redactor {
    tokens: HashMap<Box<str>, usize>,
    revisions: Vec<(Arc<RecordedRevision>, Arc<RecordedRevision>)>,
    catalogs: Vec<(Arc<RecordedCatalog>, Arc<RecordedCatalog>)>,
    /// An address was found in the current part of a call.
    found: bool,
    /// Redacted labels of the current question, by pointer.
    labels: HashMap<usize, Option<Labels>>,
}

impl Redactor {
    /// Redacts a call. Marks a changed call, because the plugin answered the original.
    pub fn call(&mut self, call: RecordedCall) -> RecordedCall {
        let revision = self.revision(&call.revision);
        let catalog = self.catalog(&call.catalog);
        let (mut question, mut result) = (Arc::unwrap_or_clone(call.question), call.result);
        self.found = call.redacted | revision.redacted | catalog.redacted;
        self.question(&mut question);
        match &mut result {
            Ok(answered) => self.answered(answered),
            Err(PluginFault::Trap(message) | PluginFault::Malformed(message)) => self.text(message),
            Err(_) => {}
        }
        let (question, redacted) = (Arc::new(question), self.found);
        RecordedCall { revision, catalog, question, result, redacted, ..call }
    }

    /// Returns the text without addresses; `None` if it contains none.
    pub fn redact(&mut self, text: &str) -> Option<Box<str>> {
        let found = addresses(text, SearchContext::Text);
        if found.is_empty() {
            return None;
        }
        let (mut output, mut at) = (String::new(), 0);
        for range in found {
            output += &text[at..range.start];
            output += &self.token(&text[range.clone()]);
            at = range.end;
        }
        output += &text[at..];
        Some(output.into())
    }

    fn token(&mut self, address: &str) -> String {
        let next = self.tokens.len() + 1;
        match self.tokens.get(address) {
            Some(number) => format!("address-{number}"),
            None if next > ADDRESSES_MAX => "address-more".into(),
            None => {
                self.tokens.insert(address.into(), next);
                format!("address-{next}")
            }
        }
    }

    fn text(&mut self, text: &mut Box<str>) {
        if let Some(without) = self.redact(text) {
            (*text, self.found) = (without, true);
        }
    }

    fn revision(&mut self, revision: &Arc<RecordedRevision>) -> Arc<RecordedRevision> {
        if let Some((_, done)) = self.revisions.iter().find(|(seen, _)| seen == revision) {
            return Arc::clone(done);
        }
        let mut done = RecordedRevision::clone(revision);
        if let Ok(mut settings) = serde_json::from_str(&done.settings) {
            self.found = false;
            self.value(&mut settings);
            if self.found {
                (done.settings, done.redacted) = (settings.to_string().into(), true);
            }
        }
        remember(&mut self.revisions, revision, Arc::new(done))
    }

    fn value(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Some(without) = self.redact(text) {
                    (*text, self.found) = (without.into(), true);
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.value(value)),
            Value::Object(map) => map.values_mut().for_each(|value| self.value(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn catalog(&mut self, catalog: &Arc<RecordedCatalog>) -> Arc<RecordedCatalog> {
        if let Some((_, done)) = self.catalogs.iter().find(|(seen, _)| seen == catalog) {
            return Arc::clone(done);
        }
        let mut done = RecordedCatalog::clone(catalog);
        self.found = done.redacted;
        for entry in &mut done.entries {
            self.text(&mut entry.name);
            self.pairs(&mut entry.labels);
        }
        done.redacted = self.found;
        remember(&mut self.catalogs, catalog, Arc::new(done))
    }

    fn pairs(&mut self, pairs: &mut [(Box<str>, Box<str>)]) {
        for (key, value) in pairs {
            self.text(key);
            self.text(value);
        }
    }

    fn question(&mut self, question: &mut PolicyQuestion) {
        self.labels.clear();
        match question {
            PolicyQuestion::Resolve { labels, .. }
            | PolicyQuestion::Admit { labels, .. }
            | PolicyQuestion::Place { labels, .. } => self.labels(labels),
            PolicyQuestion::Reroute { nodes: _, rooms, memo } => {
                for room in rooms {
                    self.labels(&mut room.labels);
                    self.state(room.state.as_mut());
                }
                self.state(memo.as_mut());
            }
            PolicyQuestion::Tick { sessions, memo } => {
                for session in sessions {
                    self.labels(&mut session.labels);
                    self.state(session.state.as_mut());
                }
                self.state(memo.as_mut());
            }
        }
    }

    fn labels(&mut self, labels: &mut Labels) {
        let place = labels.as_ptr() as usize;
        let without = match self.labels.get(&place) {
            // All empty label sets share one dangling pointer.
            Some(without) if !labels.is_empty() => without.clone(),
            _ => {
                let before = std::mem::replace(&mut self.found, false);
                let mut own: Vec<(Box<str>, Box<str>)> = labels.to_vec();
                self.pairs(&mut own);
                let without: Option<Labels> = self.found.then(|| own.into());
                self.found = before;
                self.labels.insert(place, without.clone());
                without
            }
        };
        if let Some(without) = without {
            (*labels, self.found) = (without, true);
        }
    }

    fn answered(&mut self, answered: &mut RevisionAnswer) {
        let RevisionAnswer { answer, notes, .. } = answered;
        notes.iter_mut().for_each(|note| self.text(&mut note.key));
        match answer {
            HookAnswer::Params(params) => params.iter_mut().for_each(|(key, _)| self.text(key)),
            HookAnswer::Admit { .. } => {}
            HookAnswer::Placed { state, .. } => self.state(Some(state)),
            HookAnswer::Moves { moves: _, states, memo }
            | HookAnswer::Actions { actions: _, states, memo } => {
                states.iter_mut().for_each(|(_, state)| self.state(Some(state)));
                self.state(memo.as_mut());
            }
        }
    }

    /// Overwrites text in a state that looks like an address.
    fn state(&mut self, state: Option<&mut PluginState>) {
        let Some(state) = state else { return };
        let is_text = |byte: &u8| byte.is_ascii_graphic();
        let mut at = 0;
        while let Some(start) = state.bytes[at..].iter().position(is_text).map(|start| at + start) {
            let length = state.bytes[start..].iter().take_while(|byte| is_text(byte)).count();
            at = start + length;
            let text = String::from_utf8_lossy(&state.bytes[start..at]).into_owned();
            for range in addresses(&text, SearchContext::Binary) {
                state.bytes[start + range.start..start + range.end].fill(b'x');
                self.found = true;
            }
        }
    }
}

fn remember<T>(known: &mut Vec<(Arc<T>, Arc<T>)>, seen: &Arc<T>, done: Arc<T>) -> Arc<T> {
    if known.len() == KNOWN_MAX {
        known.remove(0);
    }
    known.push((Arc::clone(seen), Arc::clone(&done)));
    done
}

/// The kind of text to search. It determines how strict the match is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SearchContext {
    /// Text for people: `media1:5004` and `ip-10-0-0-1` are addresses.
    Text,
    /// Text found in binary data.
    Binary,
}

/// Finds, in order: IPv4 and IPv6 addresses with or without a port, hosts with a port, hardware addresses, and four
/// numbers joined like an IPv4 address.
fn addresses(text: &str, context: SearchContext) -> Vec<Range<usize>> {
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
