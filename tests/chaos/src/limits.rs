//! The limits of rows: the numbers of `tests/limits.toml`, and checks without a number.

use std::time::Duration;

use evenkeel_lab::crowd::FaultEffect;
use evenkeel_lab::ledger::GapSpread;
use evenkeel_report::{AcceptanceRow, FigureLimit, RowLimits, SAMPLES_MIN, SectionLimits};

use crate::node_samples::SampledNodes;
use crate::report::{Control, OverKills, Played, found_ms};
use crate::row::Row;
use crate::webrtc::ThirdParty;

/// The figures of a row, each with the key of its limit in the table.
const FIGURES: [(&str, &str); 24] = [
    ("gap_p99_ms", "p99"),
    ("gap_max_ms", "max"),
    ("found_max_ms", "found_max"),
    ("left_max_ms", "left_within"),
    ("index_correct_max_ms", "index_within"),
    ("restored_max_ms", "restored_within"),
    ("frozen_max_ms", "frozen_max"),
    ("frozen_p99_ms", "frozen_p99"),
    ("key_frames_asked", "key_frame_requests_per_death"),
    ("sessions_hit", "hit"),
    ("moves_per_room", "moves_max"),
    ("moves_per_room", "moves_min"),
    ("calls_lost", "ended"),
    ("predicted_percent", "predicted"),
    ("packets_lost", "lost"),
    ("packets_lost_after", "lost_after"),
    ("freezes", "freezes"),
    ("nodes_marked_down", "marked_down"),
    ("live_nodes_marked_down", "live_nodes_marked_down"),
    ("handshakes_again", "handshakes_again"),
    ("ice_restarts", "ice_restarts"),
    ("authentication_failures", "refused"),
    ("reused_indices", "index_twice"),
    ("captured_reused_indices", "index_twice"),
];

/// Checks of a row that have no number. All rows also require: no receiver without packets, no misdelivered packet, no packet of an old
/// node after the first of the new one, no other node marked down, and no effect on unaffected sessions.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub(crate) struct Checks {
    /// Not all rooms fit elsewhere. Exactly the excess rooms stay without a node and are excluded from other figures; they are
    /// reported and get no packets, and no node exceeds its capacity in any sample.
    pub(crate) some_unplaced: bool,
    /// The reason why unaffected sessions may move, freeze and lose packets; `None` if they may not.
    pub(crate) others_suffer: Option<&'static str>,
    /// Two nodes carry each room, so that packets of both alternate.
    pub(crate) both_carry: bool,
    /// Packets may be damaged, and then show a wrong session or node.
    pub(crate) damaged: bool,
    /// Rooms move make-before-break: packets of the old node may arrive for some time after the first of the new one.
    pub(crate) overlap: bool,
    /// When the fault is undone, no packet of an affected node reaches a client. (None of a standby gateway may anyway.)
    pub(crate) no_old_owner: bool,
    /// The gateway counts as many rooms and sessions of a dead node as receivers that heard by it.
    pub(crate) counts_alike: bool,
}

impl Checks {
    /// Without an exception.
    pub(crate) const ALL: Checks = Checks {
        some_unplaced: false,
        others_suffer: None,
        both_carry: false,
        damaged: false,
        overlap: false,
        no_old_owner: false,
        counts_alike: false,
    };

    /// With make-before-break moves.
    pub(crate) const OVERLAP: Checks = Checks { overlap: true, ..Checks::ALL };
}

/// The limits and checks of a row.
#[derive(Clone, Default, Debug)]
pub(crate) struct Limits {
    table: RowLimits,
    checks: Checks,
    /// The row counts packets of each session. Other programs tell no packets.
    counts_packets: bool,
    /// Its clients tell the indices of SRTP.
    counts_indices: bool,
    /// Its clients tell freezes.
    counts_freezes: bool,
}

impl Limits {
    /// Those of a row.
    pub(crate) fn of(row: &Row, table: &SectionLimits) -> Limits {
        Limits {
            table: table.of(row.id),
            checks: row.checks,
            counts_packets: row.third_party.is_none(),
            counts_indices: row.third_party.is_none_or(ThirdParty::has_lab_viewers),
            counts_freezes: row.third_party.is_none_or(|kind| kind == ThirdParty::Pages),
        }
    }

    /// True if the packets of each session are counted.
    pub(crate) fn counts_packets(&self) -> bool {
        self.counts_packets
    }

