//! `evenkeel.toml` and the policy sets, parsed and checked once.

#![deny(missing_docs)]

pub mod address;
mod binding;
mod breaker;
mod check;
mod cluster;
mod compiler;
mod core;
mod detector;
mod embedded;
mod gateway;
mod index;
mod invalid;
mod listen;
mod node;
mod raw;
mod rollout;
mod secret;
mod set;
mod survival;
mod trust;
mod unit;
mod url;
mod webhook;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use address::NetworkPrefix;
pub use binding::{PluginLocation, PolicyBinding};
use check::ConfigCheck;
pub use cluster::{AddressPlace, GroupSettings, MovingAddress, PeerSettings};
pub use compiler::Compiler;
use evenkeel_model::{PolicyName, Timings};
use evenkeel_process::file;
pub use gateway::{
    AdminSettings, AdminTcp, CacheFolder, GatewaySettings, LimitSettings, Otlp, Protocol,
    TelemetrySettings, Traceparent,
};
pub use index::{IndexSettings, Login};
use invalid::ConfigSource;
pub use invalid::{Colour, InvalidSetting};
pub use listen::{CertificateFiles, ListenIdentity, ListenIngress, ListenRtcp, ListenSettings};
pub use node::{
    DriverSettings, NODES_MAX, NodeConfig, ProbeKind, StartBy, StartHook, WatchingAgent,
};
pub use rollout::{RolloutSettings, paces};
pub use secret::SecretFile;
pub use set::{DscpSettings, OnFault, PolicySet, ScenarioSettings, SetOrigin};
pub use trust::{PluginLimits, TrustSettings};
pub use unit::{ConfigBitRate, read_duration};
pub use url::{NoUrl, Url};
pub use webhook::WebhookTarget;

/// Maximum size of a configuration file. These files are written by hand, so a larger one was named by mistake.
const FILE_MAX: u64 = 1 << 20;

/// `evenkeel.toml` and its policy sets, checked.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// `[gateway]`.
    pub gateway: GatewaySettings,
    /// At least one listener.
    pub listens: Vec<ListenSettings>,
    /// Region names in the order of the file.
    pub regions: Vec<Arc<str>>,
    /// `[[node]]`, in the order of the file.
    pub nodes: Vec<NodeConfig>,
    /// `[admin]`.
    pub admin: AdminSettings,
    /// `[telemetry]`.
    pub telemetry: TelemetrySettings,
    /// `[limits]`.
    pub limits: LimitSettings,
    /// `[breaker]`.
    pub breaker: evenkeel_model::Breakers,
    /// `[detector]`.
    pub detector: Timings,
    /// `[trust]`.
    pub trust: TrustSettings,
    /// The group of this gateway. Default: none.
    pub cluster: Option<GroupSettings>,
    /// The index that lists the sessions of all gateways. Default: none.
    pub index: Option<IndexSettings>,
    /// Compiles pushed plugins. Set by the command line, not by the file. Without it, plugins are compiled in this
    /// process.
    pub compiler: Option<Compiler>,
    /// Policy sets by name; at most one set defines a scenario.
    pub sets: Vec<PolicySet>,
    /// Weaknesses of a valid configuration.
    pub warnings: Vec<InvalidSetting>,
}

impl GatewayConfig {
    /// The number of workers. By default one core is left for control and the QUIC endpoint.
    pub fn workers(&self) -> usize {
        let default =
            || std::thread::available_parallelism().map_or(1, |cores| cores.get().max(2) - 1);
        self.limits.workers.map_or_else(default, usize::from)
    }

    /// Reads and checks `evenkeel.toml` and the folder of policy sets.
    ///
    /// Without a file: UDP and QUIC on loopback, no nodes. Files in `policies`, or else in the folder that the file
    /// names, replace the shipped policy sets of the same name.
    /// Returns all errors with their places; only the first if a file cannot be parsed.
    pub fn load(
        config: Option<&Path>,
        policies: Option<&Path>,
    ) -> Result<GatewayConfig, Vec<InvalidSetting>> {
        let mut invalid = Vec::new();
        let (raw, mut check) = match config.map(read).transpose() {
            Ok(source) => {
                let folder = config.and_then(Path::parent).unwrap_or(Path::new(""));
                let source =
                    source.unwrap_or_else(|| ConfigSource::new(Path::new("evenkeel.toml"), ""));
                (parse::<raw::ConfigFile>(&source, &mut invalid), ConfigCheck::new(source, folder))
            }
            Err(unreadable) => {
                invalid.push(*unreadable);
                let source = ConfigSource::new(Path::new("evenkeel.toml"), "");
                (raw::ConfigFile::default(), ConfigCheck::new(source, Path::new("")))
            }
        };
        let gateway = GatewaySettings::check(&raw.gateway, &mut check);
        let folder = policies.map(Path::to_owned).or_else(|| gateway.policies.clone());
        let files = folder.map_or_else(|| Ok(Vec::new()), |folder| set_files(&folder));
        let files = files.unwrap_or_else(|(folder, error)| {
            let expected = "a folder of policy sets";
            let found = format!("`{}`: {error}", folder.display());
            match (&raw.gateway.policies, policies) {
                (Some(written), None) => _ = check.refuse(written.span(), found, expected),
                _ => invalid.push(InvalidSetting::whole(&folder, error.to_string(), expected)),
            }
            Vec::new()
        });
        let sets = sets(files, &mut invalid);
        let (sets, places): (Vec<_>, Vec<_>) = sets
            .into_iter()
            .map(|(checked, source)| (checked.set, (source, checked.places)))
            .unzip();
        let settings = GatewayConfig::check(&raw, gateway, sets, &mut check);
        invalid.extend(survival::check(&settings, &places));
        check.invalid.sort_by_key(|invalid| (invalid.line, invalid.column));
        invalid.append(&mut check.invalid);
        if invalid.is_empty() { Ok(settings) } else { Err(invalid) }
    }

