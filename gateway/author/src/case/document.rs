//! Cases as text: questions with names instead of numbers, and the answers that are expected.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use evenkeel_host::Manifest;
use evenkeel_model::{
    CatalogEntry, EntryKind, Hook, Labels, Measures, Metric, NodeId, PluginState, PolicyQuestion,
    RegionId, RoomId, RoomRow, Row, SessionId, SessionRow,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::error::CaseError;
use crate::table::read_table;

/// Scenario of a question that names none.
const SCENARIO: &str = "call";

/// Region of nodes that name none, in a case without regions.
const REGION: &str = "region-1";

/// Zone of nodes that name none.
const ZONE: &str = "zone-1";

/// Time of the first question, in microseconds since the gateway started: an hour, so that any state may be older.
const FIRST_US: u64 = 3_600_000_000;

/// Time between questions that name none, as between two ticks of a gateway.
const INTERVAL_MS: u64 = 200;

/// A file: questions to one plugin, in order. States of sessions and rooms pass from one question to the next.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CaseText {
    /// Settings of the plugin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) settings: Option<Value>,
    /// The gateway's own region, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) home: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) regions: Vec<PlaceText>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) nodes: Vec<PlaceText>,
    pub(super) ask: Vec<AskText>,
}

/// A question, and the expected answer.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AskText {
    /// The function of the contract: `tick`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) call: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) now_us: Option<u64>,
    /// Time since the previous question, without `now_us`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) after_ms: Option<u64>,
    /// Number of times that the question is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) times: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scenario: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) room: Option<u64>,
    /// The region of the session's room, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) standing: Option<String>,
    /// In place of those of the case.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) regions: Vec<PlaceText>,
    /// In place of those of the case.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) nodes: Vec<PlaceText>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) rooms: Vec<SubjectText>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) sessions: Vec<SubjectText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memo: Option<StateText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expect: Option<Value>,
    /// Guards of the gateway that the answer is expected to break.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) guards: BTreeSet<String>,
}

/// A region or a node, with measures by the names of the registry.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(super) struct PlaceText {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) region: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) zone: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(flatten)]
    pub(super) measures: Map<String, Value>,
}

/// A session or a room, with measures by the names of the registry.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(super) struct SubjectText {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<u64>,
    /// The room of a session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) room: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) scenario: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) labels: BTreeMap<String, String>,
    /// Nodes of a room, by name, best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) route: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<StateText>,
    #[serde(flatten)]
    pub(super) measures: Map<String, Value>,
}

/// A state or a memo in hexadecimal digits, of the plugin's own schema or of an older one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum StateText {
    Own(String),
    Of { schema: u32, bytes: String },
}

/// A question as a gateway asks it.
#[derive(Clone, Debug)]
pub(super) struct CaseQuestion {
    pub(super) question: PolicyQuestion,
    pub(super) catalog: Vec<CatalogEntry>,
    pub(super) now_us: u64,
}

impl CaseText {
    /// Reads a file: a list of questions under `ask`, or one question.
    pub(super) fn read(text: &str) -> Result<CaseText, CaseError> {
        let shape = |error: serde_json::Error| CaseError::Syntax(error.to_string());
        let mut whole = match read_table(text).map_err(CaseError::Syntax)? {
            Value::Object(whole) => whole,
            other => return Err(wrong("the file", &other, "a table")),
        };
        if whole.contains_key("ask") {
            return serde_json::from_value(Value::Object(whole)).map_err(shape);
        }
        let case = json!({"settings": whole.remove("settings"), "home": whole.remove("home")});
        let mut case: CaseText = serde_json::from_value(case).map_err(shape)?;
        case.ask.push(serde_json::from_value(Value::Object(whole)).map_err(shape)?);
        Ok(case)
    }

