//! Cases from recordings: the questions about one session or room, with the recorded decisions as expectations.

use std::collections::VecDeque;

use evenkeel_host::Component;
use evenkeel_model::{
    CatalogEntry, EntryKind, Labels, NodeId, PluginState, PolicyQuestion, RoomId, Row, SessionId,
};
use evenkeel_recording::RecordedCall;
use serde_json::{Map, Value, json};

use super::document::{AskText, CaseText, PlaceText, StateText, SubjectText, measures_text};
use super::error::CaseError;
use crate::conformance::name;
use crate::decision::{ComparedSubject, ComparisonSide, decisions};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CaseSubject {
    Session(SessionId),
    Room(RoomId),
}

impl CaseSubject {
    /// True if the question is about the subject.
    pub fn is_in(self, question: &PolicyQuestion) -> bool {
        match (self, question) {
            (CaseSubject::Session(wanted), PolicyQuestion::Admit { session, .. }) => {
                *session == wanted
            }
            (CaseSubject::Room(wanted), PolicyQuestion::Place { room, .. }) => *room == wanted,
            (CaseSubject::Session(SessionId(id)), PolicyQuestion::Tick { sessions, .. }) => {
                sessions.iter().any(|session| session.row.id == id)
            }
            (CaseSubject::Room(RoomId(id)), PolicyQuestion::Reroute { rooms, .. }) => {
                rooms.iter().any(|room| room.row.id == id)
            }
            _ => false,
        }
    }
}

/// A case made of a recording.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordedCase {
    /// The file's text, in TOML.
    pub text: String,
    /// The number of its questions.
    pub questions: usize,
}

/// A case of the last recorded decisions about a session or room, at most so many. `None` if there are none. A reason is
/// expected if `component` is the recorded plugin, which names it.
///
/// The calls are of one policy.
///
/// # Errors
/// The recording has a number that TOML cannot express.
pub fn case_of(
    subject: CaseSubject,
    calls: impl IntoIterator<Item = RecordedCall>,
    component: Option<&Component>,
    most: usize,
) -> Result<Option<RecordedCase>, CaseError> {
    let (mut text, mut asks) = (CaseText::default(), VecDeque::new());
    for call in calls {
        let Some(ask) = ask_of(subject, &call, component) else { continue };
        if asks.len() == most {
            asks.pop_front();
        }
        asks.push_back(ask);
        text.settings = serde_json::from_str(&call.revision.settings).ok();
        let names = CatalogNames(&call.catalog.entries);
        (text.home, text.regions, text.nodes) =
            (names.home(), names.all_regions(), names.all_nodes());
    }
    if asks.is_empty() {
        return Ok(None);
    }
    text.ask = asks.into();
    let questions = text.ask.len();
    let syntax = |error: toml::ser::Error| CaseError::Syntax(error.to_string());
    let text = toml::Table::try_from(&text).map_err(syntax)?.to_string();
    Ok(Some(RecordedCase { text, questions }))
}

