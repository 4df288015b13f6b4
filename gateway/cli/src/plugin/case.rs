//! `evenkeel plugin ask` and `record-to-case`.

use std::path::PathBuf;

use clap::Args;
use evenkeel_author::case::{self, Case, CaseSubject, RecordedCase, case_of};
use evenkeel_author::{patient_engine, replace};
use evenkeel_host::{Component, Engine, shipped};
use evenkeel_model::{RoomId, SessionId};
use evenkeel_process::sha256;
use evenkeel_recording::RecordedCall;
use serde_json::{Value, json};

use super::file::{DataArgs, read};
use crate::command::{CommandError, settings_of, show, show_lines, verdict};
use crate::progress::report_progress;
use crate::recording::{load_plugin, recorded_about};

/// Ask a plugin one question, or those of a case, and show answer, guards, notes, log, time and instructions
///
/// A question is a table of TOML or JSON, such as `{"sessions": [{"id": 1, "jitter-up": 40000, "cap": 0}]}`; see
/// `docs/policies.md`. Exit code 1: the plugin failed, or its answer breaks a rule of the contract. An answer that the gateway
/// would guard is shown as such.
///
/// With --json: `answers`, each with `call`, `answer`, `guarded`, `breaches`, `notes`, `log`, `ns` and `instructions`.
#[derive(Args)]
pub(super) struct AskArgs {
    /// Plugin: a WebAssembly module or component
    plugin: PathBuf,
    /// File with the question
    #[arg(long, value_name = "FILE.json|toml")]
    input: PathBuf,
    /// File with settings, JSON or TOML; default: those of the question, or the plugin's own
    #[arg(long, value_name = "FILE.json|toml")]
    settings: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Make a case for `plugin test` of the recorded decisions about a session or room
///
/// Each question has the recorded measurements and states, and expects the recorded decision. Edit the expectation to the one
/// that would have been right. The reason of a decision is expected if the recorded plugin is embedded or named with --plugin.
#[derive(Args)]
#[command(group = clap::ArgGroup::new("subject").required(true).args(["session", "room"]))]
pub(super) struct RecordToCaseArgs {
    /// A recording of `evenkeel policy record`
    recording: PathBuf,
    /// Session: s7
    #[arg(long, value_parser = session)]
    session: Option<SessionId>,
    /// Room: r4
    #[arg(long, value_parser = room)]
    room: Option<RoomId>,
    /// Policy, if several decided about it: `<set>/<hook>`
    #[arg(long, value_name = "POLICY")]
    policy: Option<String>,
    /// Plugin of the recording
    #[arg(long, value_name = "FILE.wasm")]
    plugin: Option<String>,
    /// Decisions to take over, the last ones
    #[arg(long, default_value_t = 20)]
    most: usize,
    /// Output file; default: standard output
    #[arg(long, value_name = "FILE.toml")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

fn number(text: &str, prefix: char) -> Result<u64, String> {
    let digits = text.strip_prefix(prefix).unwrap_or(text);
    digits.parse().map_err(|_| format!("found `{text}`, expected a number such as `{prefix}7`"))
}

fn session(text: &str) -> Result<SessionId, String> {
    number(text, 's').map(SessionId)
}

fn room(text: &str) -> Result<RoomId, String> {
    number(text, 'r').map(RoomId)
}

impl AskArgs {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let settings = self.settings.as_deref().map_or(Ok(Value::Null), settings_of)?;
        let case = Case::read(&self.input)?;
        let mut built = read(&self.plugin)?;
        built.documents = self.data.read()?;
        let report = report_progress("measuring", || case::ask(&built, &case, &settings))?;
        show_lines(self.json, &report.json(), || report.to_string());
        let failed =
            (!report.is_passed()).then(|| "an answer breaks a rule of the contract".into());
        verdict(self.json, failed)
    }
}

impl RecordToCaseArgs {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let subject = match (self.session, self.room) {
            (Some(session), _) => CaseSubject::Session(session),
            (None, Some(room)) => CaseSubject::Room(room),
            (None, None) => return Err(CommandError::Wrong("name --session or --room".into())),
        };
        let calls = recorded_about(&self.recording, subject, self.policy.as_deref())?;
        let engine = patient_engine();
        let component = self.component(&engine, &calls)?;
        let case = case_of(subject, calls, component.as_ref(), self.most);
        let case = case.map_err(|error| CommandError::Failed(error.to_string()))?;
        let Some(RecordedCase { text, questions }) = case else {
            let words = "no policy decided about it in this recording".to_owned();
            return Err(CommandError::Wrong(words));
        };
        let Some(out) = &self.out else {
            show_lines(self.json, &json!({"case": text}), || text.trim_end().to_owned());
            return Ok(());
        };
        replace(out, text.as_bytes())
            .map_err(|error| CommandError::Failed(format!("{}: {error}", out.display())))?;
        show(self.json, &json!({"out": out, "questions": questions}), || {
            format!("{}: {questions} questions with the recorded decisions", out.display())
        });
        Ok(())
    }

    /// The plugin that decided: the one that is named, or an embedded one.
    fn component(
        &self,
        engine: &Engine,
        calls: &[RecordedCall],
    ) -> Result<Option<Component>, CommandError> {
        if let Some(named) = &self.plugin {
            return load_plugin(engine, named).map(Some);
        }
        let Some(call) = calls.last() else { return Ok(None) };
        let embedded = shipped().iter().find(|one| sha256(one.bytes) == call.revision.digest);
        embedded.map(|one| load_plugin(engine, one.name)).transpose()
    }
}