    /// The questions to this plugin, each with its text, in the order in which they are asked.
    pub(super) fn questions(
        &self,
        manifest: &Manifest,
    ) -> Result<Vec<(&AskText, CaseQuestion)>, CaseError> {
        let mut asked = Vec::new();
        let mut next_us = FIRST_US;
        for (at, ask) in self.ask.iter().enumerate() {
            let place = format!("ask[{at}]");
            let regions = if ask.regions.is_empty() { &self.regions } else { &ask.regions };
            let nodes = if ask.nodes.is_empty() { &self.nodes } else { &ask.nodes };
            let world = CaseWorld::of(self.home.as_deref(), regions, nodes)?;
            let question = ask.question(&place, manifest, &world)?;
            let interval_us = ask.after_ms.unwrap_or(INTERVAL_MS).saturating_mul(1_000);
            for time in 0..ask.times.unwrap_or(1) {
                next_us = match ask.now_us {
                    Some(now_us) if time == 0 => now_us,
                    None if asked.is_empty() => next_us,
                    Some(_) | None => next_us.saturating_add(interval_us),
                };
                let (question, catalog) = (question.clone(), world.catalog.clone());
                asked.push((ask, CaseQuestion { question, catalog, now_us: next_us }));
            }
        }
        Ok(asked)
    }
}

impl AskText {
    fn question(
        &self,
        place: &str,
        manifest: &Manifest,
        world: &CaseWorld,
    ) -> Result<PolicyQuestion, CaseError> {
        let scenario = self.scenario.as_deref().unwrap_or(SCENARIO);
        let memo = || self.memo.as_ref().map(|memo| memo.state(place, manifest)).transpose();
        Ok(match self.call(place, &manifest.hooks)? {
            "resolve" => {
                PolicyQuestion::Resolve { scenario: scenario.into(), labels: labels(&self.labels) }
            }
            "admit" => {
                let session = self.session.unwrap_or(1);
                PolicyQuestion::Admit {
                    session: SessionId(session),
                    room: RoomId(self.room.unwrap_or(session)),
                    standing: self
                        .standing
                        .as_deref()
                        .map(|name| world.region(place, name))
                        .transpose()?,
                    scenario: scenario.into(),
                    labels: labels(&self.labels),
                    regions: world.regions.clone(),
                }
            }
            "place" => PolicyQuestion::Place {
                room: RoomId(self.room.unwrap_or(1)),
                scenario: scenario.into(),
                labels: labels(&self.labels),
                nodes: world.nodes.clone(),
            },
            "reroute" => {
                let rooms = (1..).zip(&self.rooms).map(|(number, room)| {
                    let place = format!("{place}.rooms[{}]", number - 1);
                    let route = room.route.iter().map(|name| world.node(&place, name));
                    Ok(RoomRow {
                        row: room.row(&place, number)?,
                        scenario: room.scenario.as_deref().unwrap_or(scenario).into(),
                        labels: labels(&room.labels),
                        standing: route.collect::<Result<_, CaseError>>()?,
                        state: room.state(&place, manifest)?,
                    })
                });
                let rooms = rooms.collect::<Result<_, CaseError>>()?;
                PolicyQuestion::Reroute { nodes: world.nodes.clone(), rooms, memo: memo()? }
            }
            _ => {
                let sessions = (1..).zip(&self.sessions).map(|(number, session)| {
                    let place = format!("{place}.sessions[{}]", number - 1);
                    let row = session.row(&place, number)?;
                    Ok(SessionRow {
                        room: RoomId(session.room.unwrap_or(row.id)),
                        row,
                        scenario: session.scenario.as_deref().unwrap_or(scenario).into(),
                        labels: labels(&session.labels),
                        state: session.state(&place, manifest)?,
                    })
                });
                let sessions = sessions.collect::<Result<_, CaseError>>()?;
                PolicyQuestion::Tick { sessions, memo: memo()? }
            }
        })
    }