    /// The limit under this key, if it is judged.
    fn judged(&self, key: &str) -> Option<f64> {
        self.table.judged(key)
    }

    /// The table's limits for this number of gaps.
    fn table_for(&self, gaps: usize) -> RowLimits {
        let mut table = self.table.clone();
        if gaps < SAMPLES_MIN {
            table.judge_maximum("p99", "max");
        }
        table
    }

    /// The blast radius is compared.
    pub(crate) fn predicts(&self) -> bool {
        self.judged("predicted").is_some()
    }

    /// The longest time until everything is as before the fault.
    pub(crate) fn settled_within(&self) -> Duration {
        Duration::from_secs_f64(self.judged("settled_within").unwrap_or_default() / 1e3)
    }

    /// The share of a row's runs whose times may exceed a limit.
    pub(crate) fn runs_exceeded(&self) -> f64 {
        self.judged("runs_exceeded").unwrap_or_default()
    }

    /// Limits of the gap when the fault is undone, milliseconds: the wider of those of all rows and the row's own.
    fn unfault_gap(&self) -> [Option<f64>; 2] {
        [("unfault_p99", "p99"), ("unfault_max", "max")].map(|(all, own)| {
            let all = self.judged(all)?;
            Some(self.judged(own).unwrap_or(all).max(all))
        })
    }

    /// The limits of a row's figures, without figures.
    pub(crate) fn blank(&self, id: String) -> AcceptanceRow {
        let mut row = AcceptanceRow::new(id);
        self.put(&mut row, &self.table);
        row
    }

    fn put(&self, row: &mut AcceptanceRow, table: &RowLimits) {
        for (name, key) in FIGURES {
            let is_counted = self.counts_indices || name != "reused_indices";
            // A figure that the row never counts has a limit only by an entry of its own.
            let is_own = table.get(key).is_some_and(|limit| !limit.is_common());
            if is_counted && (is_own || self.counts_packets || name != "packets_lost_after") {
                row.limit_by(name, table, key);
            }
        }
    }

    /// The figures of a row with their limits, not judged yet.
    pub(crate) fn row(&self, id: String, played: &Played) -> AcceptanceRow {
        let Played { faults, unfaults, .. } = played;
        let mut row = AcceptanceRow::new(id);
        self.put(&mut row, &self.table_for(faults.gaps_ns.len()));
        let has_fault = !played.kills.is_empty();
        let longest = |values: &[u64]| values.iter().max().map(|ns| ms(*ns));
        let gap = (!faults.gaps_ns.is_empty()).then(|| GapSpread::of_ns(faults.gaps_ns.clone()));
        let p99 = gap.filter(|_| faults.gaps_ns.len() >= SAMPLES_MIN).map(|gap| gap.p99);
        let packets = |count: u64| self.counts_packets.then_some(count as f64);
        let lost = faults.lost + faults.lost_of_others + unfaults.lost + unfaults.lost_of_others;
        let freezes = faults.freezes + unfaults.freezes;
        let both_ways = [&faults.gaps_ns[..], &played.gaps_up_ns].concat();
        let greatest = |counts: &[u64]| counts.iter().max().map(|most| *most as f64);
        let of_webrtc = played.transports.as_ref();
        let indices = |count: u64| self.counts_indices.then_some(count as f64);
        let figures = [
            ("gap_p99_ms", p99),
            ("gap_max_ms", gap.map(|gap| gap.max)),
            ("found_max_ms", found_ms(faults).into_iter().max_by(f64::total_cmp)),
            ("left_max_ms", longest(&faults.left_ns)),
            ("index_correct_max_ms", longest(&played.index_ns)),
            ("restored_max_ms", longest(&both_ways)),
            ("frozen_max_ms", greatest(&played.frozen_ms)),
            ("key_frames_asked", greatest(&played.key_frames_asked)),
            ("sessions_hit", Some(faults.hit as f64)),
            ("moves_per_room", self.counts_packets.then(|| moves(faults))),
            ("calls_lost", Some(calls_lost(played) as f64)),
            ("predicted_percent", (played.predicted.rooms > 0).then(|| played.predicted.percent())),
            ("packets_lost", packets(lost)),
            ("packets_lost_after", packets(unfaults.lost)),
            ("freezes", self.counts_freezes.then_some(freezes as f64)),
            ("nodes_marked_down", Some(faults.marked_down.len() as f64)),
            ("live_nodes_marked_down", Some(played.strangers.len() as f64)),
            ("handshakes_again", of_webrtc.map(|it| it.handshakes_again() as f64)),
            ("ice_restarts", of_webrtc.map(|it| it.tally.ice_restarts as f64)),
            (
                "authentication_failures",
                of_webrtc.map(|it| it.tally.authentication_failures as f64),
            ),
            ("reused_indices", of_webrtc.and_then(|it| indices(it.tally.reused_indices))),
            ("captured_reused_indices", of_webrtc.map(|it| it.captured.reused as f64)),
        ];
        for (name, figure) in figures {
            row.set_figure(name, figure.filter(|_| has_fault));
        }
        // Figures that are not measured yet.
        for name in row.limits.keys().cloned().collect::<Vec<_>>() {
            let name = name.trim_end_matches("_min").to_owned();
            row.figures.entry(name).or_default();
        }
        row
    }

