//! Policy sets: scenarios, the plugins that answer hooks for them, and the rollouts of their revisions.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_model::{
    AdmitOnFault, Affinity, CapBounds, DegradeOnFault, FailureScope, Hook, RedundancyMode,
    ReplayedMedia, Scenario, ServiceObjective,
};
use evenkeel_process::setting_text::{BitRateText, DurationText};
use evenkeel_revisions::{Judging, RolloutRules, Strategy};
use serde::Deserialize;
use toml::Spanned;

use super::check::{ConfigBitRate, ConfigCheck};
use super::plugin::{BindingTable, OnFault, PolicyBinding, SetOrigin};
use super::slo::{SloConfig, fast_burn_ppm};

/// The shipped policy sets by file name. A file of the same name in the policy folder replaces one.
pub(super) const SHIPPED_SETS: [(&str, &str); 3] = [
    ("call.toml", include_str!("../../../policies/call.toml")),
    ("conference.toml", include_str!("../../../policies/conference.toml")),
    ("live.toml", include_str!("../../../policies/live.toml")),
];

/// Maximum steps of a canary; more steps add no safety.
const STEPS_MAX: usize = 16;

/// `policies/*.toml`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct SetTable {
    scenario: BTreeMap<Spanned<String>, ScenarioTable>,
    admission: Option<BindingTable>,
    routing: Option<BindingTable>,
    degradation: Option<BindingTable>,
    resolve: Option<BindingTable>,
    rollout: Option<RolloutTable>,
}

