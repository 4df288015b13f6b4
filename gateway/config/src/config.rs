//! The files as a whole: reads them, checks each table, and checks tables against one another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use evenkeel_model::{
    Affinity, Breakers, ClientBreakerSettings, CoreSettings, GatewayLimits, NodeProbing,
    PolicyName, RedundancyMode, RegionId, Scenario, StartBudget, Timings, Zone, ZoneId,
};
use evenkeel_process::file;
use serde::Deserialize;
use toml::Spanned;

use super::advice::{self, AdviceTable};
use super::alert::{self, AlertReceiver, AlertTable};
use super::check::{self, ConfigBitRate, ConfigCheck, ConfigSource, InvalidSetting, quoted};
use super::cluster::{self, ClusterTable, GroupSettings, WitnessSettings};
use super::dependency::{self, DependencySettings, DependencyTable};
use super::driver::{self, DriverKind};
use super::elastic::ElasticTable;
use super::forecast::{ForecastConfig, ForecastSettings};
use super::gateway::{
    self, AdminSettings, AdminTable, BreakerTable, DetectorTable, GatewaySettings, GatewayTable,
    LimitSettings, LimitsTable,
};
use super::index::{self, IndexSettings, IndexTable};
use super::listen::{self, ListenIdentity, ListenIngress, ListenSettings, ListenTable};
use super::node::{self, NODES_MAX, NodeConfig, NodeEntry};
use super::plugin::{self, Compiler, PolicyBinding, SetOrigin, TrustSettings, TrustTable};
use super::registry::{self, RegistrySettings, RegistryTable};
use super::set::{self, CheckedSet, PolicySet, SHIPPED_SETS, ScenarioSettings, SetTable};
use super::source_file::WrittenConfig;
use super::telemetry::{TelemetrySettings, TelemetryTable};
use super::webhook::WebhookTarget;
use super::webrtc::{self, WebrtcSettings, WebrtcTable};

/// Maximum size of a configuration file. These files are written by hand, so a larger one was named by mistake.
const FILE_MAX: u64 = 1 << 20;