    /// The limits in words.
    pub(crate) fn words(&self) -> String {
        let limit = |(key, limit): (&str, &FigureLimit)| {
            let sign = if limit.is_least() { "≥" } else { "≤" };
            let later = limit.from().map_or(String::new(), |name| format!(" (from {name})"));
            Some(format!("{key} {sign} {} {}{later}", limit.limit()?, limit.unit()))
        };
        let mut words: Vec<String> = self.table.iter().filter_map(limit).collect();
        let Checks { some_unplaced, others_suffer, both_carry, damaged, .. } = self.checks;
        let Checks { overlap, no_old_owner, counts_alike, .. } = self.checks;
        if some_unplaced {
            words.push("all rooms that fit moved, the others reported, without packets, and recovered afterwards".to_owned());
            words.push("no node above its capacity in any sample".to_owned());
        }
        let flags = [
            (both_carry, "packets of both nodes may alternate"),
            (damaged, "packets may be damaged"),
            (overlap, "make-before-break"),
            (no_old_owner, "0 packets of the old owner"),
            (counts_alike, "events, log, comparison and metrics count the receivers"),
        ];
        words.extend(flags.iter().filter(|(is, _)| *is).map(|(_, word)| (*word).to_owned()));
        words.push(match others_suffer {
            None => "unaffected sessions stay, 0 lost, 0 freezes".to_owned(),
            Some(why) => format!("others may suffer, since {why}"),
        });
        words.push("no other node marked down, 0 misdelivered".to_owned());
        words.join(", ")
    }

    /// The limit that a control run exceeded without a fault.
    pub(crate) fn exceeded_without_fault(&self, control: &Control) -> Option<String> {
        let Control { gaps_ns, longest, .. } = control;
        // Other programs tell only their longest pauses.
        let gaps_ns = if gaps_ns.is_empty() { &longest.gaps_ns } else { gaps_ns };
        let table = self.table_for(gaps_ns.len());
        let gap = GapSpread::of_ns(gaps_ns.clone());
        let figures = [
            ("gap p99", gap.p99, "p99"),
            ("gap max", gap.max, "max"),
            ("packets lost", longest.lost as f64, "lost"),
            ("freezes", longest.freezes as f64, "freezes"),
        ];
        figures.into_iter().find_map(|(name, figure, key)| {
            let limit = table.judged(key).filter(|limit| figure > *limit)?;
            Some(format!("{name} {figure:.1} without a fault, {limit} is the limit"))
        })
    }

