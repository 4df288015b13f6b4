//! A policy set: scenarios, and the plugins that answer hooks for them.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_model::{Affinity, Hook, RedundancyMode};
use serde::Deserialize;
use toml::Spanned;

use super::binding::PolicyBinding;
use super::check::ConfigCheck;
use super::raw;
use super::rollout::RolloutSettings;
use super::unit::ConfigBitRate;

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

/// The source of a policy set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SetOrigin {
    /// It is embedded in the binary.
    Shipped,
    /// The path of its file.
    File(PathBuf),
}

/// `[scenario.<name>]`.
#[derive(Clone, PartialEq, Debug)]
pub struct ScenarioSettings {
    /// The name of the scenario: `call`.
    pub name: Arc<str>,
    /// Default hot.
    pub(crate) mode: RedundancyMode,
    /// Default room.
    pub(crate) affinity: Affinity,
    /// With mode `regional`: the regions that rooms fail over to, in this order; at least two.
    pub(crate) regions: Vec<Arc<str>>,
    /// 1 to 3. Default 2.
    pub spares: u8,
    /// The lowest cap. Default 24 kbit/s.
    pub floor: ConfigBitRate,
    /// The highest rate. Default 4 Mbit/s.
    pub ceiling: ConfigBitRate,
    /// Silence after which a session is closed. Default 30 s.
    pub close_after: Duration,
    /// Nothing is sent to a declared address before a packet came from it. Default true.
    pub await_first_packet: bool,
    /// Marks of packets.
    pub dscp: DscpSettings,
    /// Order of placement when many rooms need a node, 0 to 100; higher is earlier. Default 10.
    pub priority: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ModeWord {
    Hitless,
    Hot,
    ActiveActive,
    Cold,
    Regional,
}

impl From<ModeWord> for RedundancyMode {
    fn from(word: ModeWord) -> RedundancyMode {
        match word {
            ModeWord::Hitless => RedundancyMode::Hitless,
            ModeWord::Hot => RedundancyMode::Hot,
            ModeWord::ActiveActive => RedundancyMode::ActiveActive,
            ModeWord::Cold => RedundancyMode::Cold,
            ModeWord::Regional => RedundancyMode::Regional,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum AffinityWord {
    Room,
    Session,
}

impl From<AffinityWord> for Affinity {
    fn from(word: AffinityWord) -> Affinity {
        match word {
            AffinityWord::Room => Affinity::Room,
            AffinityWord::Session => Affinity::Session,
        }
    }
}

/// Differentiated services code points, 0 to 63 (RFC 2474).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DscpSettings {
    /// Default EF (46, RFC 3246).
    pub voice: u8,
    /// Default AF41 (34, RFC 2597).
    pub video: u8,
}

/// Behaviour while a policy fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFault {
    /// Admission: sessions are admitted at their scenario's floor. The default.
    AdmitCapped,
    /// Admission: the native default decides.
    Admit,
    /// Admission: sessions are rejected.
    Reject,
    /// Routing: the native default places and moves. The default.
    Native,
    /// Degradation: sessions keep their plans. The default.
    Hold,
    /// Degradation: after 2 s each session follows the native ladder by its own loss.
    NativeLadder,
    /// Scenario: the values of the policy set apply. The default.
    Builtin,
}

impl OnFault {
    /// The values that a hook accepts, its default first.
    pub(super) fn of(hook: Hook) -> &'static [OnFault] {
        match hook {
            Hook::Admission => &[OnFault::AdmitCapped, OnFault::Admit, OnFault::Reject],
            Hook::Routing => &[OnFault::Native],
            Hook::Degradation => &[OnFault::Hold, OnFault::NativeLadder],
            Hook::Scenario => &[OnFault::Builtin],
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            OnFault::AdmitCapped => "admit-capped",
            OnFault::Admit => "admit",
            OnFault::Reject => "reject",
            OnFault::Native => "native",
            OnFault::Hold => "hold",
            OnFault::NativeLadder => "native-ladder",
            OnFault::Builtin => "builtin",
        }
    }
}

/// A set, with the spans of its scenarios in the file.
pub(super) struct CheckedSet {
    pub(super) set: PolicySet,
    pub(super) places: Vec<Range<usize>>,
}

pub(super) fn check(
    raw: &raw::Set,
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
    let scenarios = raw.scenario.iter().map(|(name, raw)| scenario(name, raw, check)).collect();
    let places = raw.scenario.keys().map(Spanned::span).collect();
    let rollout = RolloutSettings::check(raw.rollout.as_ref(), check);
    CheckedSet { set: PolicySet { name, origin, scenarios, bindings, rollout }, places }
}

fn scenario(
    name: &Spanned<String>,
    raw: &raw::ScenarioTable,
    check: &mut ConfigCheck,
) -> ScenarioSettings {
    let hour = Duration::from_secs(3_600);
    let (floor, ceiling) = bitrate(raw.bitrate.as_ref(), check);
    let mode: RedundancyMode =
        raw.mode.as_ref().map_or_else(RedundancyMode::default, |mode| (*mode.get_ref()).into());
    if mode == RedundancyMode::Cold
        && let Some(spares) = &raw.spares
    {
        let expected = "no `spares`: mode `cold` opens none";
        check.refuse(spares.span(), "`spares` with mode `cold`", expected);
    }
    ScenarioSettings {
        name: check.name(name),
        mode,
        affinity: raw.affinity.map_or_else(Affinity::default, Into::into),
        regions: regions(mode, raw, check),
        spares: check.number(&raw.spares, 2, 1..=3),
        floor,
        ceiling,
        close_after: check.duration(
            &raw.close_after,
            Duration::from_secs(30),
            Duration::from_secs(1)..=24 * hour,
        ),
        await_first_packet: raw.await_first_packet.unwrap_or(true),
        dscp: DscpSettings {
            voice: dscp(&raw.dscp.voice, 46, check),
            video: dscp(&raw.dscp.video, 34, check),
        },
        priority: check.number(&raw.priority, 10, 0..=100),
    }
}

/// `regions` of a regional scenario; refused with other modes.
fn regions(
    mode: RedundancyMode,
    raw: &raw::ScenarioTable,
    check: &mut ConfigCheck,
) -> Vec<Arc<str>> {
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
            check.refuse(
                name.span(),
                format!("region `{region}` a second time"),
                "each region once",
            );
        } else {
            regions.push(region);
        }
    }
    regions
}

fn bitrate(
    raw: Option<&Spanned<raw::Bitrate>>,
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
        check.refuse(raw.span(), format!("`{}`", raw.get_ref()), expected);
        default
    })
}

#[cfg(test)]
mod tests;
