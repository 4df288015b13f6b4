//! Prepares a revision: checks its signature, compiles it, installs it and replays recorded questions. Runs neither on
//! the control thread nor on that of the policy, since compiling may take long.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use evenkeel_config::{
    GatewayConfig, InvalidSetting, PluginLimits, PluginLocation, PolicyBinding, RegistryPlugin,
    TrustSettings,
};
use evenkeel_core::GatewayCopy;
use evenkeel_host::{
    self as host, DataDocument, DataDocuments, PluginInputs, PluginRefusal, PluginSeal, Provenance,
};
use evenkeel_model::PolicyName;
use evenkeel_process::{file, lock, sha256, unix_us};
use evenkeel_revisions::{
    Actor, Judging, Revision, RevisionRefusal, RolloutOutcome, RolloutReport, RolloutRequest,
    Strategy, age_text,
};
use tokio::sync::{mpsc, oneshot};

use super::compiling::Foundry;
use super::proof::{ProofFailure, replay};
use super::record::{PluginRecord, StoredPlugin, digest, hexadecimal};
use super::thread::{
    CatalogSnapshot, LoadDecision, LoadedPlugin, PluginFacts, PolicyMessage, PolicyReport,
    ReadyRevision, ThreadCounters, ThreadQueue,
};
use super::trial::try_revision;

/// Maximum refusals kept: enough to look through after an incident.
const REFUSALS_MAX: usize = 128;

/// Maximum proofs remembered of a policy. A revision that passed one is active again at once.
const PROVED_MAX: usize = 16;

/// A plugin's bytes, settings, data documents and origin.
#[derive(Clone, Debug)]
pub struct PluginSource {
    /// The plugin's file.
    pub bytes: Vec<u8>,
    /// `None` inherits the settings of the active revision, or takes the defaults if that has another plugin.
    pub settings: Option<serde_json::Value>,
    /// The data documents of the revision.
    pub documents: SourceDocuments,
    /// `embedded`, the path of a file, the reference to a registry, or `pushed`.
    pub origin: Box<str>,
    /// Identifies the plugin, settings and grant of a binding; `None` for a push.
    pub configured: Option<Arc<str>>,
    /// Seed of the plugin's random numbers.
    pub seed: u64,
    /// The time of the request.
    pub arrived: Instant,
    /// How the revision becomes active.
    pub how: ActivationOptions,
}

/// Data documents of a revision.
#[derive(Clone, Debug)]
pub enum SourceDocuments {
    /// No others.
    Whole(DataDocuments),
    /// In place of those of the active revision, if it has the same plugin.
    Changed(DataDocuments),
}

impl SourceDocuments {
    /// The documents that are named.
    pub fn given(&self) -> &DataDocuments {
        match self {
            SourceDocuments::Whole(given) | SourceDocuments::Changed(given) => given,
        }
    }
}

impl PluginSource {
    /// Reads the plugin of a binding from the binary, a file or the cache of registries, and its data documents from files;
    /// an error shows their place in the policy set.
    pub fn read(binding: &PolicyBinding) -> Result<PluginSource, Box<InvalidSetting>> {
        let missing =
            |found: String| Box::new(binding.plugin_invalid(found, "a plugin that can be read"));
        let (bytes, origin) = match &binding.plugin {
            PluginLocation::Shipped(name) => {
                let shipped = host::shipped().iter().find(|shipped| shipped.name == *name);
                let absent = || missing(format!("no plugin {name} is in this binary"));
                (shipped.ok_or_else(absent)?.bytes.to_vec(), "embedded".to_owned())
            }
            PluginLocation::File(path) => {
                let bytes = file::read(path, host::BINARY_BYTES_MAX as u64)
                    .map_err(|error| missing(format!("`{}`: {error}", path.display())))?;
                (bytes, path.display().to_string())
            }
            PluginLocation::Registry(RegistryPlugin { reference, kept }) => {
                let kept = kept.as_ref();
                let kept = kept.ok_or_else(|| missing(format!("`{reference}`, not pulled")))?;
                let path = kept.path.display();
                let bytes = file::read(&kept.path, host::BINARY_BYTES_MAX as u64)
                    .map_err(|error| missing(format!("`{path}`: {error}")))?;
                if sha256(&bytes) != kept.content {
                    return Err(missing(format!("`{path}` with other bytes than `{reference}`")));
                }
                (bytes, reference.to_string())
            }
        };
        let documents = documents(binding)?;
        let (settings, grant) = (binding.settings.clone(), &binding.allowed.grant);
        let mut configured = format!("{} {settings} {grant:?}", digest(&bytes));
        for (name, document) in &documents {
            configured += &format!(" {name} {}", hexadecimal(document.digest()));
        }
        Ok(PluginSource {
            bytes,
            settings: Some(settings),
            documents: SourceDocuments::Whole(documents),
            origin: origin.into(),
            configured: Some(digest(configured.as_bytes())),
            seed: fastrand::u64(..),
            arrived: Instant::now(),
            how: ActivationOptions::at_once(Actor::File),
        })
    }
}

