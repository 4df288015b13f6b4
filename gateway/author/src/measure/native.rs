//! Native measurement: the project's code compiled for this machine, run by a test that the SDK
//! adds.

use std::fs;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use data_encoding::HEXLOWER;
use evenkeel_host::{BoundPlugin, Manifest};
use evenkeel_model::{CatalogEntry, Labels, Metric, PluginState, PolicyQuestion, Row};
use serde_json::{Value, json};

use super::spread::TimeSpread;
use crate::failed::AuthorError;
use crate::project::Project;

/// The test that the SDK adds to a policy; the variable below names the file of questions.
const TEST: &str = "measured_natively";
const QUESTIONS: &str = "EVENKEEL_NATIVE_QUESTIONS";

/// Prefix of each line of results.
const MARK: &str = "evenkeel-native ";

/// Files of questions written so far.
static FILES: AtomicU32 = AtomicU32::new(0);

/// Questions for the native policy.
#[derive(Default)]
pub(super) struct NativeQuestions(String);

impl NativeQuestions {
    /// Starts a list of questions for a policy with these settings, as the plugin received them.
    pub(super) fn with(settings: &str) -> NativeQuestions {
        NativeQuestions(settings.to_owned())
    }

    /// Adds a question that the plugin was asked.
    pub(super) fn ask(
        &mut self,
        policy: &BoundPlugin,
        call: &str,
        question: &PolicyQuestion,
        now_us: u64,
    ) {
        let manifest = policy.component().manifest();
        let asked = question_json(manifest, policy.known_catalog(), call, question, now_us);
        self.0 += "\n";
        self.0 += &asked.to_string();
    }

    /// The time of each question, in the order added.
    ///
    /// # Errors
    /// If the project does not compile or has no such test: it is not a policy, or has an older SDK.
    pub(super) fn measure(&self, project: &Project) -> Result<Vec<TimeSpread>, AuthorError> {
        // Unique, as several measurements may run in this process.
        let (process, file) = (std::process::id(), FILES.fetch_add(1, Relaxed));
        let file = std::env::temp_dir().join(format!("evenkeel-native-{process}-{file}"));
        fs::write(&file, &self.0).map_err(AuthorError::file(&file))?;
        let said = project.run_test(TEST, (QUESTIONS, &file));
        // A leftover file is harmless.
        let _ = fs::remove_file(&file);
        let figures: Vec<TimeSpread> = said?.lines().filter_map(spread).collect();
        let asked = self.0.lines().count() - 1;
        if figures.len() == asked { Ok(figures) } else { Err(AuthorError::NotNative) }
    }
}

fn spread(line: &str) -> Option<TimeSpread> {
    let figures: Vec<u64> =
        line.strip_prefix(MARK)?.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [min, median, p99] = figures[..] else { return None };
    Some(TimeSpread { min, median, p99 })
}

/// A question in the format of the SDK's tests: frames with the manifest's columns.
fn question_json(
    manifest: &Manifest,
    catalog: &[CatalogEntry],
    call: &str,
    question: &PolicyQuestion,
    now_us: u64,
) -> Value {
    let places = |rows: &[Row]| frame(&manifest.node_metrics, &rows.iter());
    let none = || json!({"ids": [], "cells": []});
    let mut asked = json!({
        "call": call, "now_us": now_us, "catalog": catalog.iter().map(entry).collect::<Vec<_>>(),
        "id": 0, "standing_in": null, "scenario": "", "labels": [], "places": none(), "subjects": none(),
        "width": 0, "standing": [], "states": [], "memo": "",
    });
    match question {
        PolicyQuestion::Resolve { scenario, labels: of } => {
            (asked["scenario"], asked["labels"]) = (json!(scenario), labels(of));
        }
        PolicyQuestion::Admit { session, room: _, standing, scenario, labels: of, regions } => {
            asked["standing_in"] = json!(standing.map(|region| region.0));
            (asked["id"], asked["places"]) = (id(session.0), places(regions));
            (asked["scenario"], asked["labels"]) = (json!(scenario), labels(of));
        }
        PolicyQuestion::Place { room, scenario, labels: of, nodes } => {
            (asked["id"], asked["places"]) = (id(room.0), places(nodes));
            (asked["scenario"], asked["labels"]) = (json!(scenario), labels(of));
        }
        PolicyQuestion::Reroute { nodes, rooms, memo } => {
            let width = rooms.iter().map(|room| room.standing.len()).max().unwrap_or(0);
            let standing = rooms.iter().flat_map(|room| {
                let hops = room.standing.iter().map(|node| node.0);
                hops.chain(std::iter::repeat(u32::MAX)).take(width)
            });
            (asked["width"], asked["standing"]) = (json!(width), standing.collect());
            asked["places"] = places(nodes);
            asked["subjects"] =
                frame(&manifest.subject_metrics, &rooms.iter().map(|room| &room.row));
            asked["states"] = rooms.iter().map(|room| state(room.state.as_ref())).collect();
            asked["memo"] = state(memo.as_ref());
        }
        PolicyQuestion::Tick { sessions, memo } => {
            let rows = sessions.iter().map(|session| &session.row);
            asked["subjects"] = frame(&manifest.subject_metrics, &rows);
            asked["states"] =
                sessions.iter().map(|session| state(session.state.as_ref())).collect();
            asked["memo"] = state(memo.as_ref());
        }
    }
    asked
}

/// All 64 bits, as the SDK's JSON has integers.
fn id(id: u64) -> Value {
    json!(id as i64)
}

fn frame<'a>(columns: &[Metric], rows: &(impl Iterator<Item = &'a Row> + Clone)) -> Value {
    let cells = columns
        .iter()
        .flat_map(|&column| rows.clone().map(move |row| json!(row.measures.value(column))));
    json!({"ids": rows.clone().map(|row| id(row.id)).collect::<Vec<_>>(), "cells": cells.collect::<Vec<_>>()})
}

fn state(state: Option<&PluginState>) -> Value {
    let bytes = state.map(|state| &*state.bytes).unwrap_or_default();
    json!(HEXLOWER.encode(bytes))
}

fn labels(labels: &Labels) -> Value {
    labels.iter().map(|(key, value)| json!([key, value])).collect()
}

fn entry(entry: &CatalogEntry) -> Value {
    let labels: Vec<Value> = entry.labels.iter().map(|(key, value)| json!([key, value])).collect();
    json!({"kind": entry.kind as u32, "id": id(entry.id), "parent": id(entry.parent), "name": entry.name, "labels": labels})
}

#[cfg(test)]
mod tests;