/// A policy set: its plugins, its scenario and its rollouts.
#[derive(Clone, Debug)]
pub struct PolicySet {
    /// The file name without `.toml`; the first part of the names of its policies.
    pub name: Arc<str>,
    /// Embedded, or a file.
    pub origin: SetOrigin,
    /// At least one scenario, sorted by name.
    pub scenarios: Vec<ScenarioSettings>,
    /// At most one binding per hook, in the order of [`Hook::ALL`]. The native default answers other hooks.
    pub bindings: Vec<PolicyBinding>,
    /// `[rollout]`.
    pub rollout: RolloutSettings,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
struct ScenarioTable {
    mode: Option<Spanned<ModeWord>>,
    affinity: Affinity,
    regions: Option<Spanned<Vec<Spanned<String>>>>,
    spares: Option<Spanned<i64>>,
    reserve: Option<Spanned<FailureScope>>,
    spares_outside: Option<Spanned<FailureScope>>,
    bitrate: Option<Spanned<Bitrate>>,
    close_after: Option<Spanned<DurationText>>,
    await_first_packet: Option<bool>,
    await_report: Option<bool>,
    replay: Option<ReplayedMedia>,
    dscp: DscpTable,
    priority: Option<Spanned<i64>>,
    slo: Option<Spanned<SloConfig>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with `floor` and `ceiling`")]
struct Bitrate {
    floor: Spanned<BitRateText>,
    ceiling: Spanned<BitRateText>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table with `voice` and `video`")]
struct DscpTable {
    voice: Option<Spanned<String>>,
    video: Option<Spanned<String>>,
}

/// `[scenario.<name>]`.
#[derive(Clone, PartialEq, Debug)]
pub struct ScenarioSettings {
    /// The name of the scenario: `call`.
    pub name: Arc<str>,
    /// Default hot.
    pub mode: RedundancyMode,
    /// Default room.
    pub affinity: Affinity,
    /// With mode `regional`: the regions that rooms fail over to, in this order; at least two.
    pub regions: Vec<Arc<str>>,
    /// 1 to 3. Default 2.
    pub spares: u8,
    /// The deaths that the reserved capacity covers. `None`: of a zone where the region has two and load leaves the capacity, else of
    /// a node.
    pub reserve: Option<FailureScope>,
    /// The spares are outside this domain of the first node. Default node.
    pub spares_outside: FailureScope,
    /// The lowest cap. Default 24 kbit/s.
    pub floor: ConfigBitRate,
    /// The highest rate. Default 4 Mbit/s.
    pub ceiling: ConfigBitRate,
    /// Silence after which a session is closed. Default 30 s.
    pub close_after: Duration,
    /// Nothing is sent to a declared address before a packet came from it. Default true.
    pub await_first_packet: bool,
    /// Bytes to a declared address are limited until a receiver report came from it. Default: as `await_first_packet`.
    pub await_report: bool,
    /// The media of which a node gets the packets that its dead predecessor swallowed. `None`: sound, if the nodes of the room keep the
    /// numbers of senders, since repeats are recognised then.
    pub replay: Option<ReplayedMedia>,
    /// Marks of packets.
    pub dscp: DscpSettings,
    /// Order of placement when many rooms need a node, 0 to 100; higher is earlier. Default 10.
    pub priority: u8,
    /// Default none.
    pub slo: Option<ServiceObjective>,
}

#[derive(Clone, Copy, Deserialize)]
struct ModeWord(#[serde(with = "ModeNames")] RedundancyMode);

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", remote = "RedundancyMode")]
enum ModeNames {
    Hitless,
    Hot,
    ActiveActive,
    Cold,
    Regional,
}

/// Differentiated services code points, 0 to 63 (RFC 2474).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DscpSettings {
    /// Default EF (46, RFC 3246).
    pub voice: u8,
    /// Default AF41 (34, RFC 2597).
    pub video: u8,
}

/// A set, with the spans of its scenarios in the file.
pub(super) struct CheckedSet {
    pub(super) set: PolicySet,
    pub(super) places: Vec<Range<usize>>,
}

pub(super) fn check(
    raw: &SetTable,
    path: &Path,
    origin: SetOrigin,
    check: &mut ConfigCheck,
) -> CheckedSet {
    let name: Arc<str> = path.file_stem().unwrap_or_default().to_string_lossy().into();
    if raw.scenario.is_empty() {
        let expected = "at least one `[scenario.<name>]`";
        check.refuse(0..0, "a policy set without a scenario", expected);
    }
    let hooks = [
        (Hook::Admission, &raw.admission),
        (Hook::Routing, &raw.routing),
        (Hook::Degradation, &raw.degradation),
        (Hook::Scenario, &raw.resolve),
    ];
    let bound = hooks.into_iter().filter_map(|(hook, raw)| Some((hook, raw.as_ref()?)));
    let bindings =
        bound.filter_map(|(hook, raw)| PolicyBinding::check(hook, raw, &origin, check)).collect();
    let scenarios: Vec<ScenarioSettings> =
        raw.scenario.iter().map(|(name, raw)| scenario(name, raw, check)).collect();
    let places = raw.scenario.keys().map(Spanned::span).collect();
    let mut rollout = RolloutSettings::check(raw.rollout.as_ref(), check);
    let slos = scenarios.iter().filter_map(|scenario| scenario.slo);
    rollout.judging.burn_ppm = fast_burn_ppm(slos).unwrap_or(rollout.judging.burn_ppm);
    CheckedSet { set: PolicySet { name, origin, scenarios, bindings, rollout }, places }
}

fn scenario(
    name: &Spanned<String>,
    raw: &ScenarioTable,
    check: &mut ConfigCheck,
) -> ScenarioSettings {
    let hour = Duration::from_secs(3_600);
    let (floor, ceiling) = bitrate(raw.bitrate.as_ref(), check);
    let mode = raw.mode.as_ref().map_or_else(RedundancyMode::default, |mode| mode.get_ref().0);
    if mode == RedundancyMode::Cold
        && let Some(spares) = &raw.spares
    {
        let expected = "no `spares`: mode `cold` opens none";
        check.refuse(spares.span(), "`spares` with mode `cold`", expected);
    }
    let await_first_packet = raw.await_first_packet.unwrap_or(true);
    ScenarioSettings {
        name: check.name(name),
        mode,
        affinity: raw.affinity,
        regions: regions(mode, raw, check),
        spares: check.number(&raw.spares, 2, 1..=3),
        reserve: scope("reserve", &raw.reserve, mode, check),
        spares_outside: scope("spares_outside", &raw.spares_outside, mode, check)
            .unwrap_or_default(),
        floor,
        ceiling,
        close_after: check.duration(
            &raw.close_after,
            Duration::from_secs(30),
            Duration::from_secs(1)..=24 * hour,
        ),
        await_first_packet,
        await_report: raw.await_report.unwrap_or(await_first_packet),
        replay: raw.replay,
        dscp: DscpSettings {
            voice: dscp(&raw.dscp.voice, 46, check),
            video: dscp(&raw.dscp.video, 34, check),
        },
        priority: check.number(&raw.priority, 10, 0..=100),
        slo: raw.slo.as_ref().map(|slo| SloConfig::check(slo, check)),
    }
}

/// A key of scenarios in a mode that reserves capacity; refused with other modes.
fn scope(
    key: &str,
    raw: &Option<Spanned<FailureScope>>,
    mode: RedundancyMode,
    check: &mut ConfigCheck,
) -> Option<FailureScope> {
    let word = raw.as_ref()?;
    if !mode.opens_ahead() {
        let found = format!("`{key}` with mode `{}`", mode.name());
        let expected = format!(
            "`{key}` with mode `hot`, `hitless` or `active-active`: others reserve no capacity"
        );
        check.refuse(word.span(), found, expected);
    }
    Some(*word.get_ref())
}

/// `regions` of a regional scenario; refused with other modes.
fn regions(mode: RedundancyMode, raw: &ScenarioTable, check: &mut ConfigCheck) -> Vec<Arc<str>> {
    let Some(list) = &raw.regions else {
        if let (RedundancyMode::Regional, Some(word)) = (mode, &raw.mode) {
            let expected = "`regions`, in the order of failover";
            check.refuse(word.span(), "mode `regional` without `regions`", expected);
        }
        return Vec::new();
    };
    if mode != RedundancyMode::Regional {
        let found = format!("`regions` with mode `{}`", mode.name());
        check.refuse(list.span(), found, "`regions` with mode `regional` only");
    } else if list.get_ref().len() < 2 {
        let found = format!("{} region", list.get_ref().len());
        check.refuse(list.span(), found, "at least two: rooms fail over to the next one");
    }
    let mut regions = Vec::new();
    for name in list.get_ref() {
        let region = check.name(name);
        if regions.contains(&region) {
            let found = format!("region `{region}` a second time");
            check.refuse(name.span(), found, "each region once");
        } else {
            regions.push(region);
        }
    }
    regions
}

fn bitrate(
    raw: Option<&Spanned<Bitrate>>,
    check: &mut ConfigCheck,
) -> (ConfigBitRate, ConfigBitRate) {
    let default = (ConfigBitRate(24_000), ConfigBitRate(4_000_000));
    let Some(raw) = raw.map(Spanned::get_ref) else { return default };
    let (floor, ceiling) = (check.bit_rate(&raw.floor), check.bit_rate(&raw.ceiling));
    let (Some(floor), Some(ceiling)) = (floor, ceiling) else { return default };
    if floor > ceiling {
        let expected = format!("at most the ceiling, {ceiling}");
        check.refuse(raw.floor.span(), format!("a floor of {floor}"), expected);
    }
    (floor, ceiling)
}

/// A number, or a name of RFC 2474, RFC 2597 or RFC 3246.
fn dscp(raw: &Option<Spanned<String>>, default: u8, check: &mut ConfigCheck) -> u8 {
    let Some(raw) = raw else { return default };
    let word = raw.get_ref().to_ascii_uppercase();
    let class = |prefix: &str| word.strip_prefix(prefix)?.parse::<u8>().ok();
    let point = match (class("CS"), class("AF"), word.as_str()) {
        (_, _, "EF") => Some(46),
        (_, _, "BE") => Some(0),
        (Some(class @ 0..=7), _, _) => Some(class * 8),
        (_, Some(af), _) if (1..=4).contains(&(af / 10)) && (1..=3).contains(&(af % 10)) => {
            Some(af / 10 * 8 + af % 10 * 2)
        }
        _ => word.parse().ok().filter(|point| *point <= 63),
    };
    point.unwrap_or_else(|| {
        let expected = "`EF`, `AF11` to `AF43`, `CS0` to `CS7`, `BE`, or `0` to `63`";
        check.refuse_text(raw, expected);
        default
    })
}

impl PolicySet {
    /// The plugin that answers this hook, if the set has one.
    pub fn binding(&self, hook: Hook) -> Option<&PolicyBinding> {
        self.bindings.iter().find(|binding| binding.hook == hook)
    }
}

impl ScenarioSettings {
    /// The media of which a node gets the packets that its dead predecessor swallowed. `keeps_ssrc`: the nodes of the room keep the numbers
    /// of senders, so that receivers do not get a packet twice.
    pub fn replayed(&self, keeps_ssrc: bool) -> ReplayedMedia {
        let by_nodes = if keeps_ssrc { ReplayedMedia::Audio } else { ReplayedMedia::Off };
        self.replay.unwrap_or(by_nodes)
    }