    /// The function that is asked: the one that is named, or else the one that fits the fields and the plugin.
    fn call(&self, place: &str, hooks: &[Hook]) -> Result<&'static str, CaseError> {
        const CALLS: [&str; 5] = ["resolve", "admit", "place", "reroute", "tick"];
        let expected = || format!("one of {}", CALLS.join(", "));
        if let Some(named) = &self.call {
            let known = CALLS.into_iter().find(|call| *call == named.as_str());
            return known
                .ok_or_else(|| wrong(&format!("{place}.call"), &json!(named), &expected()));
        }
        match hooks {
            _ if !self.sessions.is_empty() => Ok("tick"),
            _ if !self.rooms.is_empty() => Ok("reroute"),
            [Hook::Scenario] => Ok("resolve"),
            [Hook::Admission] => Ok("admit"),
            [Hook::Routing] => Ok("place"),
            [Hook::Degradation] => Ok("tick"),
            _ => Err(wrong(&format!("{place}.call"), &Value::Null, &expected())),
        }
    }
}

impl SubjectText {
    fn row(&self, place: &str, number: u64) -> Result<Row, CaseError> {
        let measures = measures(place, &self.measures, true)?;
        Ok(Row { id: self.id.unwrap_or(number), measures })
    }

    fn state(&self, place: &str, manifest: &Manifest) -> Result<Option<PluginState>, CaseError> {
        self.state.as_ref().map(|state| state.state(place, manifest)).transpose()
    }
}

impl StateText {
    fn state(&self, place: &str, manifest: &Manifest) -> Result<PluginState, CaseError> {
        let (schema, digits) = match self {
            StateText::Own(digits) => (manifest.state_schema, digits),
            StateText::Of { schema, bytes } => (*schema, bytes),
        };
        let bytes = HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| {
            wrong(&format!("{place}.state"), &json!(digits), "an even number of hexadecimal digits")
        })?;
        Ok(PluginState { plugin: manifest.name.clone(), schema, bytes: bytes.into() })
    }

    pub(super) fn of(state: &PluginState) -> StateText {
        StateText::Of { schema: state.schema, bytes: HEXLOWER.encode(&state.bytes) }
    }
}

/// Regions, zones and nodes of a question.
struct CaseWorld {
    catalog: Vec<CatalogEntry>,
    regions: Vec<Row>,
    nodes: Vec<Row>,
}

impl CaseWorld {
    fn of(
        home: Option<&str>,
        regions: &[PlaceText],
        nodes: &[PlaceText],
    ) -> Result<CaseWorld, CaseError> {
        let mut world = CaseWorld { catalog: Vec::new(), regions: Vec::new(), nodes: Vec::new() };
        for (at, region) in regions.iter().enumerate() {
            let measures = measures(&format!("regions[{at}]"), &region.measures, false)?;
            let id = region.id.unwrap_or(at as u64);
            world.add(EntryKind::Region, id, 0, region);
            world.regions.push(Row { id, measures });
        }
        let first = regions.first().map_or(REGION, |region| region.name.as_str());
        let home = home.unwrap_or(first);
        let own = world.region_or_new(home);
        let mut zones: Vec<(u64, &str)> = Vec::new();
        for (at, node) in nodes.iter().enumerate() {
            let measures = measures(&format!("nodes[{at}]"), &node.measures, false)?;
            let region = world.region_or_new(node.region.as_deref().unwrap_or(home));
            let zone = (region, node.zone.as_deref().unwrap_or(ZONE));
            let place = zones.iter().position(|known| *known == zone);
            let place = place.unwrap_or_else(|| {
                zones.push(zone);
                let id = zones.len() as u64 - 1;
                let text = PlaceText { name: zone.1.to_owned(), ..PlaceText::default() };
                world.add(EntryKind::Zone, id, region, &text);
                zones.len() - 1
            });
            let id = node.id.unwrap_or(at as u64);
            world.add(EntryKind::Node, id, place as u64, node);
            world.nodes.push(Row { id, measures });
        }
        let text = PlaceText { name: home.to_owned(), ..PlaceText::default() };
        world.add(EntryKind::Home, 0, own, &text);
        Ok(world)
    }