    /// The violated limits: of the control run, of the faults, and after the faults.
    pub(crate) fn misses(&self, played: &Played) -> Vec<String> {
        let Played { faults, unfaults, .. } = played;
        let Checks { some_unplaced, others_suffer, both_carry, damaged, .. } = self.checks;
        let Checks { overlap, no_old_owner, .. } = self.checks;
        let strangers = played.strangers.iter();
        let mut misses: Vec<String> =
            strangers.map(|(when, node)| format!("{node} was marked down {when}")).collect();
        let mut above = |what: &str, found: f64, limit: Option<f64>| {
            if let Some(limit) = limit.filter(|limit| found > *limit) {
                misses.push(format!("{what} {found:.1}, {limit} is the limit"));
            }
        };
        let judged = |key: &str| self.judged(key);
        let table = self.table_for(faults.gaps_ns.len());
        let gap = GapSpread::of_ns(faults.gaps_ns.clone());
        above("gap p99", gap.p99, table.judged("p99"));
        above("gap max", gap.max, table.judged("max"));
        let up = GapSpread::of_ns(played.gaps_up_ns.clone());
        let table_up = self.table_for(played.gaps_up_ns.len());
        above("gap p99 at the nodes", up.p99, table_up.judged("p99"));
        above("gap max at the nodes", up.max, table_up.judged("max"));
        above("restored after", gap.max.max(up.max), judged("restored_within"));
        let worst = OverKills::of(&played.kills).map_or(0.0, |kills| kills.worst);
        above("gap p99 of the worst kill", worst, judged("max"));
        for (way, of) in &played.ways {
            let gap = GapSpread::of_ns(of.gaps_ns.clone());
            above(&format!("gap p99, {way}"), gap.p99, judged("p99"));
        }
        let found = found_ms(faults).into_iter().max_by(f64::total_cmp);
        above("found after", found.unwrap_or(0.0), judged("found_max"));
        let [p99, max] = self.unfault_gap();
        let unfault_gap = GapSpread::of_ns(unfaults.gaps_ns.clone());
        above("gap p99 of the un-fault", unfault_gap.p99, p99);
        above("gap max of the un-fault", unfault_gap.max, max);
        let whole = others_suffer.is_none() && !damaged;
        above("lost after the fault", unfaults.lost as f64, judged("lost_after").filter(|_| whole));
        let left = GapSpread::of_ns(faults.left_ns.clone());
        above("off the node after", left.max, judged("left_within"));
        let corrected = GapSpread::of_ns(played.index_ns.clone());
        above("index correct after", corrected.max, judged("index_within"));
        above("moves", moves(faults), judged("moves_max"));
        above(
            "moves of a room in a minute",
            played.moves.most() as f64,
            judged("moves_in_a_minute"),
        );
        let frozen = played.frozen_ms.iter().max().copied().unwrap_or(0);
        above("a page frozen", frozen as f64, judged("frozen_max"));
        let requests = judged("key_frame_requests_per_death");
        let most_asked = played.key_frames_asked.iter().max().copied().unwrap_or(0);
        above("key frames asked", most_asked as f64, requests);
        let zero_when = |is: bool| is.then_some(0.0);
        let both = |count: fn(&FaultEffect) -> u64| (count(faults) + count(unfaults)) as f64;
        above("lost", both(|r| r.lost + r.lost_of_others), judged("lost"));
        above("freezes", both(|r| r.freezes), judged("freezes"));
        above("nodes marked down", faults.marked_down.len() as f64, judged("marked_down"));
        let others = zero_when(others_suffer.is_none());
        above("moves of other rooms", faults.other_rooms_moved as f64, others);
        above("lost of others", faults.lost_of_others as f64, others);
        above("freezes of others", faults.freezes_of_others as f64, others);
        above("of the old owner", unfaults.of_the_hit as f64, zero_when(no_old_owner));
        above("of a standby", played.of_standby as f64, Some(0.0));
        above("answered offers without a session", played.offered_missing as f64, Some(0.0));
        above(
            "after the new one's first",
            faults.stragglers as f64,
            zero_when(!both_carry && !damaged && !overlap),
        );
        // Rooms go home make-before-break.
        let overlap_ms = judged("overlap");
        let gently = overlap_ms.filter(|_| overlap);
        above("ms of the old node after the new one's first", ms(faults.straggled_ns), gently);
        let at_home = overlap_ms.filter(|_| !both_carry && !damaged);
        above("ms of the old node after the first at home", ms(unfaults.straggled_ns), at_home);
        above("came twice", both(|r| r.twice), zero_when(both_carry));
        above("misdelivered", both(|r| r.misdelivered), zero_when(!damaged));
        above("calls lost", calls_lost(played) as f64, judged("ended"));
        let hit_min = judged("hit").unwrap_or_default();
        if (faults.hit as f64) < hit_min {
            misses.push(format!("{} sessions hit, of at least {hit_min}", faults.hit));
        }
        if requests.is_some() && played.key_frames_asked.contains(&0) {
            misses.push("after a fault no key frame was asked".to_owned());
        }
        if played.unsettled > 0 {
            let (times, within) = (played.unsettled, self.settled_within());
            misses.push(format!("{times} times it was not as before within {within:?}"));
        }
        if some_unplaced {
            misses.extend(played.unplaced.misses());
        }
        misses.extend(played.sampled.iter().flat_map(SampledNodes::misses));
        misses.extend(played.tide.iter().flat_map(|tide| tide.misses(&self.table)));
        misses.extend(played.transports.iter().flat_map(|it| it.misses(&self.table)));
        let predicted = played.predicted.percent();
        if let Some(least) = judged("predicted").filter(|least| predicted < *least) {
            misses
                .push(format!("{predicted:.1} % of rooms where `blast` said, of at least {least}"));
        }
        if let Some(least) = judged("moves_min").filter(|least| moves(faults) < *least) {
            misses.push(format!(
                "{:.2} moves of a room per fault, of at least {least}",
                moves(faults)
            ));
        }
        misses
    }
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