/// Reads the data documents of a binding.
fn documents(binding: &PolicyBinding) -> Result<DataDocuments, Box<InvalidSetting>> {
    let read = |(name, path): (&Arc<str>, &PathBuf)| {
        let bytes = file::read(path, host::limits::DOCUMENT_BYTES_MAX as u64).map_err(|error| {
            let found = format!("`{}`: {error}", path.display());
            let expected = "a file of at most 1 MiB that can be read";
            Box::new(binding.document_invalid(name, found, expected))
        })?;
        let document = DataDocument::read(name, &bytes);
        let document = document.map_err(|refused| Box::new(binding.refused(&refused)))?;
        Ok((Arc::clone(name), document))
    };
    binding.documents.iter().map(read).collect()
}

/// Options of the activation of a revision; see [`RolloutRequest`].
#[derive(Clone, Debug)]
pub struct ActivationOptions {
    /// The cause of the change.
    pub by: Actor,
    /// Activate a quarantined or older revision.
    pub force: bool,
    /// End the rollout of another revision.
    pub replace: bool,
    /// The stages; `None` activates at once.
    pub strategy: Option<Strategy>,
    /// The plugin is that of a file: an older version is accepted.
    pub returns: bool,
}

impl ActivationOptions {
    /// Without stages.
    pub fn at_once(by: Actor) -> ActivationOptions {
        ActivationOptions { by, force: false, replace: true, strategy: None, returns: false }
    }
}

/// One push of a policy, with the data to prepare it.
#[derive(Debug)]
pub struct Preparation {
    pub(super) policy: PolicyName,
    /// The push's number in the core; a later push supersedes it.
    pub(super) push: u64,
    /// The time of the push, which `RunningPolicy::preparing` refers to.
    pub(super) _began: Arc<Instant>,
    pub(super) foundry: Foundry,
    pub(super) rules: Arc<TrustRules>,
    pub(super) ledger: Arc<RefusalLedger>,
    pub(super) catalog: CatalogSnapshot,
    pub(super) shared: Arc<ThreadQueue>,
    /// The plugin of the active revision.
    pub(super) plugin: Option<Arc<PluginFacts>>,
    pub(super) active: Option<Arc<str>>,
    /// The nodes on which the revision is tried; `None` for the first revision.
    pub(super) copy: Option<GatewayCopy>,
    pub(super) judging: Judging,
    pub(super) reports: mpsc::Sender<PolicyReport>,
}

