//! Plugins that repeat recorded calls, found by digest or as named on the command line.

use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use evenkeel_author::patient_engine;
use evenkeel_host::{
    BoundPlugin, Component, DataDocument, DataDocuments, Engine, GrantLimits, shipped,
};
use evenkeel_model::{PluginFault, PolicyQuestion, RevisionAnswer};
use evenkeel_process::sha256;
use evenkeel_recording::{RecordedCall, RecordedGrant, RecordedRevision};

use crate::command::{CommandError, table_of};
use crate::progress::report_progress;

/// The permissions that a plugin gets in the place of a recorded one: the recorded plugin gets the recorded ones,
/// another plugin all that it requests.
pub(super) fn allowed(component: &Component, revision: &RecordedRevision) -> GrantLimits {
    if *component.digest() != revision.digest {
        return GrantLimits::default();
    }
    let RecordedGrant { subject_metrics, node_metrics, ops } = &revision.grant;
    let metrics = subject_metrics.iter().chain(node_metrics).copied().collect();
    GrantLimits { ops: Some(ops.clone()), metrics: Some(metrics) }
}

/// Asks the plugin in the place of the call's revision.
///
/// # Errors
/// It ran past a budget of the gateway, as it would in further calls.
pub(super) fn ask(
    player: &mut BoundPlugin,
    question: &PolicyQuestion,
    call: &RecordedCall,
) -> Result<Result<RevisionAnswer, PluginFault>, CommandError> {
    evenkeel_author::ask(player, question, call.now_us).map_err(|overrun| {
        CommandError::Failed(format!(
            "question {} of {}: {overrun}",
            call.ask.0, call.revision.policy
        ))
    })
}

pub(crate) fn load_plugin(engine: &Engine, named: &str) -> Result<Component, CommandError> {
    let wrong = |said: String| CommandError::Wrong(format!("{named}: {said}"));
    let embedded = shipped().iter().find(|one| one.name == named);
    let bytes = match (std::fs::read(Path::new(named)), embedded) {
        (Ok(bytes), _) => bytes,
        (Err(_), Some(embedded)) => embedded.bytes.to_vec(),
        (Err(error), None) => return Err(wrong(error.to_string())),
    };
    let vetted = report_progress(&format!("compiling {named}"), || Component::vet(engine, &bytes));
    vetted.map_err(|refused| wrong(refused.to_string()))
}

/// Data documents of recorded revisions, found by their digests.
#[derive(Clone, Default)]
pub(super) struct DocumentFiles(Vec<DataDocument>);

impl DocumentFiles {
    /// Reads files of JSON or TOML.
    pub(super) fn read(files: &[PathBuf]) -> Result<DocumentFiles, CommandError> {
        let read = |file: &PathBuf| {
            let name = file.display().to_string();
            let document = DataDocument::of(&name, &table_of(file, "data document")?);
            document.map_err(|refused| CommandError::Wrong(refused.to_string()))
        };
        files.iter().map(read).collect::<Result<_, CommandError>>().map(DocumentFiles)
    }

    /// The documents of a revision that this plugin declares.
    ///
    /// # Errors
    /// One is missing; the error tells how to name it.
    pub(super) fn of(
        &self,
        component: &Component,
        revision: &RecordedRevision,
    ) -> Result<DataDocuments, CommandError> {
        let declared = &component.manifest().data;
        let recorded = revision.documents.iter().filter(|(name, _)| declared.contains_key(name));
        let found = recorded.map(|(name, digest)| {
            let document = self.0.iter().find(|document| document.digest() == digest);
            let missing = || {
                CommandError::Wrong(format!(
                    "{} looked up in the data document `{name}` with the SHA-256 {}; name its file with --data FILE",
                    revision.policy,
                    HEXLOWER.encode(digest)
                ))
            };
            Ok((name.clone(), document.ok_or_else(missing)?.clone()))
        });
        found.collect()
    }
}

struct NamedPlugin {
    shown: String,
    policy: Option<String>,
    component: Component,
}

pub(super) struct Plugins {
    engine: Engine,
    named: Vec<NamedPlugin>,
    pub(super) documents: DocumentFiles,
}

impl Plugins {
    /// Shipped plugins and named ones: `FILE` or `SET/HOOK=FILE`.
    pub(super) fn new(named: &[String]) -> Result<Plugins, CommandError> {
        let engine = patient_engine();
        let named = named.iter().map(|text| {
            let (policy, file) = match text.split_once('=') {
                Some((policy, file)) if policy.contains('/') => (Some(policy.to_owned()), file),
                Some(_) | None => (None, text.as_str()),
            };
            let component = load_plugin(&engine, file)?;
            Ok(NamedPlugin { shown: file.to_owned(), policy, component })
        });
        let named = named.collect::<Result<_, CommandError>>()?;
        Ok(Plugins { engine, named, documents: DocumentFiles::default() })
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The plugin for a revision: one named for its policy, one with its digest, or a named one with the same plugin
    /// name.
    ///
    /// # Errors
    /// No plugin fits; the error tells how to name one.
    pub(super) fn of(&self, revision: &RecordedRevision) -> Result<Component, CommandError> {
        let policy = revision.policy.to_string();
        let named = |fits: &dyn Fn(&NamedPlugin) -> bool| {
            self.named.iter().find(|named| fits(named)).map(|named| named.component.clone())
        };
        let by_policy = named(&|named| named.policy.as_ref() == Some(&policy));
        let by_digest = || named(&|named| *named.component.digest() == revision.digest);
        let by_name = || {
            named(&|named| {
                named.policy.is_none() && named.component.manifest().name == revision.plugin
            })
        };
        if let Some(found) = by_policy.or_else(by_digest).or_else(by_name) {
            return Ok(found);
        }
        let shipped = shipped().iter().find(|one| sha256(one.bytes) == revision.digest);
        let shipped = shipped.ok_or_else(|| self.missing(revision))?;
        let failed = |refused| CommandError::Failed(format!("{}: {refused}", shipped.name));
        Component::vet(&self.engine, shipped.bytes).map_err(failed)
    }

    fn missing(&self, revision: &RecordedRevision) -> CommandError {
        let RecordedRevision { policy, plugin, version, digest, .. } = revision;
        let digest = HEXLOWER.encode(&digest[..6]);
        let mut words = format!(
            "{policy} ran {plugin} {version} (SHA-256 {digest}…), which this evenkeel does not ship; name its file with --plugin FILE, or another plugin to run in its place with --plugin {policy}=FILE"
        );
        for named in &self.named {
            let manifest = named.component.manifest();
            words += &format!("; {} is {} {}", named.shown, manifest.name, manifest.version);
        }
        CommandError::Wrong(words)
    }
}
