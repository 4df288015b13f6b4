//! The limits of rows.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_lab::crowd::FaultEffect;
use evenkeel_lab::ledger::GapSpread;

use crate::looks::Seen;
use crate::newcomers::Tide;
use crate::report::{OverKills, Played, found_ms};
use crate::webrtc::Transports;

/// Longest duration of a make-before-break (failover.md, I1).
const OVERLAP: Duration = Duration::from_millis(500);

/// Limits of the gap when a fault is undone, milliseconds: 99th percentile and maximum.
const UNFAULT_GAP: (f64, f64) = (50.0, 150.0);

/// Limits of a row. All rows also require: no receiver without packets, no misdelivered packet, no packet of an old
/// node after the first of the new one, bounded moves per room, no other node marked down, and no effect on unaffected
/// sessions.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub(crate) struct Limits {
    /// 99th percentile of gaps, milliseconds.
    pub(crate) gap_p99: Option<f64>,
    pub(crate) gap_max: Option<f64>,
    /// 99th percentile of the time from the fault until the victims are marked down, milliseconds.
    pub(crate) found_p99: Option<f64>,
    /// The longest time until affected rooms are on another node, milliseconds.
    pub(crate) left_within: Option<f64>,
    /// Minimum number of affected receivers, over all faults of the row.
    pub(crate) hit_min: Option<usize>,
    /// Not all rooms fit elsewhere. Exactly the excess rooms are left out and excluded from other figures; they are
    /// reported and get no packets, and no node exceeds its capacity in any sample.
    pub(crate) some_left_out: bool,
    pub(crate) none_lost: bool,
    /// No pause is a freeze.
    pub(crate) no_freeze: bool,
    /// No node is marked down.
    pub(crate) none_condemned: bool,
    /// The reason why unaffected sessions may move, freeze and lose packets; `None` if they may not.
    pub(crate) others_suffer: Option<&'static str>,
    /// Minimum number of moves of an affected room per fault.
    pub(crate) moves_min: Option<f64>,
    pub(crate) moves_max: Option<f64>,
    /// Minimum share of affected rooms that are where the gateway's blast radius said, in per cent.
    pub(crate) predicted_min: Option<f64>,
    /// Two nodes carry each room, so that packets of both alternate.
    pub(crate) both_carry: bool,
    /// Packets may be damaged, and then show a wrong session or node.
    pub(crate) damaged: bool,
    /// Rooms move make-before-break: packets of the old node may arrive for [`OVERLAP`] after the first of the new one.
    pub(crate) overlap: bool,
    /// The longest time until the index is correct after its store is back, milliseconds.
    pub(crate) index_within: Option<f64>,
    /// The longest time for which a page of a browser is frozen at a fault, milliseconds.
    pub(crate) frozen_max: Option<f64>,
    /// After a fault the publisher is asked for a key frame, and at most this often.
    pub(crate) key_frames_asked: Option<f64>,
    /// When the fault is undone, no packet of an affected node reaches a client. (None of a standby gateway may anyway.)
    pub(crate) no_old_owner: bool,
}

impl Limits {
    /// With limits of the gap.
    pub(crate) const fn gap(p99: f64, max: f64) -> Limits {
        Limits { gap_p99: Some(p99), gap_max: Some(max), ..Limits::NONE }
    }

    /// Only the limits of all rows.
    pub(crate) const NONE: Limits = Limits {
        gap_p99: None,
        gap_max: None,
        found_p99: None,
        left_within: None,
        hit_min: None,
        some_left_out: false,
        none_lost: false,
        no_freeze: false,
        none_condemned: false,
        others_suffer: None,
        moves_min: None,
        moves_max: None,
        predicted_min: None,
        both_carry: false,
        damaged: false,
        overlap: false,
        index_within: None,
        frozen_max: None,
        key_frames_asked: None,
        no_old_owner: false,
    };

    /// With a limit of detection, milliseconds.
    pub(crate) const fn found(self, p99: f64) -> Limits {
        Limits { found_p99: Some(p99), ..self }
    }

    /// With a comparison of the gateway's blast radius.
    pub(crate) const fn predicted(self) -> Limits {
        Limits { predicted_min: Some(99.0), ..self }
    }

    /// With make-before-break moves.
    pub(crate) const fn gently(self) -> Limits {
        Limits { overlap: true, ..self }
    }