/// `evenkeel.toml`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
struct ConfigFile {
    gateway: GatewayTable,
    listen: Vec<Spanned<ListenTable>>,
    region: Vec<RegionTable>,
    node: Vec<Spanned<NodeEntry>>,
    admin: AdminTable,
    webrtc: Option<Spanned<WebrtcTable>>,
    telemetry: TelemetryTable,
    limits: LimitsTable,
    detector: DetectorTable,
    breaker: BreakerTable,
    forecast: ForecastConfig,
    elastic: ElasticTable,
    trust: TrustTable,
    registry: Vec<Spanned<RegistryTable>>,
    cluster: Option<Spanned<ClusterTable>>,
    index: Option<Spanned<IndexTable>>,
    advice: Option<AdviceTable>,
    alert: Vec<Spanned<AlertTable>>,
    dependency: Vec<Spanned<DependencyTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct RegionTable {
    name: Spanned<String>,
}

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
    /// `[webrtc]`. Default: none.
    pub webrtc: Option<WebrtcSettings>,
    /// `[telemetry]`.
    pub telemetry: TelemetrySettings,
    /// `[limits]`.
    pub limits: LimitSettings,
    /// `[breaker]`.
    pub breaker: Breakers,
    /// `[breaker.clients]`.
    pub client_breakers: ClientBreakerSettings,
    /// `[forecast]`.
    pub forecast: ForecastSettings,
    /// `[elastic]`.
    pub elastic: StartBudget,
    /// `[detector]`.
    pub detector: Timings,
    /// `[trust]`.
    pub trust: TrustSettings,
    /// `[[registry]]`, in the order of the file.
    pub registries: Vec<RegistrySettings>,
    /// The group of this gateway. Default: none.
    pub cluster: Option<GroupSettings>,
    /// `[[cluster.witness]]`.
    pub witnesses: Vec<WitnessSettings>,
    /// The index that lists the sessions of all gateways. Default: none.
    pub index: Option<IndexSettings>,
    /// `[advice]`: the webhook that gets advice to users. Default: none.
    pub advice: Option<WebhookTarget>,
    /// `[[alert]]`: receivers of alerts, in the order of the file.
    pub alerts: Vec<AlertReceiver>,
    /// `[[dependency]]`, in the order of the file.
    pub dependencies: Vec<DependencySettings>,
    /// Compiles pushed plugins. Set by the command line, not by the file. Without it, plugins are compiled in this
    /// process.
    pub compiler: Option<Compiler>,
    /// Policy sets by name; at most one set defines a scenario.
    pub sets: Vec<PolicySet>,
    /// Weaknesses of a valid configuration.
    pub warnings: Vec<InvalidSetting>,
    /// The file from which the settings were read.
    pub written: WrittenConfig,
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
    /// `drivers` are those that `[[node]]` may name.
    /// Returns all errors with their places; only the first if a file cannot be parsed.
    pub fn load(
        config: Option<&Path>,
        policies: Option<&Path>,
        drivers: &[&dyn DriverKind],
    ) -> Result<GatewayConfig, Vec<InvalidSetting>> {
        let mut invalid = Vec::new();
        let (raw, mut check) = match config.map(read).transpose() {
            Ok(source) => {
                let folder = config.and_then(Path::parent).unwrap_or(Path::new(""));
                let source =
                    source.unwrap_or_else(|| check::source(Path::new("evenkeel.toml"), ""));
                (parse_file(&source, drivers, &mut invalid), ConfigCheck::new(source, folder))
            }
            Err(unreadable) => {
                invalid.push(*unreadable);
                let source = check::source(Path::new("evenkeel.toml"), "");
                (ConfigFile::default(), ConfigCheck::new(source, Path::new("")))
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
        let mut settings = GatewayConfig::check(&raw, gateway, sets, drivers, &mut check);
        settings.written = WrittenConfig::of(config, check.source.inner());
        invalid.extend(check_survival(&settings, &places));
        invalid.extend(check.into_invalid());
        if invalid.is_empty() { Ok(settings) } else { Err(invalid) }
    }

    fn check(
        raw: &ConfigFile,
        mut gateway: GatewaySettings,
        sets: Vec<PolicySet>,
        drivers: &[&dyn DriverKind],
        check: &mut ConfigCheck,
    ) -> GatewayConfig {
        let mut regions = regions(raw, check);
        match &raw.gateway.region {
            Some(name) => known(name, &regions, check),
            None if regions.len() > 1 => {
                let known = quoted(regions.iter().map(|name| &**name));
                let expected = format!("`region` in [gateway], one of {known}");
                let first = raw.node.first().map_or(0..0, |node| node.get_ref().region.span());
                check.refuse(first, "nodes in several regions", expected);
            }
            None => gateway.region = regions.first().unwrap_or(&gateway.region).clone(),
        }
        if regions.is_empty() {
            regions.push(gateway.region.clone());
        }
        node::duplicates(&raw.node, drivers, check);
        check.at_most(&raw.node, NODES_MAX, "nodes");
        check.at_most(&raw.listen, listen::LISTENS_MAX, "listeners");
        let nodes = raw.node.iter().filter_map(|raw| node::check(raw, drivers, check));
        let nodes: Vec<_> = nodes.collect();
        node::shared_secrets(&raw.node, &nodes, raw.admin.drills, check);
        let listens = listens(raw, &sets, check);
        let member = raw.cluster.as_ref();
        let cluster = member.and_then(|raw| cluster::check(raw, &nodes, &listens, check));
        let member = member.map(Spanned::get_ref);
        let witnesses = member.map_or_else(Vec::new, |member| {
            cluster::witnesses(member, cluster.as_ref(), &nodes, check)
        });
        GatewayConfig {
            gateway,
            listens,
            regions,
            nodes,
            admin: AdminSettings::check(&raw.admin, check),
            webrtc: raw.webrtc.as_ref().and_then(|raw| webrtc::check(raw, check)),
            telemetry: TelemetrySettings::check(
                &raw.telemetry,
                &|name| std::env::var(name).ok(),
                check,
            ),
            limits: LimitSettings::check(&raw.limits, check),
            breaker: gateway::breakers(&raw.breaker, check),
            client_breakers: gateway::client_breakers(&raw.breaker.clients, check),
            forecast: ForecastSettings::check(&raw.forecast, check),
            elastic: raw.elastic.check(check),
            detector: gateway::timings(&raw.detector, check),
            trust: plugin::trust(&raw.trust, check),
            registries: registry::check(&raw.registry, check),
            cluster,
            witnesses,
            index: raw.index.as_ref().and_then(|raw| index::check(raw, member, check)),
            advice: raw.advice.as_ref().and_then(|raw| advice::check(raw, check)),
            alerts: alert::check(&raw.alert, check),
            dependencies: dependency::check(&raw.dependency, check),
            compiler: None,
            sets,
            warnings: std::mem::take(&mut check.warnings),
            written: WrittenConfig::default(),
        }
    }

    /// Warnings about a valid configuration.
    pub fn notes(&self) -> Vec<String> {
        let trust = self.trust.note().map(str::to_owned);
        let warnings = self.warnings.iter();
        let warnings = warnings.map(|warning| format!("{}: {warning}", warning.place()));
        trust.into_iter().chain(node::note(&self.nodes)).chain(warnings).collect()
    }

    /// For each region with several zones: the load up to which scenarios without `reserve` keep capacity for the death of a zone.
    pub fn zone_reserves(&self) -> Vec<String> {
        let by_default = |it: &ScenarioSettings| it.reserve.is_none() && it.mode.opens_ahead();
        if !self.sets.iter().flat_map(|set| &set.scenarios).any(by_default) {
            return Vec::new();
        }
        let mut regions: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
        for node in self.nodes.iter().filter(|node| node.start.is_none()) {
            let zones = regions.entry(&*node.region).or_default();
            let sum = zones.entry(&*node.zone).or_default();
            *sum = sum.saturating_add(node.capacity.0);
        }
        let several = regions.into_iter().filter(|(_, zones)| zones.len() > 1);
        let notes = several.filter_map(|(region, zones)| {
            let (largest, of_largest) = zones.iter().max_by_key(|(_, sum)| **sum)?;
            let all = zones.values().fold(0, |all: u64, sum| all.saturating_add(*sum));
            let rest = ConfigBitRate(all.saturating_sub(*of_largest));
            Some(format!(
                "region `{region}`: scenarios without `reserve` keep capacity for the death of a zone while the load is at most \
                 {rest}, the capacity without zone `{largest}`; above it, for the death of a node"
            ))
        });
        notes.collect()
    }

    /// All bindings with the policies that they configure.
    pub fn bindings(&self) -> impl Iterator<Item = (PolicyName, &PolicyBinding)> {
        self.sets.iter().flat_map(|set| {
            let policy = |hook| PolicyName { set: Arc::clone(&set.name), hook };
            set.bindings.iter().map(move |binding| (policy(binding.hook), binding))
        })
    }

    /// The core's settings; a node's id is its index in [`GatewayConfig::nodes`].
    pub fn core(&self) -> CoreSettings {
        let mut zones: Vec<Zone> = Vec::new();
        let nodes = self.nodes.iter().map(|node| {
            let zone = Zone { name: (*node.zone).into(), region: self.region(&node.region) };
            let known = zones.iter().position(|known| *known == zone);
            let place = known.unwrap_or_else(|| {
                zones.push(zone);
                zones.len() - 1
            });
            node.core(ZoneId(place as u32))
        });
        let nodes = nodes.collect();
        CoreSettings {
            home: self.region(&self.gateway.region),
            regions: self.regions.iter().map(|name| (**name).into()).collect(),
            carriers: self.carriers().into_iter().map(Box::from).collect(),
            zones,
            nodes,
            scenarios: self.scenarios_of(&self.sets),
            timings: self.detector,
            limits: GatewayLimits {
                sessions_max: self.limits.sessions as usize,
                churn_percent: self.limits.churn_percent,
                moves_per_minute: usize::from(self.limits.moves_per_minute),
                failbacks_per_second: u32::from(self.limits.failbacks_per_second),
                breakers: self.breaker,
                client_breakers: self.client_breakers,
                early_start: self.forecast.enabled && self.forecast.early_start,
                start_budget: self.elastic,
                ..GatewayLimits::default()
            },
        }
    }

    /// The carriers of advertised addresses.
    fn carriers(&self) -> BTreeSet<&str> {
        let advertised = self.listens.iter().flat_map(|listen| &listen.advertise);
        advertised.filter_map(|address| address.carrier.as_deref()).collect()
    }

    /// The scenarios of these sets, with region ids. A new region waits for a restart and is left out.
    pub fn scenarios_of(&self, sets: &[PolicySet]) -> BTreeMap<Arc<str>, Scenario> {
        let place = |name: &Arc<str>| self.regions.iter().position(|known| known == name);
        let regions = |scenario: &ScenarioSettings| {
            let places = scenario.regions.iter().filter_map(place);
            places.map(|place| RegionId(place as u32)).collect()
        };
        let all = sets.iter().flat_map(|set| set.scenarios.iter().map(move |s| (set, s)));
        all.map(|(set, s)| (s.name.clone(), Scenario { regions: regions(s), ..s.core(set) }))
            .collect()
    }

    /// The id of a region; its name was checked.
    fn region(&self, name: &str) -> RegionId {
        let place = self.regions.iter().position(|known| **known == *name);
        RegionId(place.expect("names of regions are checked against the list") as u32)
    }

    /// A scenario by name, with its set.
    pub fn scenario(&self, name: &str) -> Option<(&PolicySet, &ScenarioSettings)> {
        let all = self.sets.iter().flat_map(|set| set.scenarios.iter().map(move |s| (set, s)));
        all.into_iter().find(|(_, scenario)| *scenario.name == *name)
    }
}

fn listens(raw: &ConfigFile, sets: &[PolicySet], check: &mut ConfigCheck) -> Vec<ListenSettings> {
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
                check.refuse_unknown(name, "scenario", known);
            }
        }
    }
    checked.into_iter().map(|checked| checked.listen).collect()
}