    fn add(&mut self, kind: EntryKind, id: u64, parent: u64, text: &PlaceText) {
        let labels = labels(&text.labels).to_vec();
        self.catalog.push(CatalogEntry {
            kind,
            id,
            parent,
            name: text.name.as_str().into(),
            labels,
        });
    }

    fn find(&self, kind: EntryKind, name: &str) -> Option<u64> {
        let mut entries = self.catalog.iter().filter(|entry| entry.kind == kind);
        entries.find(|entry| *entry.name == *name).map(|entry| entry.id)
    }

    /// The region of this name; one without measures if there is none.
    fn region_or_new(&mut self, name: &str) -> u64 {
        if let Some(known) = self.find(EntryKind::Region, name) {
            return known;
        }
        let regions = self.catalog.iter().filter(|entry| entry.kind == EntryKind::Region);
        let id = regions.map(|region| region.id + 1).max().unwrap_or(0);
        let text = PlaceText { name: name.to_owned(), ..PlaceText::default() };
        self.add(EntryKind::Region, id, 0, &text);
        id
    }

    fn region(&self, place: &str, name: &str) -> Result<RegionId, CaseError> {
        let id = self.find(EntryKind::Region, name).and_then(|id| u32::try_from(id).ok());
        id.map(RegionId).ok_or_else(|| {
            wrong(&format!("{place}.standing"), &json!(name), "a region of the case")
        })
    }

    fn node(&self, place: &str, name: &str) -> Result<NodeId, CaseError> {
        let id = self.find(EntryKind::Node, name).and_then(|id| u32::try_from(id).ok());
        // A node that was removed from the catalog has a number only.
        let id = id.or_else(|| name.parse().ok());
        id.map(NodeId)
            .ok_or_else(|| wrong(&format!("{place}.route"), &json!(name), "a node of the case"))
    }
}

fn labels(text: &BTreeMap<String, String>) -> Labels {
    text.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect()
}

/// Measures by the names of the registry: numbers in its units, names of values, or flags.
fn measures(
    place: &str,
    text: &Map<String, Value>,
    is_subject: bool,
) -> Result<Measures, CaseError> {
    let mut measures = Measures::default();
    for (key, value) in text {
        let known = || Metric::ALL.iter().filter(|metric| metric.is_subject() == is_subject);
        let place = format!("{place}.{key}");
        let Some(&metric) = known().find(|metric| metric.key() == key) else {
            let names: Vec<&str> = known().map(|metric| metric.key()).collect();
            return Err(CaseError::Unknown { place, known: names.join(", ") });
        };
        let number = match value {
            Value::Bool(flag) => Some(u64::from(*flag)),
            Value::String(name) => {
                metric.values().iter().position(|known| known == name).map(|number| number as u64)
            }
            value => value.as_u64(),
        };
        let expected = || match metric.values() {
            [] => format!("a whole number ({})", metric.unit()),
            names => format!("one of {}", names.join(", ")),
        };
        measures.set(metric, number.ok_or_else(|| wrong(&place, value, &expected()))?);
    }
    Ok(measures)
}

/// The measures of a row by name, for a case.
pub(super) fn measures_text(row: &Row) -> Map<String, Value> {
    let measured = Metric::ALL.iter().filter_map(|&metric| {
        let value = row.measures.measured(metric)?;
        let name = metric.values().get(value as usize);
        let shown = name.map_or_else(|| json!(value), |name| json!(name));
        Some((metric.key().to_owned(), shown))
    });
    measured.collect()
}

fn wrong(place: &str, found: &Value, expected: &str) -> CaseError {
    CaseError::Value {
        place: place.to_owned(),
        found: found.to_string(),
        expected: expected.to_owned(),
    }
}