    use evenkeel_report::LimitTable;

    use crate::prediction::Predicted;
    use crate::rows;
    use crate::webrtc::Transports;

    use super::*;

    /// The limits of all rows, and these of one row, such as `p99 = 50`.
    fn limits(own: &str, checks: Checks) -> Limits {
        let all = include_str!("../../limits.toml");
        let all = all.split_once("[chaos.").unwrap().0;
        let own = format!("[chaos.row]\nlimit = {{ {own} }}\nsource = \"code\"\n");
        let table = LimitTable::parse(&format!("{all}{own}")).unwrap();
        let table = table.rows_of("chaos", &["row"]).unwrap().of("row");
        let (counts_packets, counts_indices, counts_freezes) = (true, true, true);
        Limits { table, checks, counts_packets, counts_indices, counts_freezes }
    }

    fn with(own: &str) -> Limits {
        limits(own, Checks::ALL)
    }

    /// The limits of all rows.
    fn common() -> Limits {
        with("hit = 1")
    }

    #[test]
    fn each_row_has_limits_and_few_samples_no_p99() {
        let table = LimitTable::load().unwrap();
        let rows = rows::all();
        let ids: Vec<&str> = rows.iter().map(|row| row.id).collect();
        let table = table.rows_of("chaos", &ids).unwrap();
        for row in rows {
            let limits = table.of(row.id);
            assert!(limits.iter().count() > 0, "{}", row.id);
            let samples = row.sessions * row.kills;
            let has_p99 =
                limits.iter().any(|(key, _)| key.ends_with("p99") && !key.starts_with("unfault"));
            assert!(samples as usize >= SAMPLES_MIN || !has_p99, "{}: {samples} samples", row.id);
        }
    }

    #[test]
    fn few_gaps_have_a_maximum_and_no_p99() {
        let row = |gaps: usize| {
            let faults =
                FaultEffect { hit: 1, gaps_ns: vec![1_000_000; gaps], ..FaultEffect::default() };
            with("p99 = 50, max = 60").row("row".to_owned(), &Played { faults, ..with_a_fault() })
        };
        let (few, many) = (row(99), row(100));
        assert_eq!((few.figure("gap_p99_ms"), few.figure("gap_max_ms")), (None, Some(1.0)));
        assert_eq!((few.limits.get("gap_p99_ms"), few.limits["gap_max_ms"]), (None, 50.0));
        assert_eq!((many.figure("gap_p99_ms"), many.limits["gap_p99_ms"]), (Some(1.0), 50.0));
        assert_eq!(many.limits["gap_max_ms"], 60.0);
    }

    fn with_a_fault() -> Played {
        Played { kills: vec![GapSpread::of_ns(Vec::new())], ..Played::default() }
    }

    #[test]
    fn row_that_broke_off_has_no_figures() {
        let row = with("lost = 0").row("row".to_owned(), &Played::default());
        assert_eq!(row.figures.get("packets_lost"), Some(&None));
        assert!(row.figures.values().all(Option::is_none), "{:?}", row.figures);
        let row = with("lost = 0").row("row".to_owned(), &with_a_fault());
        assert_eq!(row.figure("packets_lost"), Some(0.0));
    }

    #[test]
    fn figures_of_other_programs_are_null() {
        let all = rows::all();
        let table = LimitTable::load().unwrap();
        let ids: Vec<&str> = all.iter().map(|row| row.id).collect();
        let table = table.rows_of("chaos", &ids).unwrap();
        let figures = |id: &str| {
            let row = all.iter().find(|row| row.id == id).unwrap();
            let transports = Some(Transports::default());
            let played = Played { transports, ..with_a_fault() };
            Limits::of(row, &table).row(id.to_owned(), &played)
        };
        let never =
            ["packets_lost", "packets_lost_after", "moves_per_room", "freezes", "reused_indices"];
        for name in never {
            let row = figures("webrtc.libraries.node-kill");
            assert_eq!(row.figures.get(name), Some(&None), "{name}");
            assert!(!row.limits.contains_key(name), "{name}");
            assert!(figures("webrtc.node-kill").figure(name).is_some(), "{name}");
        }
        assert!(figures("webrtc.browsers.node-kill").figure("freezes").is_some());
        assert!(figures("webrtc.live").figure("reused_indices").is_some(), "of its viewers");
    }