    /// Limits of the gap when the fault is undone, milliseconds: the wider of the default and the row's own.
    fn unfault_gap(&self) -> (f64, f64) {
        let (p99, max) = UNFAULT_GAP;
        (self.gap_p99.unwrap_or(p99).max(p99), self.gap_max.unwrap_or(max).max(max))
    }

    /// The limits of [`figures`], by name.
    pub(crate) fn by_figure(&self) -> BTreeMap<&'static str, f64> {
        let none = |is: bool| is.then_some(0.0);
        let limits = [
            ("gap_p99_ms", self.gap_p99),
            ("gap_max_ms", self.gap_max),
            ("found_p99_ms", self.found_p99),
            ("left_max_ms", self.left_within),
            ("index_correct_max_ms", self.index_within),
            ("frozen_max_ms", self.frozen_max),
            ("key_frames_asked", self.key_frames_asked),
            ("sessions_hit_min", Some(self.hit_min.unwrap_or(1) as f64)),
            ("moves_per_room", self.moves_max),
            ("moves_per_room_min", self.moves_min),
            ("predicted_percent_min", self.predicted_min),
            ("calls_lost", Some(0.0)),
            ("packets_lost", none(self.none_lost)),
            ("freezes", none(self.no_freeze)),
            ("nodes_marked_down", none(self.none_condemned)),
        ];
        limits.into_iter().filter_map(|(name, limit)| Some((name, limit?))).collect()
    }

    pub(crate) fn words(&self) -> String {
        let mut words = Vec::new();
        if let Some(p99) = self.gap_p99 {
            words.push(format!("gap p99 ≤ {p99} ms"));
        }
        if let Some(max) = self.gap_max {
            words.push(format!("max ≤ {max} ms"));
        }
        if let Some(p99) = self.found_p99 {
            words.push(format!("found p99 ≤ {p99} ms"));
        }
        let (p99, max) = self.unfault_gap();
        words.push(format!("un-fault p99 ≤ {p99} ms, max ≤ {max} ms"));
        if self.others_suffer.is_none() && !self.damaged {
            words.push("0 lost to it".to_owned());
        }
        if let Some(within) = self.left_within {
            words.push(format!("off the node within {within} ms"));
        }
        if let Some(within) = self.index_within {
            words.push(format!("index correct within {within} ms"));
        }
        if let Some(most) = self.frozen_max {
            words.push(format!("a page frozen ≤ {most} ms"));
        }
        if let Some(most) = self.key_frames_asked {
            words.push(format!("a key frame asked, at most {most} times"));
        }
        if let Some(hit) = self.hit_min {
            words.push(format!("at least {hit} are hit"));
        }
        if let Some(moves) = self.moves_min {
            words.push(format!("at least {moves} moves per affected room"));
        }
        if let Some(moves) = self.moves_max {
            words.push(format!("at most {moves} moves per affected room"));
        }
        if let Some(share) = self.predicted_min {
            words.push(format!("at least {share} % of affected rooms where `blast` said"));
        }
        if self.some_left_out {
            words.push("all rooms that fit moved, the others reported, without packets, and recovered afterwards".to_owned());
            words.push("no node above its capacity at any look".to_owned());
        }
        let flags = [
            (self.none_lost, "0 lost"),
            (self.no_freeze, "0 freezes"),
            (self.none_condemned, "0 nodes marked down"),
            (self.no_old_owner, "0 packets of the old owner"),
        ];
        words.extend(flags.iter().filter(|(is, _)| *is).map(|(_, word)| (*word).to_owned()));
        words.push(match self.others_suffer {
            None => "unaffected sessions stay, 0 lost, 0 freezes".to_owned(),
            Some(why) => format!("others may suffer, since {why}"),
        });
        words.push("no other node marked down, 0 calls lost, 0 misdelivered".to_owned());
        words.join(", ")
    }

    /// The violated limits: of the control run, of the faults, and after the faults.
    pub(crate) fn misses(&self, played: &Played) -> Vec<String> {
        let Played { faults, unfaults, .. } = played;
        let strangers = played.strangers.iter();
        let mut misses: Vec<String> =
            strangers.map(|(when, node)| format!("{node} was marked down {when}")).collect();
        let mut above = |what: &str, found: f64, limit: Option<f64>| {
            if let Some(limit) = limit.filter(|limit| found > *limit) {
                misses.push(format!("{what} {found:.1}, {limit} is the limit"));
            }
        };
        let gap = GapSpread::of_ns(faults.gaps_ns.clone());
        above("gap p99", gap.p99, self.gap_p99);
        above("gap max", gap.max, self.gap_max);
        let up = GapSpread::of_ns(played.gaps_up_ns.clone());
        above("gap p99 at the nodes", up.p99, self.gap_p99);
        above("gap max at the nodes", up.max, self.gap_max);
        let worst = OverKills::of(&played.kills).map_or(0.0, |kills| kills.worst);
        above("gap p99 of the worst kill", worst, self.gap_max);
        for (way, of) in &played.ways {
            let gap = GapSpread::of_ns(of.gaps_ns.clone());
            above(&format!("gap p99, {way}"), gap.p99, self.gap_p99);
        }
        let mut found = found_ms(faults);
        found.sort_unstable_by(f64::total_cmp);
        let rank = (found.len() * 99).div_ceil(100).saturating_sub(1);
        above("found p99", found.get(rank).copied().unwrap_or(0.0), self.found_p99);
        let (p99, max) = self.unfault_gap();
        let unfault_gap = GapSpread::of_ns(unfaults.gaps_ns.clone());
        above("gap p99 of the un-fault", unfault_gap.p99, Some(p99));
        above("gap max of the un-fault", unfault_gap.max, Some(max));
        let whole = self.others_suffer.is_none() && !self.damaged;
        above("lost after the fault", unfaults.lost as f64, whole.then_some(0.0));
        let left = GapSpread::of_ns(faults.left_ns.clone());
        above("off the node after", left.max, self.left_within);
        let corrected = GapSpread::of_ns(played.index_ns.clone());
        above("index correct after", corrected.max, self.index_within);
        above("moves", moves(faults), self.moves_max);
        let frozen = played.frozen_ms.iter().max().copied().unwrap_or(0);
        above("a page frozen", frozen as f64, self.frozen_max);
        let most_asked = played.key_frames_asked.iter().max().copied().unwrap_or(0);
        above("key frames asked", most_asked as f64, self.key_frames_asked);
        let when = |is: bool, limit: f64| is.then_some(limit);
        let both = |count: fn(&FaultEffect) -> u64| (count(faults) + count(unfaults)) as f64;
        above("lost", both(|r| r.lost + r.lost_of_others), when(self.none_lost, 0.0));
        above("freezes", both(|r| r.freezes), when(self.no_freeze, 0.0));
        above("nodes marked down", faults.marked_down.len() as f64, when(self.none_condemned, 0.0));
        let others = when(self.others_suffer.is_none(), 0.0);
        above("moves of other rooms", faults.other_rooms_moved as f64, others);
        above("lost of others", faults.lost_of_others as f64, others);
        above("freezes of others", faults.freezes_of_others as f64, others);
        above("of the old owner", unfaults.of_the_hit as f64, when(self.no_old_owner, 0.0));
        above("of a standby", played.of_standby as f64, Some(0.0));
        above("answered offers without a session", played.offered_missing as f64, Some(0.0));
        above(
            "after the new one's first",
            faults.stragglers as f64,
            when(!self.both_carry && !self.damaged && !self.overlap, 0.0),
        );
        // Rooms go home make-before-break.
        let overlap_ms = OVERLAP.as_secs_f64() * 1e3;
        let (fault_ms, unfault_ms) = (ms(faults.straggled_ns), ms(unfaults.straggled_ns));
        let gently = when(self.overlap, overlap_ms);
        above("ms of the old node after the new one's first", fault_ms, gently);
        let at_home = when(!self.both_carry && !self.damaged, overlap_ms);
        above("ms of the old node after the first at home", unfault_ms, at_home);
        above("came twice", both(|r| r.twice), when(self.both_carry, 0.0));
        above("misdelivered", both(|r| r.misdelivered), when(!self.damaged, 0.0));
        above("calls lost", calls_lost(played) as f64, Some(0.0));
        let hit_min = self.hit_min.unwrap_or(1);
        if faults.hit < hit_min {
            misses.push(format!("{} sessions hit, of at least {hit_min}", faults.hit));
        }
        if self.key_frames_asked.is_some() && played.key_frames_asked.contains(&0) {
            misses.push("after a fault no key frame was asked".to_owned());
        }
        if self.some_left_out {
            misses.extend(played.left_out.misses());
        }
        misses.extend(played.seen.iter().flat_map(Seen::misses));
        misses.extend(played.tide.iter().flat_map(Tide::misses));
        misses.extend(played.transports.iter().flat_map(Transports::misses));
        let predicted = played.predicted.percent();
        if let Some(least) = self.predicted_min.filter(|least| predicted < *least) {
            misses
                .push(format!("{predicted:.1} % of rooms where `blast` said, of at least {least}"));
        }
        if let Some(least) = self.moves_min.filter(|least| moves(faults) < *least) {
            misses.push(format!(
                "{:.2} moves of a room per fault, of at least {least}",
                moves(faults)
            ));
        }
        misses
    }
}

