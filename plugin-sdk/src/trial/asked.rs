//! A gateway's question, read from JSON that `evenkeel plugin` wrote.

use crate::catalog::Catalog;
use crate::json::Json;
use crate::keep;
use crate::wit::types;

/// A question and its catalog. Fields that its function does not use are empty.
#[derive(Clone)]
pub(super) struct Asked {
    /// Name of the function: `tick`.
    pub(super) call: String,
    pub(super) catalog: Vec<types::Entry>,
    pub(super) now_us: u64,
    /// Number of the session or room in question.
    pub(super) id: u64,
    /// Region of a new session's room.
    pub(super) standing_in: Option<u64>,
    pub(super) scenario: String,
    pub(super) labels: Vec<types::Label>,
    /// Frame of nodes or regions.
    pub(super) places: types::Frame,
    /// Frame of sessions or rooms.
    pub(super) subjects: types::Frame,
    pub(super) width: u32,
    pub(super) standing: Vec<u32>,
    pub(super) states: types::Blobs,
    pub(super) memo: Vec<u8>,
}

impl Asked {
    /// Parses a question from JSON.
    pub(super) fn read(text: &str) -> Result<Asked, String> {
        let json = Json::parse(text)?;
        let mut states = keep::no_blobs();
        for state in list(member(&json, "states")?)? {
            states.bytes.extend(bytes(state)?);
            states.offsets.push(states.bytes.len() as u32);
        }
        Ok(Asked {
            call: text_of(member(&json, "call")?)?.to_owned(),
            catalog: list(member(&json, "catalog")?)?
                .iter()
                .map(entry)
                .collect::<Result<_, _>>()?,
            now_us: whole(member(&json, "now_us")?)?,
            id: whole(member(&json, "id")?)?,
            standing_in: match member(&json, "standing_in")? {
                Json::Null => None,
                region => Some(whole(region)?),
            },
            scenario: text_of(member(&json, "scenario")?)?.to_owned(),
            labels: labels(member(&json, "labels")?)?,
            places: frame(member(&json, "places")?)?,
            subjects: frame(member(&json, "subjects")?)?,
            width: whole(member(&json, "width")?)? as u32,
            standing: numbers(member(&json, "standing")?)?,
            states,
            memo: bytes(member(&json, "memo")?)?,
        })
    }

    /// Returns the catalog for a policy.
    pub(super) fn catalog(&self) -> Catalog {
        Catalog::new(self.catalog.clone())
    }

    /// Returns the approximate size in bytes.
    pub(super) fn bytes(&self) -> usize {
        let cells = self.places.cells.len() + self.subjects.cells.len() + self.standing.len();
        let rows = self.places.ids.len() + self.subjects.ids.len();
        256 + 4 * (cells + rows) + 8 * rows + self.states.bytes.len() + self.memo.len()
    }
}

fn member<'a>(json: &'a Json, name: &str) -> Result<&'a Json, String> {
    let Json::Object(members) = json else { return Err(format!("found no object with {name}")) };
    let found = members.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value).ok_or_else(|| format!("there is no {name}"))
}

fn list(json: &Json) -> Result<&[Json], String> {
    match json {
        Json::List(items) => Ok(items),
        other => Err(format!("found {other:?}, expected a list")),
    }
}

fn text_of(json: &Json) -> Result<&str, String> {
    match json {
        Json::Text(text) => Ok(text),
        other => Err(format!("found {other:?}, expected a text")),
    }
}

/// Reads a number. Ids have 64 bits, and JSON has ids of the upper half as negative numbers.
fn whole(json: &Json) -> Result<u64, String> {
    match json {
        Json::Whole(number) => Ok(*number as u64),
        other => Err(format!("found {other:?}, expected a whole number")),
    }
}

fn numbers(json: &Json) -> Result<Vec<u32>, String> {
    list(json)?.iter().map(|number| whole(number).map(|number| number as u32)).collect()
}

/// Reads hexadecimal digits.
fn bytes(json: &Json) -> Result<Vec<u8>, String> {
    let digits = text_of(json)?;
    let pairs = (0..digits.len()).step_by(2);
    let byte =
        |at: usize| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    pairs.map(byte).collect::<Option<_>>().ok_or_else(|| format!("{digits:?} are no bytes"))
}

fn labels(json: &Json) -> Result<Vec<types::Label>, String> {
    let label = |pair: &Json| match list(pair)? {
        [key, value] => {
            let (key, value) = (text_of(key)?.to_owned(), text_of(value)?.to_owned());
            Ok(types::Label { key, value })
        }
        other => Err(format!("found {other:?}, expected a key and a value")),
    };
    list(json)?.iter().map(label).collect()
}

fn entry(json: &Json) -> Result<types::Entry, String> {
    Ok(types::Entry {
        kind: whole(member(json, "kind")?)? as u32,
        id: whole(member(json, "id")?)?,
        parent: whole(member(json, "parent")?)?,
        name: text_of(member(json, "name")?)?.to_owned(),
        labels: labels(member(json, "labels")?)?,
    })
}

fn frame(json: &Json) -> Result<types::Frame, String> {
    let ids = list(member(json, "ids")?)?.iter().map(whole).collect::<Result<_, _>>()?;
    Ok(types::Frame { ids, cells: numbers(member(json, "cells")?)? })
}