    #[test]
    fn control_beyond_a_limit_is_no_measurement() {
        let said = |limits: Limits, gap_ms: u64, lost: u64| {
            let longest = FaultEffect { lost, ..FaultEffect::default() };
            let control =
                Control { gaps_ns: vec![gap_ms * 1_000_000; 100], longest, ..Control::default() };
            limits.exceeded_without_fault(&control)
        };
        let gap = || with("p99 = 50");
        assert_eq!(said(gap(), 50, 1), None);
        let why = "gap p99 51.0 without a fault, 50 is the limit";
        assert_eq!(said(gap(), 51, 0).as_deref(), Some(why));
        assert!(said(with("lost = 0"), 20, 1).is_some());
        assert_eq!(said(with("lost = 0"), 20, 0), None);
    }

    /// An affected receiver that gets packets of the old node for this long after the new node's first packet.
    fn straggled(ms: u64) -> FaultEffect {
        let stragglers = u64::from(ms > 0);
        FaultEffect { hit: 1, stragglers, straggled_ns: ms * 1_000_000, ..FaultEffect::default() }
    }

    #[test]
    fn rooms_that_are_to_move_may_not_stay() {
        let limits = with("moves_min = 1");
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
        assert_eq!([0, 1].map(|hit| misses(common(), hit).len()), [1, 0]);
        assert_eq!(misses(with("hit = 2"), 1), ["1 sessions hit, of at least 2"]);
        assert_eq!(misses(with("hit = 2"), 2), [""; 0]);
    }