/// The reason why a revision was refused.
#[derive(Debug, thiserror::Error)]
enum PrepareError {
    #[error(transparent)]
    Refused(#[from] PluginRefusal),
    #[error(transparent)]
    Disproved(#[from] ProofFailure),
    /// The core refused the revision.
    #[error("{}", refusal_text(.0))]
    Unwanted(RevisionRefusal),
    /// A plugin of a record is another revision here, this one.
    #[error("with the grant in this configuration it is revision {0}")]
    Other(Arc<str>),
    #[error("the policy is not running")]
    Gone,
}

impl PrepareError {
    /// The stable code in metrics, events and the API.
    fn code(&self) -> &'static str {
        match self {
            PrepareError::Refused(refused) => refused.code(),
            PrepareError::Disproved(failure) => failure.code(),
            PrepareError::Unwanted(refusal) => refusal.code(),
            PrepareError::Other(_) => "other-revision",
            PrepareError::Gone => "unavailable",
        }
    }
}

fn refusal_text(refusal: &RevisionRefusal) -> String {
    match refusal {
        RevisionRefusal::Superseded => {
            "superseded by a later push or rollback of this policy".to_owned()
        }
        RevisionRefusal::Downgrade { plugin, found, ran } => {
            let (found, ran) = (found.to_string().into(), ran.to_string().into());
            PluginRefusal::Downgrade { plugin: (**plugin).into(), found, ran }.to_string()
        }
        RevisionRefusal::Quarantined { quarantined, age } => format!(
            "revision {} was quarantined {} ago, and stays so until a push with `--force`: {}",
            quarantined.revision,
            age_text(*age),
            quarantined.reason
        ),
        RevisionRefusal::Running { candidate, stage } => format!(
            "revision {candidate} is being rolled out, {stage}: `--replace` ends that rollout, and `policy abort` does so without a new one"
        ),
        RevisionRefusal::Revoked(reason) => reason.to_string(),
    }
}

/// The configured rules for plugins: accepted signers and grants per policy. Each rollout reads the rules at its start.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct TrustRules {
    trust: TrustSettings,
    allowed: BTreeMap<PolicyName, PluginLimits>,
}

impl TrustRules {
    /// `[trust]` and the bindings of these settings.
    pub fn of(settings: &GatewayConfig) -> TrustRules {
        let allowed =
            settings.bindings().map(|(policy, binding)| (policy, binding.allowed.clone()));
        TrustRules { trust: settings.trust.clone(), allowed: allowed.collect() }
    }

    /// Checks the plugin's signature against the rules of this policy.
    pub fn judge(&self, policy: &PolicyName, plugin: &[u8]) -> Result<Provenance, PluginRefusal> {
        let allowed = self.allowed.get(policy).cloned().unwrap_or_default();
        self.trust.keys.judge(plugin, self.trust.unsigned(&allowed))
    }

    /// The refusal of an accepted plugin that has been revoked since.
    pub(super) fn revoked(&self, seal: &PluginSeal) -> Option<PluginRefusal> {
        self.trust.keys.check_revoked(seal).err()
    }

    pub(crate) fn grant(&self, policy: &PolicyName) -> evenkeel_host::GrantLimits {
        self.allowed.get(policy).map(|allowed| allowed.grant.clone()).unwrap_or_default()
    }
}

/// A refused revision or plugin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RefusalRecord {
    /// Microseconds since the Unix epoch.
    pub at_us: u64,
    /// The policy that the plugin was for.
    pub policy: PolicyName,
    /// `pushed`, or the path of a file.
    pub origin: Box<str>,
    /// The stable code of the reason.
    pub code: &'static str,
    /// One sentence with the next step.
    pub reason: Box<str>,
}

impl RefusalRecord {
    /// A refusal at this moment.
    pub fn now(
        policy: PolicyName,
        origin: Box<str>,
        code: &'static str,
        reason: Box<str>,
    ) -> RefusalRecord {
        RefusalRecord { at_us: unix_us(SystemTime::now()), policy, origin, code, reason }
    }
}

/// The last refused revisions and plugins, which are lost when the process ends. Rollouts append to it; the API reads it.
#[derive(Default, Debug)]
pub struct RefusalLedger(Mutex<VecDeque<RefusalRecord>>);

impl RefusalLedger {
    /// Adds a refusal and drops the oldest one if the list is full.
    pub fn refuse(&self, refusal: RefusalRecord) {
        let mut kept = lock(&self.0);
        if kept.len() == REFUSALS_MAX {
            kept.pop_front();
        }
        kept.push_back(refusal);
    }

    /// The oldest refusal is first.
    pub fn refusals(&self) -> Vec<RefusalRecord> {
        lock(&self.0).iter().cloned().collect()
    }
}