/// The figures of a row that have limits. A distribution without a value is left out.
pub(crate) fn figures(played: &Played) -> BTreeMap<&'static str, f64> {
    let Played { faults, unfaults, .. } = played;
    let spread = |values: &[u64]| (!values.is_empty()).then(|| GapSpread::of_ns(values.to_vec()));
    let found: Vec<u64> = found_ms(faults).into_iter().map(|ms| (ms * 1e6) as u64).collect();
    let gap = spread(&faults.gaps_ns);
    let lost = faults.lost + faults.lost_of_others + unfaults.lost + unfaults.lost_of_others;
    let figures = [
        ("gap_p99_ms", gap.map(|gap| gap.p99)),
        ("gap_max_ms", gap.map(|gap| gap.max)),
        ("found_p99_ms", spread(&found).map(|found| found.p99)),
        ("left_max_ms", spread(&faults.left_ns).map(|left| left.max)),
        ("index_correct_max_ms", spread(&played.index_ns).map(|index| index.max)),
        ("frozen_max_ms", played.frozen_ms.iter().max().map(|most| *most as f64)),
        ("key_frames_asked", played.key_frames_asked.iter().max().map(|most| *most as f64)),
        ("sessions_hit", Some(faults.hit as f64)),
        ("moves_per_room", Some(moves(faults))),
        ("calls_lost", Some(calls_lost(played) as f64)),
        ("predicted_percent", (played.predicted.rooms > 0).then(|| played.predicted.percent())),
        ("packets_lost", Some(lost as f64)),
        ("freezes", Some((faults.freezes + unfaults.freezes) as f64)),
        ("nodes_marked_down", Some(faults.marked_down.len() as f64)),
    ];
    let of_webrtc = played.transports.iter().flat_map(Transports::figures);
    let figures = figures.into_iter().filter_map(|(name, figure)| Some((name, figure?)));
    figures.chain(of_webrtc).collect()
}