/// A recorded question as text, reduced to the subject; `None` if nothing was decided about it.
fn ask_of(
    subject: CaseSubject,
    call: &RecordedCall,
    component: Option<&Component>,
) -> Option<AskText> {
    let (question, names) = (&*call.question, CatalogNames(&call.catalog.entries));
    let own = |state: &Option<PluginState>| {
        let state = state.as_ref().filter(|state| state.plugin == call.revision.plugin);
        state.map(StateText::of)
    };
    let mut ask = AskText {
        call: Some(name(question).to_owned()),
        now_us: Some(call.now_us),
        ..AskText::default()
    };
    match (subject, question) {
        (
            CaseSubject::Session(wanted),
            PolicyQuestion::Admit { session, room, standing, scenario, labels, regions },
        ) if *session == wanted => {
            (ask.session, ask.room) = (Some(session.0), Some(room.0));
            ask.standing = standing.and_then(|id| names.name(EntryKind::Region, u64::from(id.0)));
            (ask.scenario, ask.labels) = (Some((**scenario).to_owned()), map(labels));
            ask.regions = regions.iter().map(|row| names.region(row.id, Some(row))).collect();
        }
        (CaseSubject::Session(wanted), PolicyQuestion::Tick { sessions, memo }) => {
            let session = sessions.iter().find(|session| session.row.id == wanted.0)?;
            ask.memo = own(memo);
            ask.sessions.push(SubjectText {
                id: Some(wanted.0),
                room: Some(session.room.0),
                scenario: Some((*session.scenario).to_owned()),
                labels: map(&session.labels),
                route: Vec::new(),
                state: own(&session.state),
                measures: measures_text(&session.row),
            });
        }
        (CaseSubject::Room(wanted), PolicyQuestion::Place { room, scenario, labels, nodes })
            if *room == wanted =>
        {
            ask.room = Some(room.0);
            (ask.scenario, ask.labels) = (Some((**scenario).to_owned()), map(labels));
            ask.nodes = nodes.iter().map(|row| names.node(row.id, Some(row))).collect();
        }
        (CaseSubject::Room(wanted), PolicyQuestion::Reroute { nodes, rooms, memo }) => {
            let room = rooms.iter().find(|room| room.row.id == wanted.0)?;
            (ask.memo, ask.nodes) =
                (own(memo), nodes.iter().map(|row| names.node(row.id, Some(row))).collect());
            let route = |node: &NodeId| {
                let known = names.name(EntryKind::Node, u64::from(node.0));
                known.unwrap_or_else(|| node.0.to_string())
            };
            ask.rooms.push(SubjectText {
                id: Some(wanted.0),
                room: None,
                scenario: Some((*room.scenario).to_owned()),
                labels: map(&room.labels),
                route: room.standing.iter().map(route).collect(),
                state: own(&room.state),
                measures: measures_text(&room.row),
            });
        }
        _ => return None,
    }
    if call.result.is_err() {
        // Any answer is better than the recorded failure.
        return Some(ask);
    }
    let about = match subject {
        CaseSubject::Session(session) => ComparedSubject::Session(session),
        CaseSubject::Room(room) => ComparedSubject::Room(room),
    };
    let all = decisions(question, &call.result);
    let decision = all.get(&about)?;
    let catalog = &call.catalog.entries;
    let mut expected =
        ComparisonSide { component, catalog, result: &call.result }.shown(Some(decision));
    without(&mut expected, "notes");
    if component.is_none() {
        without(&mut expected, "reason");
    }
    ask.expect = Some(match question.batch() {
        Some(_) => json!({ about.to_string(): expected }),
        None => expected,
    });
    Some(ask)
}

/// Removes the members of this name, at any depth.
fn without(value: &mut Value, key: &str) {
    match value {
        Value::Object(members) => {
            members.remove(key);
            members.values_mut().for_each(|member| without(member, key));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| without(item, key)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn map(labels: &Labels) -> std::collections::BTreeMap<String, String> {
    labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

/// Names of regions, zones and nodes.
struct CatalogNames<'a>(&'a [CatalogEntry]);

impl CatalogNames<'_> {
    fn entry(&self, kind: EntryKind, id: u64) -> Option<&CatalogEntry> {
        self.0.iter().find(|entry| entry.kind == kind && entry.id == id)
    }

    fn name(&self, kind: EntryKind, id: u64) -> Option<String> {
        self.entry(kind, id).map(|entry| entry.name.to_string())
    }

    fn home(&self) -> Option<String> {
        let home = self.0.iter().find(|entry| entry.kind == EntryKind::Home)?;
        self.name(EntryKind::Region, home.parent)
    }

    fn ids(&self, kind: EntryKind) -> impl Iterator<Item = u64> {
        self.0.iter().filter(move |entry| entry.kind == kind).map(|entry| entry.id)
    }

    fn all_regions(&self) -> Vec<PlaceText> {
        self.ids(EntryKind::Region).map(|id| self.region(id, None)).collect()
    }

    fn all_nodes(&self) -> Vec<PlaceText> {
        self.ids(EntryKind::Node).map(|id| self.node(id, None)).collect()
    }

    fn region(&self, id: u64, row: Option<&Row>) -> PlaceText {
        self.place(EntryKind::Region, id, row)
    }

    fn node(&self, id: u64, row: Option<&Row>) -> PlaceText {
        let zone = self
            .entry(EntryKind::Node, id)
            .and_then(|node| self.entry(EntryKind::Zone, node.parent));
        PlaceText {
            region: zone.and_then(|zone| self.name(EntryKind::Region, zone.parent)),
            zone: zone.map(|zone| zone.name.to_string()),
            ..self.place(EntryKind::Node, id, row)
        }
    }

    fn place(&self, kind: EntryKind, id: u64, row: Option<&Row>) -> PlaceText {
        let entry = self.entry(kind, id);
        let labels = entry.map_or(&[][..], |entry| entry.labels.as_slice());
        PlaceText {
            name: entry.map_or_else(|| id.to_string(), |entry| entry.name.to_string()),
            id: Some(id),
            region: None,
            zone: None,
            labels: labels
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
            measures: row.map_or_else(Map::new, measures_text),
        }
    }
}