/// Prepares a revision and returns the outcome. Blocks while the plugin is compiled.
pub fn prepare(preparation: &Preparation, source: PluginSource) -> RolloutReport {
    let (arrived, by, origin) = (source.arrived, source.how.by, source.origin.clone());
    let mut revision = None;
    prepare_and_load(preparation, source, &mut revision).unwrap_or_else(|unfit| {
        let (policy, code) = (preparation.policy.clone(), unfit.code());
        let reason = Box::<str>::from(unfit.to_string());
        preparation.ledger.refuse(RefusalRecord::now(policy.clone(), origin, code, reason.clone()));
        RolloutReport {
            policy,
            outcome: RolloutOutcome::Refused,
            stage: None,
            by,
            revision,
            previous: preparation.active.clone(),
            code: Some(code),
            reason: Some(reason),
            arrived,
            activate: Duration::ZERO,
        }
    })
}

/// Prepares the first revision of a policy. A policy that is stopped meanwhile counts as success.
pub fn begin(preparation: &Preparation, source: PluginSource) -> Result<(), Box<str>> {
    match prepare_and_load(preparation, source, &mut None) {
        Ok(_) | Err(PrepareError::Unwanted(RevisionRefusal::Superseded) | PrepareError::Gone) => {
            Ok(())
        }
        Err(unfit) => Err(unfit.to_string().into()),
    }
}

/// Prepares and loads the revision. Sets `name` as soon as the revision has one.
fn prepare_and_load(
    preparation: &Preparation,
    source: PluginSource,
    name: &mut Option<Arc<str>>,
) -> Result<RolloutReport, PrepareError> {
    let PluginSource { bytes, settings, documents, origin, configured, seed, arrived, how } =
        source;
    let installed = preparation.install(bytes.into(), settings, documents, origin, seed)?;
    let (revision, loaded) = installed;
    *name = Some(Arc::clone(&revision.name));
    let ActivationOptions { by, force, replace, strategy, returns } = how;
    let push = preparation.push;
    let request = RolloutRequest { push, by, arrived, force, replace, strategy, returns };
    preparation
        .ask_core(|reply| PolicyMessage::Compiled {
            policy: preparation.policy.clone(),
            request: Box::new(request.clone()),
            revision: revision.clone(),
            reply,
        })?
        .map_err(PrepareError::Unwanted)?;
    preparation.prove(&loaded.policy, &revision)?;
    let (policy, since) = (preparation.policy.clone(), Instant::now());
    let LoadDecision { result, unwanted } = preparation.ask_core(|reply| {
        PolicyMessage::Ready(Box::new(ReadyRevision {
            policy,
            request,
            revision,
            loaded,
            configured,
            since,
            reply,
        }))
    })?;
    drop(unwanted);
    result.map_err(PrepareError::Unwanted)
}

/// Revisions of another process's record that are to be loaded.
#[derive(Debug)]
pub struct RevisionLoad {
    pub(super) preparation: Preparation,
    pub(super) plugins: Vec<(PluginRecord, StoredPlugin)>,
    pub(super) active: Option<Arc<str>>,
}

/// Loads revisions of another process's record. Blocks while plugins are compiled. Returns true if it loaded the active revision.
pub fn load(load: RevisionLoad) -> bool {
    let RevisionLoad { preparation, plugins, active } = load;
    let mut has_active = false;
    for (plugin, stored) in plugins {
        let revision = Arc::clone(&plugin.revision);
        let policy = preparation.policy.clone();
        let loaded = match preparation.load(plugin, stored) {
            Ok(loaded) => {
                has_active |= active.as_ref() == Some(&revision);
                Some(Box::new(loaded))
            }
            Err(unfit) => {
                tracing::warn!(%policy, %revision, %unfit, "revision of another process does not run here");
                None
            }
        };
        // Fails only if control has ended.
        let _ = preparation.ask_core(|reply| PolicyMessage::Restored {
            policy,
            revision,
            loaded,
            reply,
        });
    }
    has_active
}

impl RevisionLoad {
    /// The policy of the record.
    pub fn policy(&self) -> &PolicyName {
        &self.preparation.policy
    }
}

impl Preparation {
    /// The policy of the push.
    pub fn policy(&self) -> &PolicyName {
        &self.policy
    }