/// The listeners of a gateway without a configuration file.
fn loopback() -> [ListenSettings; 2] {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let identities = vec![ListenIdentity::Declared, ListenIdentity::Stun];
    let udp = ListenIngress::Udp { identities, open: None, rtcp: Some(5005) };
    let quic = ListenIngress::Quic { certificate: None };
    [(at(5004), udp), (at(4433), quic)].map(|(address, ingress)| ListenSettings {
        address,
        ingress,
        advertise: Vec::new(),
    })
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
    Ok(check::source(path, &text))
}

/// Parses `evenkeel.toml`, with the keys of these drivers.
fn parse_file(
    source: &Arc<ConfigSource>,
    drivers: &[&dyn DriverKind],
    invalid: &mut Vec<InvalidSetting>,
) -> ConfigFile {
    let keys = match driver::keys(source, drivers) {
        Ok(keys) => keys,
        Err(unknown) => {
            invalid.push(*unknown);
            return ConfigFile::default();
        }
    };
    let mut file: ConfigFile = parse(source, invalid);
    for (node, keys) in file.node.iter_mut().zip(keys) {
        node.get_mut().keys = keys;
    }
    file
}

fn parse<T: Default + serde::de::DeserializeOwned>(
    source: &Arc<ConfigSource>,
    invalid: &mut Vec<InvalidSetting>,
) -> T {
    toml::from_str(source.inner()).unwrap_or_else(|error| {
        invalid.push(check::from_parser(source, &error));
        T::default()
    })
}