    /// The scenario in the core, without its regions.
    pub(super) fn core(&self, set: &PolicySet) -> Scenario {
        let on_fault = |hook| set.binding(hook).map(|binding| binding.on_fault);
        Scenario {
            set: set.name.clone(),
            bound: Hook::ALL.map(|hook| set.binding(hook).is_some()),
            bounds: CapBounds { floor_kbps: kbps(self.floor), ceiling_kbps: kbps(self.ceiling) },
            mode: self.mode,
            affinity: self.affinity,
            regions: Vec::new(),
            spares: self.spares,
            reserve: self.reserve,
            spares_outside: self.spares_outside,
            close_after: self.close_after,
            priority: i64::from(self.priority),
            slo: self.slo,
            on_admission_fault: match on_fault(Hook::Admission) {
                Some(OnFault::Reject) => AdmitOnFault::Reject,
                Some(OnFault::Admit) => AdmitOnFault::Admit,
                _ => AdmitOnFault::AdmitCapped,
            },
            on_degradation_fault: match on_fault(Hook::Degradation) {
                Some(OnFault::NativeLadder) => DegradeOnFault::NativeLadder,
                _ => DegradeOnFault::Hold,
            },
        }
    }
}

/// A rate above `u32::MAX` kbit/s is no limit.
fn kbps(rate: ConfigBitRate) -> u32 {
    u32::try_from(rate.kbps()).unwrap_or(u32::MAX)
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
struct RolloutTable {
    canary: Option<Spanned<Vec<Spanned<i64>>>>,
    pace: Option<Spanned<DurationText>>,
    hold: Option<bool>,
    shadow: Option<Spanned<DurationText>>,
    rollback_window: Option<Spanned<DurationText>>,
    judge: RolloutJudgeTable,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
struct RolloutJudgeTable {
    gap: Option<Spanned<DurationText>>,
    loss_percent: Option<Spanned<i64>>,
    r_factor: Option<Spanned<i64>>,
    rung: Option<Spanned<i64>>,
    moves_per_minute: Option<Spanned<i64>>,
    guarded_percent: Option<Spanned<i64>>,
    one_node_percent: Option<Spanned<i64>>,
    faults_allowed: Option<Spanned<i64>>,
    refused_percent: Option<Spanned<i64>>,
    min_sessions: Option<Spanned<i64>>,
}

/// `[rollout]` of a policy set, with the default of each key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RolloutSettings {
    /// The set has `[rollout]`. Without it a changed file is rolled out by the defaults, and a push is active at once.
    pub is_stated: bool,
    /// Shares of the canary in per cent, ascending. After the last one the revision becomes active. Default 1, 5, 25,
    /// 50, 100; empty: active at once.
    pub canary: Vec<u8>,
    /// Minimum duration of a step. Default 10 s.
    pub pace: Duration,
    /// The rollout stays at its step until resumed. Default false.
    pub hold: bool,
    /// Duration of the shadow stage. Default 5 s; 0 s, for none, if `canary` is empty.
    pub shadow: Duration,
    /// Time for which the previous revision, and the state it can read, is kept for a rollback. Default 10 min.
    pub rollback_window: Duration,
    /// When a canary counts as worse.
    pub judging: Judging,
}

impl Default for RolloutSettings {
    fn default() -> Self {
        RolloutSettings {
            is_stated: false,
            canary: vec![1, 5, 25, 50, 100],
            pace: Duration::from_secs(10),
            hold: false,
            shadow: Duration::from_secs(5),
            rollback_window: Duration::from_secs(600),
            judging: Judging::default(),
        }
    }
}

impl RolloutSettings {
    /// The stages of a new revision.
    pub fn strategy(&self) -> Strategy {
        let (steps, each, shadow) = (self.canary.clone(), self.pace, self.shadow);
        Strategy { steps, each, shadow, stays_in_shadow: false, held: self.hold }
    }

    /// The rules of the lifecycle.
    pub fn rules(&self) -> RolloutRules {
        RolloutRules {
            strategy: self.strategy(),
            keep: self.rollback_window,
            judging: self.judging,
        }
    }

    fn check(raw: Option<&RolloutTable>, check: &mut ConfigCheck) -> RolloutSettings {
        let default = RolloutSettings::default();
        let Some(raw) = raw else { return default };
        let second = Duration::from_secs(1);
        let canary = raw.canary.as_ref().map(|list| steps(list, check));
        let at_once = canary.as_ref().is_some_and(Vec::is_empty);
        let shadow = if at_once { Duration::ZERO } else { default.shadow };
        let none = Duration::ZERO;
        RolloutSettings {
            is_stated: true,
            canary: canary.unwrap_or(default.canary),
            pace: check.duration(&raw.pace, default.pace, second / 10..=86_400 * second),
            hold: raw.hold.unwrap_or(default.hold),
            shadow: check.duration(&raw.shadow, shadow, none..=86_400 * second),
            rollback_window: check.duration(
                &raw.rollback_window,
                default.rollback_window,
                none..=86_400 * second,
            ),
            judging: judging(&raw.judge, check),
        }
    }
}

fn steps(list: &Spanned<Vec<Spanned<i64>>>, check: &mut ConfigCheck) -> Vec<u8> {
    if list.get_ref().len() > STEPS_MAX {
        let found = format!("{} steps", list.get_ref().len());
        check.refuse(list.span(), found, format!("at most {STEPS_MAX}"));
    }
    let mut steps: Vec<u8> = Vec::new();
    for raw in list.get_ref() {
        let least = steps.last().map_or(1, |last| last.saturating_add(1));
        match u8::try_from(*raw.get_ref()).ok().filter(|step| (least..=100).contains(step)) {
            Some(step) => steps.push(step),
            None => {
                let found = format!("a step of {} %", raw.get_ref());
                let expected = match steps.last() {
                    Some(last) => format!("more than {last}, and at most 100"),
                    None => "1 to 100".to_owned(),
                };
                check.refuse(raw.span(), found, expected);
            }
        }
    }
    steps
}

/// `[rollout.judge]`; missing keys keep the core's defaults.
fn judging(raw: &RolloutJudgeTable, check: &mut ConfigCheck) -> Judging {
    let default = Judging::default();
    let gap = Duration::from_millis(50)..=Duration::from_secs(60);
    Judging {
        gap: check.duration(&raw.gap, default.gap, gap),
        loss_ppm: check.number(&raw.loss_percent, default.loss_ppm / 10_000, 1..=100) * 10_000,
        r_factor_centi: check.number(&raw.r_factor, default.r_factor_centi / 100, 1..=100) * 100,
        rung: check.number(&raw.rung, default.rung, 1..=10),
        moves_per_minute: check.number(&raw.moves_per_minute, default.moves_per_minute, 1..=60),
        guarded_percent: check.number(&raw.guarded_percent, default.guarded_percent, 1..=100),
        one_node_percent: check.number(&raw.one_node_percent, default.one_node_percent, 1..=100),
        faults_permille: check.number(&raw.faults_allowed, default.faults_permille, 0..=1_000),
        refused_percent: check.number(&raw.refused_percent, default.refused_percent, 1..=100),
        cohort_min: check.number(&raw.min_sessions, default.cohort_min, 1..=100_000),
        burn_ppm: default.burn_ppm,
    }
}

/// `[rollout]` by policy set.
pub fn rollout_settings(sets: &[PolicySet]) -> BTreeMap<Arc<str>, RolloutSettings> {
    sets.iter().map(|set| (Arc::clone(&set.name), set.rollout.clone())).collect()
}

#[cfg(test)]
mod tests;