    /// Checks the plugin's signature, compiles and installs the plugin.
    fn install(
        &self,
        bytes: Bytes,
        settings: Option<serde_json::Value>,
        documents: SourceDocuments,
        origin: Box<str>,
        seed: u64,
    ) -> Result<(Revision, LoadedPlugin), PluginRefusal> {
        let Preparation { foundry, rules, policy, catalog, .. } = self;
        let vouched = rules.judge(policy, &bytes)?;
        let seal = PluginSeal::of(&bytes)?;
        let component = foundry.vet(&bytes)?;
        let manifest = component.manifest();
        let active = self.plugin.as_ref().filter(|plugin| plugin.name == manifest.name);
        let active = active.map(|plugin| plugin.inputs.clone()).unwrap_or_default();
        let documents = match documents {
            SourceDocuments::Whole(given) => given,
            SourceDocuments::Changed(given) => {
                // Another version of the plugin may no longer declare a document.
                let kept = active.documents.into_iter();
                let kept = kept.filter(|(name, _)| manifest.data.contains_key(name));
                kept.chain(given).collect()
            }
        };
        let inputs = PluginInputs { settings: settings.unwrap_or(active.settings), documents };
        let (engine, hook, given) = (foundry.engine(), policy.hook, inputs.clone());
        let (entries, allowed) = (catalog.entries.to_vec(), rules.grant(policy));
        let made = host::BoundPlugin::install_within(
            engine, &component, hook, given, entries, seed, &allowed,
        )?;
        let revision = Revision {
            name: made.revision().into(),
            plugin: Arc::clone(&manifest.name),
            version: evenkeel_revisions::Version::read(&manifest.version),
            schema: manifest.state_schema,
        };
        tracing::debug!(%policy, revision = %revision.name, signer = ?vouched, "plugin installed");
        let facts = PluginFacts {
            name: Arc::clone(&revision.plugin),
            title: format!("{} {}", revision.plugin, revision.version).into(),
            origin,
            inputs,
            digest: digest(&bytes),
            bytes,
            seal,
            counters: ThreadCounters::default(),
        };
        let loaded =
            LoadedPlugin { policy: made, facts: Arc::new(facts), catalog: catalog.version };
        Ok((revision, loaded))
    }

    /// Installs one revision of another process's record.
    fn load(
        &self,
        plugin: PluginRecord,
        stored: StoredPlugin,
    ) -> Result<LoadedPlugin, PrepareError> {
        let PluginRecord { revision: expected, digest: named, settings, origin, documents: _ } =
            plugin;
        let read = |(name, bytes): (Arc<str>, Bytes)| {
            let document = DataDocument::read(&name, &bytes)?;
            Ok((name, document))
        };
        let documents = stored.documents.into_iter().map(read);
        let documents = documents.collect::<Result<DataDocuments, PluginRefusal>>()?;
        let (settings, documents) = (Some(settings), SourceDocuments::Whole(documents));
        let seed = fastrand::u64(..);
        let (found, loaded) = self.install(stored.bytes, settings, documents, origin, seed)?;
        if loaded.facts.digest != named || found.name != expected {
            return Err(PrepareError::Other(found.name));
        }
        Ok(loaded)
    }

    fn ask_core<T>(
        &self,
        message: impl FnOnce(oneshot::Sender<T>) -> PolicyMessage,
    ) -> Result<T, PrepareError> {
        let (reply, answer) = oneshot::channel();
        self.reports.blocking_send(PolicyReport(message(reply))).map_err(|_| PrepareError::Gone)?;
        answer.blocking_recv().map_err(|_| PrepareError::Gone)
    }

    /// Replays the recorded questions, and tries a revision that was not tried before.
    fn prove(&self, plugin: &host::BoundPlugin, revision: &Revision) -> Result<(), ProofFailure> {
        let questions = self.shared.questions.list();
        if questions.is_empty() && self.copy.is_none() {
            return Ok(());
        }
        let mut plugin = plugin.another_on_processor_time()?;
        replay(&mut plugin, &questions)?;
        let known = (Arc::clone(&revision.name), self.catalog.version);
        let is_known = lock(&self.shared.proved).contains(&known);
        if let Some(copy) = self.copy.as_ref().filter(|_| !is_known) {
            try_revision(&plugin, (&self.policy, revision), (copy, self.judging), questions)?;
            let mut proved = lock(&self.shared.proved);
            if proved.len() == PROVED_MAX {
                proved.pop_front();
            }
            proved.push_back(known);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