/// The shipped policy sets, replaced by these files, by name.
fn sets(
    files: Vec<PathBuf>,
    invalid: &mut Vec<InvalidSetting>,
) -> Vec<(CheckedSet, Arc<ConfigSource>)> {
    let mut texts: BTreeMap<String, (PathBuf, SetOrigin, Arc<ConfigSource>)> = BTreeMap::new();
    for (name, text) in SHIPPED_SETS {
        let shown = PathBuf::from(format!("policies/{name} (shipped)"));
        let source = check::source(&shown, text);
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
        let raw: SetTable = parse(&source, invalid);
        if invalid.len() > before {
            continue;
        }
        let mut check =
            ConfigCheck::new(Arc::clone(&source), path.parent().unwrap_or(Path::new("")));
        let checked = set::check(&raw, &path, origin, &mut check);
        for (scenario, place) in checked.set.scenarios.iter().zip(&checked.places) {
            answer_once(&mut answered, &scenario.name, place, &mut check);
        }
        invalid.extend(check.into_invalid());
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

/// The regions in the order of the file: those of `[[region]]` or, without any, those of the nodes.
fn regions(raw: &ConfigFile, check: &mut ConfigCheck) -> Vec<Arc<str>> {
    let mut regions: Vec<Arc<str>> = Vec::new();
    for region in &raw.region {
        let name = check.name(&region.name);
        if regions.contains(&name) {
            let found = format!("region `{name}` a second time");
            check.refuse(region.name.span(), found, "each region once");
        } else {
            regions.push(name);
        }
    }
    let declared = !regions.is_empty();
    for node in &raw.node {
        let region = &node.get_ref().region;
        if declared {
            known(region, &regions, check);
        } else if !regions.iter().any(|known| **known == **region.get_ref()) {
            regions.push(Arc::from(region.get_ref().as_str()));
        }
    }
    if !declared {
        warn_of_misspelt(&raw.node, check);
    }
    regions
}

/// Shorter names of regions are one letter apart on purpose.
const SHORTEST_MISSPELT: usize = 3;

/// Warns of a region that only one node names if the name is one letter off that of another region. Of two with a node each,
/// the one named later is taken for the misspelt one.
fn warn_of_misspelt(nodes: &[Spanned<NodeEntry>], check: &mut ConfigCheck) {
    let mut regions: BTreeMap<&str, Vec<&Spanned<String>>> = BTreeMap::new();
    for node in nodes {
        let region = &node.get_ref().region;
        regions.entry(region.get_ref()).or_default().push(region);
    }
    // `eu1` and `eu2` are meant, as are `a` and `b`.
    let letters = |name: &str| name.replace(|c: char| c.is_ascii_digit(), "");
    for (name, of) in &regions {
        let [only] = of[..] else { continue };
        if name.chars().count() < SHORTEST_MISSPELT {
            continue;
        }
        let near = regions.iter().find(|(other, of)| {
            (of.len() > 1 || of[0].span().start < only.span().start)
                && strsim::osa_distance(name, other) == 1
                && letters(name) != letters(other)
        });
        if let Some((near, _)) = near {
            let found = format!("region `{name}` with one node");
            let expected = format!("`{near}`, or `[[region]]` for each region if both are meant");
            check.warn(only.span(), found, expected);
        }
    }
}

/// Refuses an unknown region.
fn known(name: &Spanned<String>, regions: &[Arc<str>], check: &mut ConfigCheck) {
    if regions.is_empty() || regions.iter().any(|known| **known == **name.get_ref()) {
        return;
    }
    let invalid = check.refuse_unknown(name, "region", regions.iter().map(|name| &**name));
    let declare = || "declare a region without nodes by `[[region]]`".to_owned();
    invalid.help.get_or_insert_with(declare);
}

/// The file of a set, and the spans of its scenarios.
type Places = (Arc<ConfigSource>, Vec<Range<usize>>);

/// Refuses modes and affinities that the nodes cannot provide. A gateway without nodes is for trying out and is not
/// checked.
fn check_survival(settings: &GatewayConfig, places: &[Places]) -> Vec<InvalidSetting> {
    let sets = settings.sets.iter().zip(places);
    sets.flat_map(|(set, (source, places))| {
        let mut check = ConfigCheck::new(Arc::clone(source), Path::new(""));
        of_set(settings, set, places, &mut check);
        check.into_invalid()
    })
    .collect()
}

fn of_set(
    settings: &GatewayConfig,
    set: &PolicySet,
    places: &[Range<usize>],
    check: &mut ConfigCheck,
) {
    for (scenario, place) in set.scenarios.iter().zip(places) {
        let name = &scenario.name;
        let nodes = settings.nodes.len();
        match scenario.mode {
            RedundancyMode::Hitless if nodes == 1 => {
                let found = format!("mode `hitless` of scenario `{name}` with one node");
                let expected = "at least two nodes: both carry all packets";
                check.refuse(place.clone(), found, expected);
            }
            RedundancyMode::Regional => {
                for region in &scenario.regions {
                    if !settings.regions.contains(region) {
                        let found = format!("unknown region `{region}` in scenario `{name}`");
                        let known = quoted(settings.regions.iter().map(|name| &**name));
                        let expected = format!("one of {known}");
                        check.refuse(place.clone(), found, expected);
                    }
                }
            }
            RedundancyMode::Cold
                if nodes > 0 && settings.nodes.iter().all(|node| node.start.is_none()) =>
            {
                let found = format!("mode `cold` of scenario `{name}` without a node with `start`");
                let expected =
                    "a node that can be started: `start = { command = [\"…\"] }` in `[[node]]`";
                check.refuse(place.clone(), found, expected);
            }
            _ => {}
        }
        if scenario.affinity == Affinity::Session {
            of_sessions_apart(settings, name, place, check);
        }
    }
}

/// With affinity `session` a call spans several nodes. These must be meshed, and must answer probes: a node with a
/// single, listening session sends nothing.
fn of_sessions_apart(
    settings: &GatewayConfig,
    name: &str,
    place: &Range<usize>,
    check: &mut ConfigCheck,
) {
    let mut refuse = |node: &NodeConfig, is: &str, expected: &str| {
        let found =
            format!("affinity `session` of scenario `{name}` with node `{}`{is}", node.name);
        check.refuse(place.clone(), found, expected);
    };
    let mut nodes = settings.nodes.iter();
    let unmeshed = |node: &&NodeConfig| node.driver.unmeshed.is_some();
    if let Some(node) = nodes.clone().find(unmeshed)
        && let Some(why) = node.driver.unmeshed
    {
        let is = format!(", which has driver `{}`", node.driver.name);
        refuse(node, &is, &format!("affinity `room`: {why}"));
    }
    if let Some(node) = nodes.find(|node| node.probed() == NodeProbing::No) {
        let expected = "affinity `room`, or a probe: a node with a single session sends no media";
        refuse(node, ", which has no probe", expected);
    }
}

#[cfg(test)]
mod tests;
