//! Takes addresses out of records.

use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_core::{Answer, Answered, Fault, Labels, Note, Question, State};
use serde_json::Value;

use crate::address::{Suspicion, addresses};
use crate::record::Call;
use crate::revision::{Catalog, Revision};

/// Addresses that are told apart in one recording: one for each session of the largest gateway, with room to spare.
/// Those that come later all have one name.
const ADDRESSES_MAX: usize = 1 << 17;

/// Revisions and catalogs whose like was seen already: a few for each policy.
const KNOWN_MAX: usize = 64;

/// Takes addresses out of what goes into one recording, and puts `address-1`, `address-2` in their place, in the order in
/// which they are first seen: the same one is always the same, and nothing leads back.
///
/// Looked at are labels, names and labels of the catalog, texts in settings, keys of notes, and what faults say. States
/// and memos are a plugin's own bytes: what is readable as an address there is overwritten with `x`, and an address
/// in another form cannot be seen.
#[derive(Default)]
pub struct Redactor {
    tokens: HashMap<Box<str>, usize>,
    revisions: Vec<(Arc<Revision>, Arc<Revision>)>,
    catalogs: Vec<(Arc<Catalog>, Arc<Catalog>)>,
    /// Labels by where they are, for as long as one question lasts.
    labels: HashMap<usize, Option<Labels>>,
}

impl Redactor {
    /// The call without addresses. Where there was one it is marked: what the plugin answered, it answered to the original.
    pub fn call(&mut self, call: Call) -> Call {
        let Call { revision, catalog, ask, now_us, question, mut result, mut redacted } = call;
        let revision = self.revision(&revision);
        let catalog = self.catalog(&catalog);
        let mut question = Arc::unwrap_or_clone(question);
        redacted |= revision.redacted | catalog.redacted;
        redacted |= self.question(&mut question);
        redacted |= match &mut result {
            Ok(answered) => self.answered(answered),
            Err(Fault::Trap(said) | Fault::Malformed(said)) => self.text(said),
            Err(Fault::Deadline | Fault::OutOfMemory | Fault::Late | Fault::Absent) => false,
        };
        Call { revision, catalog, ask, now_us, question: Arc::new(question), result, redacted }
    }