    #[test]
    fn unaffected_may_suffer_only_for_a_reason() {
        let misses = |limits: Limits, others: FaultEffect| {
            let faults = FaultEffect { hit: 1, ..others };
            limits.misses(&Played { faults, ..Played::default() }).len()
        };
        let excused = Checks { others_suffer: Some("they are cut off"), ..Checks::ALL };
        let none = FaultEffect::default();
        assert_eq!(misses(common(), none.clone()), 0);
        let moved = FaultEffect { other_rooms_moved: 1, ..none.clone() };
        let lost = FaultEffect { lost_of_others: 1, ..none.clone() };
        let froze = FaultEffect { freezes_of_others: 1, ..none };
        for others in [moved, lost, froze] {
            assert_eq!(misses(common(), others.clone()), 1);
            assert_eq!(misses(limits("hit = 1", excused), others), 0);
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
        assert_eq!(common().misses(&played), [""; 0]);
        played.marked_down("during the fault", &["b".to_owned()], &victims);
        played.marked_down("after the fault", &["a".to_owned()], &[]);
        let misses = ["b was marked down during the fault", "a was marked down after the fault"];
        assert_eq!(common().misses(&played), misses);
    }

    #[test]
    fn no_packet_is_lost_after_the_fault() {
        let misses = |limits: Limits, lost| {
            let faults = FaultEffect { hit: 1, ..FaultEffect::default() };
            let unfaults = FaultEffect { lost, ..FaultEffect::default() };
            limits.misses(&Played { faults, unfaults, ..Played::default() })
        };
        assert_eq!(misses(common(), 0), [""; 0]);
        assert_eq!(misses(common(), 1), ["lost after the fault 1.0, 0 is the limit"]);
        let excused = Checks { others_suffer: Some("they are cut off"), ..Checks::ALL };
        assert_eq!(misses(limits("hit = 1", excused), 1), [""; 0]);
    }

    #[test]
    fn no_call_is_lost() {
        let misses = |unheard| {
            let faults = FaultEffect { hit: 1, unheard, ..FaultEffect::default() };
            common().misses(&Played { faults, ..Played::default() })
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
        assert_eq!([50, 51, 151].map(|ms| misses(common(), ms)), [0, 1, 2]);
        assert_eq!(misses(with("p99 = 300, max = 1000"), 299), 0);
        assert_eq!(misses(with("p99 = 20, max = 30"), 50), 0);
    }

    #[test]
    fn slow_variant_and_worst_kill_are_checked() {
        let of = |ms: u64, n: usize| FaultEffect {
            gaps_ns: vec![ms * 1_000_000; n],
            ..FaultEffect::default()
        };
        let faults = FaultEffect { hit: 1, ..of(40, 1_000) };
        let mut played = Played { faults, ..Played::default() };
        let limits = with("p99 = 50, max = 150");
        assert_eq!(limits.misses(&played), [""; 0]);
        played.ways.insert("hushed", of(60, 1));
        assert_eq!(limits.misses(&played), ["gap p99, hushed 60.0, 50 is the limit"]);
        played.ways.clear();
        played.kills = vec![GapSpread::of_ns(vec![151_000_000])];
        assert_eq!(limits.misses(&played), ["gap p99 of the worst kill 151.0, 150 is the limit"]);
    }

    #[test]
    fn each_limit_names_a_figure() {
        let all = with(
            "p99 = 1, found_max = 1, lost = 0, freezes = 0, marked_down = 0, left_within = 1, \
             index_within = 1, frozen_max = 1, key_frame_requests_per_death = 1, moves_min = 1, \
             moves_max = 1, predicted = 1, restored_within = 1",
        );
        let detections =
            vec![NodeDetection { node: "a".to_owned(), after_ms: 1.0, by_witness: [].into() }];
        let faults =
            FaultEffect { gaps_ns: vec![1; 100], left_ns: vec![1], detections, ..straggled(0) };
        let predicted = Predicted { rooms: 1, equal: 1 };
        let played = Played {
            faults,
            predicted,
            index_ns: vec![1],
            key_frames_asked: vec![1],
            frozen_ms: vec![1],
            ..with_a_fault()
        };
        let mut row = all.row("row".to_owned(), &played);
        assert!(row.limits.len() > 15, "{row:?}");
        assert!(row.figures.values().filter(|figure| figure.is_none()).count() <= 6, "{row:?}");
        row.judge();
        assert!(row.held.is_some(), "{row:?}");
    }

    #[test]
    fn longest_freeze_of_a_page_is_limited() {
        let misses = |frozen_ms: &[u64]| {
            let faults = FaultEffect { hit: 1, ..FaultEffect::default() };
            let limits = with("frozen_max = 250");
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
            let limits = with("key_frame_requests_per_death = 1");
            limits.misses(&Played { faults, key_frames_asked, ..Played::default() }).len()
        };
        assert_eq!([&[1, 1], &[1, 0], &[2, 1]].map(|asked| misses(asked)), [0, 1, 1]);
    }

    #[test]
    fn gap_at_the_nodes_has_the_limits_of_clients() {
        let played = |ms: u64| {
            let faults = FaultEffect { hit: 1, ..FaultEffect::default() };
            Played { faults, gaps_up_ns: vec![ms * 1_000_000; 100], ..Played::default() }
        };
        let limits = with("p99 = 50, max = 150");
        assert_eq!([50, 51, 151].map(|ms| limits.misses(&played(ms)).len()), [0, 1, 2]);
    }

    #[test]
    fn victim_that_is_found_too_late_is_a_miss() {
        let found =
            |after_ms| NodeDetection { node: "a".to_owned(), after_ms, by_witness: [].into() };
        let misses = |after_ms| {
            let detections = vec![found(after_ms)];
            let faults = FaultEffect { hit: 1, detections, ..FaultEffect::default() };
            with("found_max = 20").misses(&Played { faults, ..Played::default() }).len()
        };
        assert_eq!([20.0, 20.1].map(misses), [0, 1]);
    }

    #[test]
    fn overlap_needs_make_before_break() {
        let misses = |limits: Limits, fault, unfault| {
            let (faults, unfaults) = (straggled(fault), straggled(unfault));
            limits.misses(&Played { faults, unfaults, ..Played::default() }).len()
        };
        assert_eq!(misses(common(), 0, 0), 0);
        assert_eq!(misses(common(), 1, 0), 1, "a dead node sends nothing");
        assert_eq!(misses(limits("hit = 1", Checks::OVERLAP), 499, 0), 0);
        assert_eq!(misses(limits("hit = 1", Checks::OVERLAP), 501, 0), 1);
        assert_eq!(misses(common(), 0, 499), 0, "fail-back is make-before-break");
        assert_eq!(misses(common(), 0, 501), 1);
    }
}