    fn check(
        raw: &raw::ConfigFile,
        mut gateway: GatewaySettings,
        sets: Vec<PolicySet>,
        check: &mut ConfigCheck,
    ) -> GatewayConfig {
        let mut regions = node::regions(raw, check);
        match &raw.gateway.region {
            Some(name) => node::known(name, &regions, check),
            None if regions.len() > 1 => {
                let known: Vec<_> = regions.iter().map(|name| format!("`{name}`")).collect();
                let expected = format!("`region` in [gateway], one of {}", known.join(", "));
                let first = raw.node.first().map_or(0..0, |node| node.get_ref().region.span());
                check.refuse(first, "nodes in several regions", expected);
            }
            None => gateway.region = regions.first().unwrap_or(&gateway.region).clone(),
        }
        if regions.is_empty() {
            regions.push(gateway.region.clone());
        }
        node::duplicates(&raw.node, check);
        bounded(&raw.node, NODES_MAX, "nodes", check);
        bounded(&raw.listen, listen::LISTENS_MAX, "listeners", check);
        let nodes: Vec<_> = raw.node.iter().filter_map(|raw| node::check(raw, check)).collect();
        node::shared_secrets(&raw.node, &nodes, raw.admin.drills, check);
        let listens = listens(raw, &sets, check);
        let member = raw.cluster.as_ref();
        let cluster = member.and_then(|raw| cluster::check(raw, &nodes, &listens, check));
        let member = member.map(toml::Spanned::get_ref);
        let index = raw.index.as_ref().and_then(|raw| index::check(raw, member, check));
        GatewayConfig {
            gateway,
            listens,
            regions,
            nodes,
            admin: AdminSettings::check(&raw.admin, check),
            telemetry: TelemetrySettings::check(&raw.telemetry, check),
            limits: LimitSettings::check(&raw.limits, check),
            breaker: breaker::check(&raw.breaker, check),
            detector: detector::check(&raw.detector, check),
            trust: trust::check(&raw.trust, check),
            cluster,
            index,
            compiler: None,
            sets,
            warnings: std::mem::take(&mut check.warnings),
        }
    }

    /// Warnings about a valid configuration.
    pub fn notes(&self) -> Vec<String> {
        let trust = self.trust.note().map(str::to_owned);
        let warnings = self.warnings.iter();
        let warnings = warnings.map(|warning| format!("{}: {warning}", warning.place()));
        trust.into_iter().chain(node::note(&self.nodes)).chain(warnings).collect()
    }

    /// All bindings with the policies that they configure.
    pub fn bindings(&self) -> impl Iterator<Item = (PolicyName, &PolicyBinding)> {
        self.sets.iter().flat_map(|set| {
            let policy = |hook| PolicyName { set: Arc::clone(&set.name), hook };
            set.bindings.iter().map(move |binding| (policy(binding.hook), binding))
        })
    }

    /// A scenario by name, with its set.
    pub fn scenario(&self, name: &str) -> Option<(&PolicySet, &ScenarioSettings)> {
        let all = self.sets.iter().flat_map(|set| set.scenarios.iter().map(move |s| (set, s)));
        all.into_iter().find(|(_, scenario)| *scenario.name == *name)
    }
}

fn listens(
    raw: &raw::ConfigFile,
    sets: &[PolicySet],
    check: &mut ConfigCheck,
) -> Vec<ListenSettings> {
    if raw.listen.is_empty() {
        return loopback().into();
    }
    let checked: Vec<_> = raw.listen.iter().filter_map(|raw| listen::check(raw, check)).collect();
    listen::overlaps(&checked, check);
    listen::quic_once(&checked, check);
    for listen in &checked {
        if let Some(name) = &listen.scenario {
            let known = sets.iter().flat_map(|set| &set.scenarios).map(|scenario| &*scenario.name);
            if !known.clone().any(|known| known == name.get_ref()) {
                let list: Vec<_> = known.clone().map(|name| format!("`{name}`")).collect();
                let found = format!("unknown scenario `{}`", name.get_ref());
                let help = invalid::nearest(name.get_ref(), known);
                let expected = format!("one of {}", list.join(", "));
                check.refuse(name.span(), found, expected).help = help;
            }
        }
    }
    checked.into_iter().map(|checked| checked.listen).collect()
}