    /// A text without addresses: `None` where there was none.
    pub fn without(&mut self, text: &str) -> Option<Box<str>> {
        let found = addresses(text, Suspicion::Words);
        if found.is_empty() {
            return None;
        }
        let (mut left, mut at) = (String::new(), 0);
        for range in found {
            left += &text[at..range.start];
            left += &self.token(&text[range.clone()]);
            at = range.end;
        }
        left += &text[at..];
        Some(left.into())
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

    fn text(&mut self, text: &mut Box<str>) -> bool {
        let without = self.without(text);
        let redacted = without.is_some();
        without.into_iter().for_each(|without| *text = without);
        redacted
    }

    fn revision(&mut self, revision: &Arc<Revision>) -> Arc<Revision> {
        if let Some((_, done)) = self.revisions.iter().find(|(seen, _)| seen == revision) {
            return Arc::clone(done);
        }
        let mut done = Revision::clone(revision);
        if let Ok(mut settings) = serde_json::from_str(&done.settings)
            && self.value(&mut settings)
        {
            (done.settings, done.redacted) = (settings.to_string().into(), true);
        }
        remember(&mut self.revisions, revision, Arc::new(done))
    }

    fn value(&mut self, value: &mut Value) -> bool {
        match value {
            Value::String(text) => match self.without(text) {
                Some(without) => {
                    *text = without.into();
                    true
                }
                None => false,
            },
            Value::Array(values) => {
                values.iter_mut().fold(false, |redacted, value| self.value(value) | redacted)
            }
            Value::Object(map) => {
                map.values_mut().fold(false, |redacted, value| self.value(value) | redacted)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }

    fn catalog(&mut self, catalog: &Arc<Catalog>) -> Arc<Catalog> {
        if let Some((_, done)) = self.catalogs.iter().find(|(seen, _)| seen == catalog) {
            return Arc::clone(done);
        }
        let mut done = Catalog::clone(catalog);
        for entry in &mut done.entries {
            done.redacted |= self.text(&mut entry.name);
            for (key, value) in &mut entry.labels {
                done.redacted |= self.text(key) | self.text(value);
            }
        }
        remember(&mut self.catalogs, catalog, Arc::new(done))
    }

    fn question(&mut self, question: &mut Question) -> bool {
        self.labels.clear();
        match question {
            Question::Resolve { labels, .. }
            | Question::Admit { labels, .. }
            | Question::Place { labels, .. } => self.of_labels(labels),
            Question::Reroute { nodes: _, rooms, memo } => {
                let redacted = rooms.iter_mut().fold(false, |redacted, room| {
                    self.of_labels(&mut room.labels) | of_state(room.state.as_mut()) | redacted
                });
                redacted | of_state(memo.as_mut())
            }
            Question::Tick { sessions, memo } => {
                let redacted = sessions.iter_mut().fold(false, |redacted, session| {
                    let states = of_state(session.state.as_mut());
                    self.of_labels(&mut session.labels) | states | redacted
                });
                redacted | of_state(memo.as_mut())
            }
        }
    }

    fn of_labels(&mut self, labels: &mut Labels) -> bool {
        let place = labels.as_ptr() as usize;
        let without = match self.labels.get(&place) {
            // No labels at all are nowhere.
            Some(without) if !labels.is_empty() => without.clone(),
            _ => {
                let mut own: Vec<(Box<str>, Box<str>)> = labels.to_vec();
                let redacted = own.iter_mut().fold(false, |redacted, (key, value)| {
                    self.text(key) | self.text(value) | redacted
                });
                let without: Option<Labels> = redacted.then(|| own.into());
                self.labels.insert(place, without.clone());
                without
            }
        };
        let redacted = without.is_some();
        without.into_iter().for_each(|without| *labels = without);
        redacted
    }

    fn answered(&mut self, answered: &mut Answered) -> bool {
        let Answered { answer, notes, .. } = answered;
        let noted =
            notes.iter_mut().fold(false, |redacted, Note { key, .. }| self.text(key) | redacted);
        let said = match answer {
            Answer::Params(params) => {
                params.iter_mut().fold(false, |redacted, (key, _)| self.text(key) | redacted)
            }
            Answer::Admit { .. } => false,
            Answer::Placed { state, .. } => of_state(Some(state)),
            Answer::Moves { moves: _, states, memo }
            | Answer::Actions { actions: _, states, memo } => {
                let redacted = states
                    .iter_mut()
                    .fold(false, |redacted, (_, state)| of_state(Some(state)) | redacted);
                redacted | of_state(memo.as_mut())
            }
        };
        noted | said
    }
}

fn remember<T>(known: &mut Vec<(Arc<T>, Arc<T>)>, seen: &Arc<T>, done: Arc<T>) -> Arc<T> {
    if known.len() == KNOWN_MAX {
        known.remove(0);
    }
    known.push((Arc::clone(seen), Arc::clone(&done)));
    done
}

/// Overwrites what can be read as an address.
fn of_state(state: Option<&mut State>) -> bool {
    let Some(state) = state else { return false };
    let mut redacted = false;
    let is_text = |byte: &u8| byte.is_ascii_graphic();
    let mut at = 0;
    while let Some(start) = state.bytes[at..].iter().position(is_text).map(|start| at + start) {
        let length = state.bytes[start..].iter().take_while(|byte| is_text(byte)).count();
        at = start + length;
        let text = String::from_utf8_lossy(&state.bytes[start..at]).into_owned();
        for range in addresses(&text, Suspicion::Bytes) {
            state.bytes[start + range.start..start + range.end].fill(b'x');
            redacted = true;
        }
    }
    redacted
}