/// Receivers without any packet after a fault or its repair.
fn calls_lost(played: &Played) -> usize {
    played.faults.unheard + played.unfaults.unheard
}

fn ms(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

/// Moves of an affected room per fault.
pub(crate) fn moves(faults: &FaultEffect) -> f64 {
    faults.rooms_moved as f64 / faults.rooms_hit.max(1) as f64
}

#[cfg(test)]
mod tests {
    use evenkeel_lab::crowd::NodeDetection;

    use crate::prediction::Predicted;

    use super::*;

    /// An affected receiver that gets packets of the old node for this long after the new node's first packet.
    fn straggled(ms: u64) -> FaultEffect {
        let stragglers = u64::from(ms > 0);
        FaultEffect { hit: 1, stragglers, straggled_ns: ms * 1_000_000, ..FaultEffect::default() }
    }

    #[test]
    fn rooms_that_are_to_move_may_not_stay() {
        let limits = Limits { moves_min: Some(1.0), ..Limits::NONE };
        let misses = |rooms_moved| {
            let faults =
                FaultEffect { hit: 2, rooms_hit: 2, rooms_moved, ..FaultEffect::default() };
            limits.misses(&Played { faults, ..Played::default() }).len()
        };
        assert_eq!([0, 1, 2].map(misses), [1, 1, 0]);
    }

    #[test]
    fn fault_must_affect_enough_sessions() {
        let misses = |limits: Limits, hit| {
            let faults = FaultEffect { hit, ..FaultEffect::default() };
            limits.misses(&Played { faults, ..Played::default() })
        };
        assert_eq!([0, 1].map(|hit| misses(Limits::NONE, hit).len()), [1, 0]);
        let limits = Limits { hit_min: Some(2), ..Limits::NONE };
        assert_eq!(misses(limits, 1), ["1 sessions hit, of at least 2"]);
        assert_eq!(misses(limits, 2), [""; 0]);
    }

    #[test]
    fn unaffected_may_suffer_only_for_a_reason() {
        let misses = |limits: Limits, others: FaultEffect| {
            let faults = FaultEffect { hit: 1, ..others };
            limits.misses(&Played { faults, ..Played::default() }).len()
        };
        let excused = Limits { others_suffer: Some("they are cut off"), ..Limits::NONE };
        let none = FaultEffect::default();
        assert_eq!(misses(Limits::NONE, none.clone()), 0);
        let moved = FaultEffect { other_rooms_moved: 1, ..none.clone() };
        let lost = FaultEffect { lost_of_others: 1, ..none.clone() };
        let froze = FaultEffect { freezes_of_others: 1, ..none };
        for others in [moved, lost, froze] {
            assert_eq!(misses(Limits::NONE, others.clone()), 1);
            assert_eq!(misses(excused, others), 0);
        }
    }

    #[test]
    fn only_victims_may_be_marked_down() {
        let mut played = Played {
            faults: FaultEffect { hit: 1, ..FaultEffect::default() },
            ..Played::default()
        };
        let victims = ["a".to_owned()];
        played.marked_down("during the fault", &["a".to_owned()], &victims);
        assert_eq!(Limits::NONE.misses(&played), [""; 0]);
        played.marked_down("during the fault", &["b".to_owned()], &victims);
        played.marked_down("after the fault", &["a".to_owned()], &[]);
        let misses = ["b was marked down during the fault", "a was marked down after the fault"];
        assert_eq!(Limits::NONE.misses(&played), misses);
    }

    #[test]
    fn no_packet_is_lost_after_the_fault() {
        let misses = |limits: Limits, lost| {
            let faults = FaultEffect { hit: 1, ..FaultEffect::default() };
            let unfaults = FaultEffect { lost, ..FaultEffect::default() };
            limits.misses(&Played { faults, unfaults, ..Played::default() })
        };
        assert_eq!(misses(Limits::NONE, 0), [""; 0]);
        assert_eq!(misses(Limits::NONE, 1), ["lost after the fault 1.0, 0 is the limit"]);
        let excused = Limits { others_suffer: Some("they are cut off"), ..Limits::NONE };
        assert_eq!(misses(excused, 1), [""; 0]);
    }

    #[test]
    fn no_call_is_lost() {
        let misses = |unheard| {
            let faults = FaultEffect { hit: 1, unheard, ..FaultEffect::default() };
            Limits::NONE.misses(&Played { faults, ..Played::default() })
        };
        assert_eq!(misses(0), [""; 0]);
        assert_eq!(misses(1), ["calls lost 1.0, 0 is the limit"]);
    }

    #[test]
    fn gap_after_the_fault_has_the_wider_limit() {
        let misses = |limits: Limits, gap_ms: u64| {
            let faults = FaultEffect { hit: 1, ..FaultEffect::default() };
            let unfaults =
                FaultEffect { gaps_ns: vec![gap_ms * 1_000_000], ..FaultEffect::default() };
            limits.misses(&Played { faults, unfaults, ..Played::default() }).len()
        };
        assert_eq!([50, 51, 151].map(|ms| misses(Limits::NONE, ms)), [0, 1, 2]);
        assert_eq!(misses(Limits::gap(300.0, 1_000.0), 299), 0);
        assert_eq!(misses(Limits::gap(20.0, 30.0), 50), 0);
    }

    #[test]
    fn slow_variant_and_worst_kill_are_checked() {
        let of = |ms: u64, n: usize| FaultEffect {
            gaps_ns: vec![ms * 1_000_000; n],
            ..FaultEffect::default()
        };
        let faults = FaultEffect { hit: 1, ..of(40, 1_000) };
        let mut played = Played { faults, ..Played::default() };
        let limits = Limits::gap(50.0, 150.0);
        assert_eq!(limits.misses(&played), [""; 0]);
        played.ways.insert("hushed", of(60, 1));
        assert_eq!(limits.misses(&played), ["gap p99, hushed 60.0, 50 is the limit"]);
        played.ways.clear();
        played.kills = vec![GapSpread::of_ns(vec![151_000_000])];
        assert_eq!(limits.misses(&played), ["gap p99 of the worst kill 151.0, 150 is the limit"]);
    }

    #[test]
    fn each_limit_names_a_figure() {
        let all = Limits {
            none_lost: true,
            no_freeze: true,
            none_condemned: true,
            left_within: Some(1.0),
            index_within: Some(1.0),
            frozen_max: Some(1.0),
            key_frames_asked: Some(1.0),
            moves_min: Some(1.0),
            moves_max: Some(1.0),
            predicted_min: Some(1.0),
            ..Limits::gap(1.0, 1.0).found(1.0)
        };
        let detections =
            vec![NodeDetection { node: "a".to_owned(), after_ms: 1.0, by_witness: [].into() }];
        let faults = FaultEffect { gaps_ns: vec![1], left_ns: vec![1], detections, ..straggled(0) };
        let predicted = Predicted { rooms: 1, equal: 1 };
        let played = Played {
            faults,
            predicted,
            index_ns: vec![1],
            key_frames_asked: vec![1],
            frozen_ms: vec![1],
            ..Played::default()
        };
        let figures = figures(&played);
        for limit in all.by_figure().keys() {
            assert!(figures.contains_key(limit.trim_end_matches("_min")), "{limit}");
        }
    }

    #[test]
    fn longest_freeze_of_a_page_is_limited() {
        let misses = |frozen_ms: &[u64]| {
            let faults = FaultEffect { hit: 1, ..FaultEffect::default() };
            let limits = Limits { frozen_max: Some(250.0), ..Limits::NONE };
            let frozen_ms = frozen_ms.to_vec();
            limits.misses(&Played { faults, frozen_ms, ..Played::default() }).len()
        };
        assert_eq!((misses(&[250, 0]), misses(&[0, 251])), (0, 1));
    }

    #[test]
    fn key_frame_is_asked_once_after_each_fault() {
        let misses = |key_frames_asked: &[u64]| {
            let faults = FaultEffect { hit: 1, ..FaultEffect::default() };
            let key_frames_asked = key_frames_asked.to_vec();
            let limits = Limits { key_frames_asked: Some(1.0), ..Limits::NONE };
            limits.misses(&Played { faults, key_frames_asked, ..Played::default() }).len()
        };
        assert_eq!([&[1, 1], &[1, 0], &[2, 1]].map(|asked| misses(asked)), [0, 1, 1]);
    }

    #[test]
    fn gap_at_the_nodes_has_the_limits_of_clients() {
        let played = |ms: u64| {
            let faults = FaultEffect { hit: 1, ..FaultEffect::default() };
            Played { faults, gaps_up_ns: vec![ms * 1_000_000], ..Played::default() }
        };
        let limits = Limits::gap(50.0, 150.0);
        assert_eq!([50, 51, 151].map(|ms| limits.misses(&played(ms)).len()), [0, 1, 2]);
    }

    #[test]
    fn victim_that_is_found_too_late_is_a_miss() {
        let found =
            |after_ms| NodeDetection { node: "a".to_owned(), after_ms, by_witness: [].into() };
        let misses = |after_ms| {
            let detections = vec![found(after_ms)];
            let faults = FaultEffect { hit: 1, detections, ..FaultEffect::default() };
            Limits::NONE.found(20.0).misses(&Played { faults, ..Played::default() }).len()
        };
        assert_eq!([20.0, 20.1].map(misses), [0, 1]);
    }

    #[test]
    fn overlap_needs_make_before_break() {
        let misses = |limits: Limits, fault, unfault| {
            let (faults, unfaults) = (straggled(fault), straggled(unfault));
            limits.misses(&Played { faults, unfaults, ..Played::default() }).len()
        };
        assert_eq!(misses(Limits::NONE, 0, 0), 0);
        assert_eq!(misses(Limits::NONE, 1, 0), 1, "a dead node sends nothing");
        assert_eq!(misses(Limits::NONE.gently(), 499, 0), 0);
        assert_eq!(misses(Limits::NONE.gently(), 501, 0), 1);
        assert_eq!(misses(Limits::NONE, 0, 499), 0, "fail-back is make-before-break");
        assert_eq!(misses(Limits::NONE, 0, 501), 1);
    }
}