/// The listeners of a gateway without a configuration file.
fn loopback() -> [ListenSettings; 2] {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let identities = vec![ListenIdentity::Declared, ListenIdentity::Stun];
    let udp = ListenIngress::Udp { identities, open: None, rtcp: ListenRtcp::Own(5005) };
    let quic = ListenIngress::Quic { certificate: None };
    [(at(5004), udp), (at(4433), quic)].map(|(address, ingress)| ListenSettings {
        address,
        ingress,
        advertise: None,
    })
}

fn bounded<T>(list: &[toml::Spanned<T>], most: usize, what: &str, check: &mut ConfigCheck) {
    if let Some(first) = list.get(most) {
        let found = format!("{} {what}", list.len());
        check.refuse(first.span(), found, format!("at most {most} {what}"));
    }
}

fn read(path: &Path) -> Result<Arc<ConfigSource>, Box<InvalidSetting>> {
    let refuse = |found: String| Box::new(InvalidSetting::whole(path, found, "a file of TOML"));
    let bytes = file::read(path, FILE_MAX).map_err(|error| refuse(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|error| refuse(error.to_string()))?;
    // Errors show lines of the file on a terminal.
    let is_control = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
    if let Some(at) = text.find(is_control) {
        let line = text[..at].matches('\n').count() + 1;
        let found = text[at..].chars().next().map_or(0, u32::from);
        return Err(refuse(format!("the control character U+{found:04X} in line {line}")));
    }
    Ok(ConfigSource::new(path, &text))
}

fn parse<T: Default + serde::de::DeserializeOwned>(
    source: &Arc<ConfigSource>,
    invalid: &mut Vec<InvalidSetting>,
) -> T {
    toml::from_str(&source.text).unwrap_or_else(|error| {
        invalid.push(invalid::from_parser(source, &error));
        T::default()
    })
}

/// The shipped policy sets, replaced by these files, by name.
fn sets(
    files: Vec<PathBuf>,
    invalid: &mut Vec<InvalidSetting>,
) -> Vec<(set::CheckedSet, Arc<ConfigSource>)> {
    let mut texts: BTreeMap<String, (PathBuf, SetOrigin, Arc<ConfigSource>)> = BTreeMap::new();
    for (name, text) in embedded::SETS {
        let shown = PathBuf::from(format!("policies/{name} (shipped)"));
        let source = ConfigSource::new(&shown, text);
        texts.insert(name.to_owned(), (PathBuf::from(name), SetOrigin::Shipped, source));
    }
    for path in files {
        match read(&path) {
            Ok(source) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                texts.insert(name, (path.clone(), SetOrigin::File(path), source));
            }
            Err(unreadable) => invalid.push(*unreadable),
        }
    }
    let mut answered: BTreeMap<Arc<str>, String> = BTreeMap::new();
    let mut sets = Vec::new();
    for (path, origin, source) in texts.into_values() {
        let before = invalid.len();
        let raw: raw::Set = parse(&source, invalid);
        if invalid.len() > before {
            continue;
        }
        let mut check =
            ConfigCheck::new(Arc::clone(&source), path.parent().unwrap_or(Path::new("")));
        let checked = set::check(&raw, &path, origin, &mut check);
        for (scenario, place) in checked.set.scenarios.iter().zip(&checked.places) {
            answer_once(&mut answered, &scenario.name, place, &mut check);
        }
        check.invalid.sort_by_key(|invalid| (invalid.line, invalid.column));
        invalid.append(&mut check.invalid);
        sets.push((checked, source));
    }
    sets
}

fn set_files(folder: &Path) -> Result<Vec<PathBuf>, (PathBuf, std::io::Error)> {
    let mut files = std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>())
        .map_err(|error| (folder.to_owned(), error))?;
    // Editors write lock files and unfinished files with a leading dot.
    let hidden =
        |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
    let is_set = |path: &Path| path.extension().is_some_and(|extension| extension == "toml");
    files.retain(|path| is_set(path) && !hidden(path));
    files.sort();
    Ok(files)
}

fn answer_once(
    answered: &mut BTreeMap<Arc<str>, String>,
    scenario: &Arc<str>,
    place: &Range<usize>,
    check: &mut ConfigCheck,
) {
    let here = check.place(place);
    if let Some(first) = answered.get(scenario) {
        let help = format!(
            "the first is at {first}; a file of the same name replaces a shipped policy set"
        );
        let found = format!("scenario `{scenario}` a second time");
        check.refuse(place.clone(), found, "one policy set for each scenario").help = Some(help);
        return;
    }
    answered.insert(Arc::clone(scenario), here);
}

#[cfg(test)]
mod tests;
