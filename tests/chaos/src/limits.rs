//! The limits of rows: the numbers of `tests/limits.toml`, and checks without a number.

use std::time::Duration;

use evenkeel_lab::crowd::FaultEffect;
use evenkeel_lab::ledger::GapSpread;
use evenkeel_report::{AcceptanceRow, FigureLimit, RowLimits, SAMPLES_MIN, SectionLimits};

use crate::newcomers::NewcomerReport;
use crate::node_samples::SampledNodes;
use crate::report::{Control, OverKills, Played, found_ms};
use crate::row::Row;
use crate::webrtc::{ThirdParty, Transports};

/// The figures of a row, each with the key of its limit in the table.
const FIGURES: [(&str, &str); 49] = [
    ("gap_p99_ms", "p99"),
    ("gap_max_ms", "max"),
    ("gap_at_nodes_p99_ms", "p99"),
    ("gap_at_nodes_max_ms", "max"),
    ("gap_p99_of_worst_kill_ms", "max"),
    ("gap_p99_of_worst_way_ms", "p99"),
    ("unfault_gap_p99_ms", "unfault_p99"),
    ("unfault_gap_max_ms", "unfault_max"),
    ("settled_max_ms", "settled_within"),
    ("found_max_ms", "found_max"),
    ("left_max_ms", "left_within"),
    ("index_correct_max_ms", "index_within"),
    ("restored_max_ms", "restored_within"),
    ("restore_max_ms", "restore_max"),
    ("offer_p99_ms", "offer_p99"),
    ("overlap_ms", "overlap"),
    ("frozen_max_ms", "frozen_max"),
    ("frozen_p99_ms", "frozen_p99"),
    ("frames_per_second", "frames_per_second"),
    ("key_frames_asked", "key_frame_requests_per_death"),
    ("sessions_hit", "hit"),
    ("moves_per_room", "moves_max"),
    ("moves_per_room", "moves_min"),
    ("moves_in_a_minute", "moves_in_a_minute"),
    ("moves_of_others", "moves_of_others"),
    ("calls_lost", "ended"),
    ("predicted_percent", "predicted"),
    ("half_open_percent", "half_open"),
    ("at_home_percent", "at_home"),
    ("samples_pause_ms", "samples_pause"),
    ("hellos_read_percent", "hellos_read"),
    ("packets_lost", "lost"),
    ("packets_lost_after", "lost_after"),
    ("lost_of_others", "lost_of_others"),
    ("freezes", "freezes"),
    ("freezes_of_others", "freezes_of_others"),
    ("stragglers", "stragglers"),
    ("twice", "twice"),
    ("misdelivered", "misdelivered"),
    ("of_old_owner", "of_old_owner"),
    ("of_standby", "of_standby"),
    ("offers_missing", "offers_missing"),
    ("nodes_marked_down", "marked_down"),
    ("live_nodes_marked_down", "live_nodes_marked_down"),
    ("handshakes_again", "handshakes_again"),
    ("ice_restarts", "ice_restarts"),
    ("authentication_failures", "refused"),
    ("reused_indices", "index_twice"),
    ("captured_reused_indices", "index_twice"),
];

/// Figures that only rows with the matching layout or fault have.
const OF_SOME_ROWS: [&str; 4] = [
    "gap_at_nodes_p99_ms",
    "gap_at_nodes_max_ms",
    "gap_p99_of_worst_kill_ms",
    "gap_p99_of_worst_way_ms",
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
    third_party: Option<ThirdParty>,
    /// A gateway on a host of its own waits for the death of the serving one.
    has_standby: bool,
    has_offers: bool,
}

/// The gaps from which figures are made.
struct GapCounts {
    at_clients: usize,
    at_nodes: usize,
    after_unfault: usize,
}

impl GapCounts {
    /// Enough for each 99th percentile.
    const MANY: GapCounts =
        GapCounts { at_clients: SAMPLES_MIN, at_nodes: SAMPLES_MIN, after_unfault: SAMPLES_MIN };
}

impl Limits {
    /// Those of a row.
    pub(crate) fn of(row: &Row, table: &SectionLimits) -> Limits {
        Limits {
            table: table.of(row.id),
            checks: row.checks,
            third_party: row.third_party,
            has_standby: row.layout.gateway_hosts > 1,
            has_offers: row.offers,
        }
    }

    /// True if the packets of each session are counted. Other programs tell no packets.
    pub(crate) fn counts_packets(&self) -> bool {
        self.third_party.is_none()
    }

    /// True if sessions are offered around faults.
    pub(crate) fn has_offers(&self) -> bool {
        self.has_offers
    }

    /// True if packets from the host of a standby are counted.
    pub(crate) fn has_standby(&self) -> bool {
        self.has_standby
    }

    /// True if its clients tell the indices of SRTP.
    fn counts_indices(&self) -> bool {
        self.third_party.is_none_or(ThirdParty::has_lab_viewers)
    }

    /// True if its clients tell freezes.
    fn counts_freezes(&self) -> bool {
        self.third_party.is_none_or(|kind| kind == ThirdParty::Pages)
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

    /// The least idle time of the processors in the control run, per cent.
    pub(crate) fn idle_min(&self) -> f64 {
        self.judged("idle_in_control").unwrap_or_default()
    }

    /// The table's limits for this number of gaps when the fault is undone: the wider of those of all rows and the row's own.
    fn table_for_unfault(&self, gaps: usize) -> RowLimits {
        let mut table = self.table.clone();
        table.widen("unfault_p99", "p99");
        table.widen("unfault_max", "max");
        if gaps < SAMPLES_MIN {
            table.judge_maximum("unfault_p99", "unfault_max");
        }
        table
    }

    /// The limits of a row's figures, without figures.
    pub(crate) fn blank(&self, id: String) -> AcceptanceRow {
        let mut row = AcceptanceRow::new(id);
        self.put(&mut row, &GapCounts::MANY);
        row
    }

    fn put(&self, row: &mut AcceptanceRow, gaps: &GapCounts) {
        let at_clients = self.table_for(gaps.at_clients);
        let at_nodes = self.table_for(gaps.at_nodes);
        let of_unfault = self.table_for_unfault(gaps.after_unfault);
        for (name, key) in FIGURES.into_iter().filter(|(name, key)| self.applies(name, key)) {
            let table = match name {
                "gap_at_nodes_p99_ms" | "gap_at_nodes_max_ms" => &at_nodes,
                "unfault_gap_p99_ms" | "unfault_gap_max_ms" => &of_unfault,
                _ => &at_clients,
            };
            if row.figure(name).is_some() || !OF_SOME_ROWS.contains(&name) {
                row.limit_by(name, table, key);
            }
        }
    }

    /// False if the row is excused from this limit, or never measures the figure.
    fn applies(&self, name: &str, key: &str) -> bool {
        let Checks { others_suffer, both_carry, damaged, overlap, no_old_owner, .. } = self.checks;
        let counts_packets = self.counts_packets();
        let is_own = || self.table.get(key).is_some_and(|limit| !limit.is_common());
        match name {
            "packets_lost_after" => {
                is_own() || counts_packets && others_suffer.is_none() && !damaged
            }
            "moves_of_others" | "lost_of_others" | "freezes_of_others" => {
                counts_packets && others_suffer.is_none()
            }
            "stragglers" => counts_packets && !both_carry && !damaged && !overlap,
            // Rooms go home make-before-break.
            "overlap_ms" => counts_packets && (overlap || !both_carry && !damaged),
            "twice" => is_own() || counts_packets && both_carry,
            "misdelivered" => counts_packets && !damaged,
            "of_old_owner" => counts_packets && no_old_owner,
            "of_standby" => self.has_standby,
            "offers_missing" => self.has_offers,
            "ice_restarts" => self.third_party.is_none_or(ThirdParty::tells_paths),
            "reused_indices" => self.counts_indices(),
            _ => true,
        }
    }

    /// The figures of a row with their limits, not judged yet.
    pub(crate) fn row(&self, id: String, played: &Played) -> AcceptanceRow {
        let Played { faults, unfaults, .. } = played;
        let mut row = AcceptanceRow::new(id);
        let has_fault = !played.kills.is_empty();
        let longest = |values: &[u64]| values.iter().max().map(|ns| ms(*ns));
        let p99 = |values: &[u64]| {
            let is_enough = values.len() >= SAMPLES_MIN;
            is_enough.then(|| GapSpread::of_ns(values.to_vec()).p99)
        };
        let p99_of_ms =
            |values: &[u64]| p99(&values.iter().map(|ms| ms * 1_000_000).collect::<Vec<_>>());
        let packets = |count: u64| self.counts_packets().then_some(count as f64);
        let both = |count: fn(&FaultEffect) -> u64| count(faults) + count(unfaults);
        let freezes = both(|effect| effect.freezes) as f64;
        let both_ways = [&faults.gaps_ns[..], &played.gaps_up_ns].concat();
        let greatest = |counts: &[u64]| counts.iter().max().map(|most| *most as f64);
        let worst_kill = OverKills::of(&played.kills).filter(|_| !faults.gaps_ns.is_empty());
        let of_ways = played.ways.values().map(|way| GapSpread::of_ns(way.gaps_ns.clone()).p99);
        let straggled_ns = if self.checks.overlap { faults.straggled_ns } else { 0 };
        let overlap_ms = ms(straggled_ns.max(unfaults.straggled_ns));
        let of_webrtc = played.transports.as_ref();
        let indices = |count: u64| self.counts_indices().then_some(count as f64);
        let counted = |count: u64| count as f64;
        let figures = [
            ("gap_p99_ms", p99(&faults.gaps_ns)),
            ("gap_max_ms", longest(&faults.gaps_ns)),
            ("gap_at_nodes_p99_ms", p99(&played.gaps_up_ns)),
            ("gap_at_nodes_max_ms", longest(&played.gaps_up_ns)),
            ("gap_p99_of_worst_kill_ms", worst_kill.map(|kills| kills.worst)),
            ("gap_p99_of_worst_way_ms", of_ways.max_by(f64::total_cmp)),
            ("unfault_gap_p99_ms", p99(&unfaults.gaps_ns)),
            ("unfault_gap_max_ms", longest(&unfaults.gaps_ns)),
            ("settled_max_ms", longest(&played.settle_ns).filter(|_| played.unsettled == 0)),
            ("found_max_ms", found_ms(faults).into_iter().max_by(f64::total_cmp)),
            ("left_max_ms", longest(&faults.left_ns)),
            ("index_correct_max_ms", longest(&played.index_ns)),
            ("restored_max_ms", longest(&both_ways)),
            ("restore_max_ms", longest(&played.restore_ns)),
            ("offer_p99_ms", p99(&played.offers_ns)),
            ("overlap_ms", self.counts_packets().then_some(overlap_ms)),
            ("frozen_max_ms", greatest(&played.frozen_ms)),
            ("frozen_p99_ms", p99_of_ms(&played.frozen_ms)),
            ("frames_per_second", played.control.frames_per_second),
            ("key_frames_asked", greatest(&played.key_frames_asked)),
            ("sessions_hit", Some(faults.hit as f64)),
            ("moves_per_room", self.counts_packets().then(|| moves(faults))),
            ("moves_in_a_minute", Some(played.moves.most() as f64)),
            ("moves_of_others", packets(faults.other_rooms_moved)),
            ("calls_lost", Some(calls_lost(played) as f64)),
            ("predicted_percent", (played.predicted.rooms > 0).then(|| played.predicted.percent())),
            ("half_open_percent", played.tide.as_ref().and_then(NewcomerReport::half_open_percent)),
            ("at_home_percent", played.tide.as_ref().and_then(NewcomerReport::at_home_percent)),
            ("samples_pause_ms", played.sampled.as_ref().and_then(SampledNodes::pause_ms)),
            ("hellos_read_percent", played.hellos_read.iter().copied().min_by(f64::total_cmp)),
            ("packets_lost", packets(both(|effect| effect.lost + effect.lost_of_others))),
            ("packets_lost_after", packets(unfaults.lost)),
            ("lost_of_others", packets(faults.lost_of_others)),
            ("freezes", self.counts_freezes().then_some(freezes)),
            ("freezes_of_others", packets(faults.freezes_of_others)),
            ("stragglers", packets(faults.stragglers)),
            ("twice", packets(both(|effect| effect.twice))),
            ("misdelivered", packets(both(|effect| effect.misdelivered))),
            ("of_old_owner", packets(unfaults.of_the_hit)),
            ("of_standby", self.has_standby.then_some(played.of_standby as f64)),
            ("offers_missing", self.has_offers.then_some(played.offered_missing as f64)),
            ("nodes_marked_down", Some(faults.marked_down.len() as f64)),
            ("live_nodes_marked_down", Some(played.strangers.len() as f64)),
            ("handshakes_again", of_webrtc.map(|it| it.handshakes_again() as f64)),
            ("ice_restarts", of_webrtc.and_then(|it| it.counts.ice_restarts.map(counted))),
            (
                "authentication_failures",
                of_webrtc.map(|it| it.counts.authentication_failures as f64),
            ),
            ("reused_indices", of_webrtc.and_then(|it| it.counts.reused_indices.and_then(indices))),
            ("captured_reused_indices", of_webrtc.map(|it| it.captured.reused as f64)),
        ];
        for (name, figure) in figures {
            row.set_figure(name, figure.filter(|_| has_fault));
        }
        self.put(
            &mut row,
            &GapCounts {
                at_clients: faults.gaps_ns.len(),
                at_nodes: played.gaps_up_ns.len(),
                after_unfault: unfaults.gaps_ns.len(),
            },
        );
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
        let is_judged = |key: &str| {
            let mut names = FIGURES.iter().filter(|(_, of)| *of == key).peekable();
            names.peek().is_none() || names.any(|(name, _)| self.applies(name, key))
        };
        let limits = self.table.iter().filter(|(key, _)| is_judged(key));
        let mut words: Vec<String> = limits.filter_map(limit).collect();
        let Checks { some_unplaced, others_suffer, both_carry, damaged, .. } = self.checks;
        let Checks { overlap, counts_alike, .. } = self.checks;
        if some_unplaced {
            words.push("all rooms that fit moved, the others reported, without packets, and recovered afterwards".to_owned());
            words.push("no node above its capacity in any sample".to_owned());
        }
        let flags = [
            (both_carry, "packets of both nodes may alternate"),
            (damaged, "packets may be damaged"),
            (overlap, "make-before-break"),
            (counts_alike, "events, log, comparison and metrics count the receivers"),
        ];
        words.extend(flags.iter().filter(|(is, _)| *is).map(|(_, word)| (*word).to_owned()));
        words.extend(others_suffer.map(|why| format!("others may suffer, since {why}")));
        words.join(", ")
    }

    /// The limit that a control run exceeded without a fault.
    pub(crate) fn exceeded_without_fault(&self, control: &Control) -> Option<String> {
        let Control { gaps_ns, longest, up_ns, frozen_ms, .. } = control;
        // Other programs tell only their longest pauses.
        let gaps_ns = if gaps_ns.is_empty() { &longest.gaps_ns } else { gaps_ns };
        let (table, table_up) = (self.table_for(gaps_ns.len()), self.table_for(up_ns.len()));
        let (gap, up) = (GapSpread::of_ns(gaps_ns.clone()), GapSpread::of_ns(up_ns.clone()));
        let frozen_max_ms = frozen_ms.iter().max().copied().unwrap_or(0) as f64;
        let figures = [
            ("gap p99", gap.p99, table.judged("p99")),
            ("gap max", gap.max, table.judged("max")),
            ("gap p99 at the nodes", up.p99, table_up.judged("p99")),
            ("gap max at the nodes", up.max, table_up.judged("max")),
            ("packets lost", longest.lost as f64, table.judged("lost")),
            ("freezes", longest.freezes as f64, table.judged("freezes")),
            ("ms of video frozen", frozen_max_ms, table.judged("frozen_max")),
            ("ms of video frozen", frozen_max_ms, table.judged("frozen_p99")),
            ("silent receivers", longest.unheard as f64, table.judged("ended")),
        ];
        figures.into_iter().find_map(|(name, figure, limit)| {
            let limit = limit.filter(|limit| figure > *limit)?;
            Some(format!("{name} {figure:.1} without a fault, {limit} is the limit"))
        })
    }

    /// The violated limits and checks: of the control run, of the faults, and after the faults.
    pub(crate) fn misses(&self, played: &Played) -> Vec<String> {
        let strangers = played.strangers.iter();
        let mut misses: Vec<String> =
            strangers.map(|(when, node)| format!("{node} was marked down {when}")).collect();
        misses.extend(self.row(String::new(), played).exceeded());
        if self.judged("key_frame_requests_per_death").is_some()
            && played.key_frames_asked.contains(&0)
        {
            misses.push("after a fault no key frame was asked".to_owned());
        }
        if played.unsettled > 0 {
            let (times, within) = (played.unsettled, self.settled_within());
            misses.push(format!("{times} times it was not as before within {within:?}"));
        }
        if self.checks.some_unplaced {
            misses.extend(played.unplaced.misses());
        }
        misses.extend(played.sampled.iter().flat_map(SampledNodes::misses));
        misses.extend(played.tide.iter().flat_map(NewcomerReport::misses));
        misses.extend(played.transports.iter().flat_map(Transports::misses));
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
    use std::collections::BTreeSet;

    use evenkeel_client::ServerEvent;
    use evenkeel_lab::crowd::NodeDetection;
    use evenkeel_report::{LimitTable, earlier_rows};
    use serde_json::json;

    use crate::diagnosis::DiagnosisReport;
    use crate::prediction::Predicted;
    use crate::rows;
    use crate::webrtc::TransportCounts;

    use super::*;

    /// The limits of all rows, and these of one row, such as `p99 = 50`.
    fn limits(own: &str, checks: Checks) -> Limits {
        let all = include_str!("../../limits.toml");
        let all = all.split_once("[chaos.").unwrap().0;
        let own = format!("[chaos.row]\nlimit = {{ {own} }}\nsource = \"code\"\n");
        let table = LimitTable::parse(&format!("{all}{own}")).unwrap();
        let table = table.rows_of("chaos", &["row"]).unwrap().of("row");
        Limits { table, checks, ..Limits::default() }
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
            let (ice_restarts, reused_indices) = (Some(0), Some(0));
            let counts =
                TransportCounts { ice_restarts, reused_indices, ..TransportCounts::default() };
            let transports = Some(match id.contains("libraries") {
                true => Transports::default(),
                false => Transports { counts, ..Transports::default() },
            });
            let played = Played { transports, ..with_a_fault() };
            Limits::of(row, &table).row(id.to_owned(), &played)
        };
        let never = [
            "packets_lost",
            "packets_lost_after",
            "lost_of_others",
            "moves_per_room",
            "misdelivered",
            "freezes",
            "ice_restarts",
            "reused_indices",
        ];
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

    #[test]
    fn all_of_a_control_is_compared_with_the_limits() {
        let limits = with("p99 = 50, frozen_max = 250");
        let said = |control: &Control| limits.exceeded_without_fault(control);
        let up_ns = vec![51_000_000; 100];
        let at_nodes = "gap p99 at the nodes 51.0 without a fault, 50 is the limit";
        assert_eq!(said(&Control { up_ns, ..Control::default() }).as_deref(), Some(at_nodes));
        let frozen = "ms of video frozen 251.0 without a fault, 250 is the limit";
        let frozen_ms = vec![0, 251];
        assert_eq!(said(&Control { frozen_ms, ..Control::default() }).as_deref(), Some(frozen));
        let silent = "silent receivers 1.0 without a fault, 0 is the limit";
        let longest = FaultEffect { unheard: 1, ..FaultEffect::default() };
        assert_eq!(said(&Control { longest, ..Control::default() }).as_deref(), Some(silent));
    }

    #[test]
    fn frozen_video_is_judged_from_100_streams_on() {
        let row = |streams: usize| {
            let frozen_ms = [vec![0; streams - 2], vec![251; 2]].concat();
            let row = Played { frozen_ms, ..with_a_fault() };
            with("frozen_p99 = 250").row("row".to_owned(), &row)
        };
        assert_eq!(row(100).figure("frozen_p99_ms"), Some(251.0));
        assert!(row(100).exceeded().any(|miss| miss.contains("frozen_p99_ms 251")));
        assert_eq!(row(99).figure("frozen_p99_ms"), None);
    }

    #[test]
    fn transports_fail_once_and_in_the_row() {
        let played = |counts: TransportCounts| {
            let transports = Transports { counts, ..Transports::default() };
            Played { transports: Some(transports), ..with_a_fault() }
        };
        let limits =
            with("hit = 0, handshakes_again = 0, ice_restarts = 0, refused = 0, index_twice = 0");
        let misses = |counts| limits.misses(&played(counts)).len();
        let good = TransportCounts {
            ice_restarts: Some(0),
            replayed: Some(1),
            reused_indices: Some(0),
            ..TransportCounts::default()
        };
        assert_eq!(misses(good), 0, "a replay is a copy");
        for bad in [
            TransportCounts { handshakes: 1, ..good },
            TransportCounts { ice_restarts: Some(1), ..good },
            TransportCounts { authentication_failures: 1, ..good },
            TransportCounts { reused_indices: Some(1), ..good },
        ] {
            assert_eq!(misses(bad), 1, "{bad:?}");
        }
    }

    #[test]
    fn each_row_of_a3d43ed3_is_there() {
        let rows = rows::all();
        let ids: BTreeSet<&str> = rows.iter().map(|row| row.id).collect();
        let gone: Vec<_> = earlier_rows("chaos").difference(&ids).copied().collect();
        assert!(gone.is_empty(), "{gone:?}");
        let segments = DiagnosisReport::ids().into_iter().collect();
        let gone: Vec<_> = earlier_rows("diagnosis").difference(&segments).copied().collect();
        assert!(gone.is_empty(), "{gone:?}");
    }

    /// An affected receiver that gets packets of the old node for this long after the new node's first packet.
    fn straggled(ms: u64) -> FaultEffect {
        let stragglers = u64::from(ms > 0);
        FaultEffect { hit: 1, stragglers, straggled_ns: ms * 1_000_000, ..FaultEffect::default() }
    }

    #[test]
    fn slowest_restore_is_limited() {
        let misses = |restore_ns: &[u64]| {
            let faults = FaultEffect { hit: 1, ..FaultEffect::default() };
            let restore_ns = restore_ns.to_vec();
            with("restore_max = 90").misses(&Played { faults, restore_ns, ..with_a_fault() })
        };
        assert_eq!(misses(&[90_000_000, 1]), [""; 0]);
        assert_eq!(misses(&[1, 91_000_000]), ["restore_max_ms 91.0, 90 is the limit"]);
    }

    #[test]
    fn slow_answers_to_offers_are_a_miss() {
        let misses = |ms: u64| {
            let faults = FaultEffect { hit: 1, ..FaultEffect::default() };
            let offers_ns = vec![ms * 1_000_000; 100];
            with("offer_p99 = 45").misses(&Played { faults, offers_ns, ..with_a_fault() })
        };
        assert_eq!(misses(45), [""; 0]);
        assert_eq!(misses(46), ["offer_p99_ms 46.0, 45 is the limit"]);
    }

    #[test]
    fn rooms_that_are_to_move_may_not_stay() {
        let limits = with("moves_min = 1");
        let misses = |rooms_moved| {
            let faults =
                FaultEffect { hit: 2, rooms_hit: 2, rooms_moved, ..FaultEffect::default() };
            limits.misses(&Played { faults, ..with_a_fault() }).len()
        };
        assert_eq!([0, 1, 2].map(misses), [1, 1, 0]);
    }

    #[test]
    fn fault_must_affect_enough_sessions() {
        let misses = |limits: Limits, hit| {
            let faults = FaultEffect { hit, ..FaultEffect::default() };
            limits.misses(&Played { faults, ..with_a_fault() })
        };
        assert_eq!([0, 1].map(|hit| misses(common(), hit).len()), [1, 0]);
        assert_eq!(misses(with("hit = 2"), 1), ["sessions_hit 1.0, of at least 2"]);
        assert_eq!(misses(with("hit = 2"), 2), [""; 0]);
    }

    #[test]
    fn unaffected_may_suffer_only_for_a_reason() {
        let misses = |limits: Limits, others: FaultEffect| {
            let faults = FaultEffect { hit: 1, ..others };
            limits.misses(&Played { faults, ..with_a_fault() }).len()
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
            limits.misses(&Played { faults, unfaults, ..with_a_fault() })
        };
        assert_eq!(misses(common(), 0), [""; 0]);
        assert_eq!(misses(common(), 1), ["packets_lost_after 1.0, 0 is the limit"]);
        let excused = Checks { others_suffer: Some("they are cut off"), ..Checks::ALL };
        assert_eq!(misses(limits("hit = 1", excused), 1), [""; 0]);
    }

    #[test]
    fn repeats_are_judged_where_the_row_limits_them() {
        let misses = |limits: Limits| {
            let faults = FaultEffect { hit: 1, twice: 1, ..FaultEffect::default() };
            limits.misses(&Played { faults, ..with_a_fault() })
        };
        assert_eq!(misses(common()), [""; 0]);
        assert_eq!(misses(with("twice = 0")), ["twice 1.0, 0 is the limit"]);
    }

    #[test]
    fn no_call_is_lost() {
        let misses = |unheard| {
            let faults = FaultEffect { hit: 1, unheard, ..FaultEffect::default() };
            common().misses(&Played { faults, ..with_a_fault() })
        };
        assert_eq!(misses(0), [""; 0]);
        assert_eq!(misses(1), ["calls_lost 1.0, 0 is the limit"]);
    }

    #[test]
    fn gap_after_the_fault_has_the_wider_limit() {
        let misses = |limits: Limits, gap_ms: u64| {
            let faults = FaultEffect { hit: 1, ..FaultEffect::default() };
            let unfaults =
                FaultEffect { gaps_ns: vec![gap_ms * 1_000_000; 100], ..FaultEffect::default() };
            limits.misses(&Played { faults, unfaults, ..with_a_fault() }).len()
        };
        assert_eq!([50, 51, 151].map(|ms| misses(common(), ms)), [0, 1, 2]);
        assert_eq!(misses(with("p99 = 300, max = 1000"), 299), 0);
        assert_eq!(misses(with("p99 = 20, max = 30"), 50), 0);
    }

    #[test]
    fn all_that_decides_is_a_figure() {
        let unfaults = FaultEffect { gaps_ns: vec![55_300_000; 12], ..straggled(501) };
        let effect = FaultEffect { gaps_ns: vec![40_000_000; 100], ..straggled(0) };
        let settle_ns = vec![21_000_000_000];
        let mut played = Played { faults: effect, unfaults, settle_ns, ..with_a_fault() };
        let moved = |s: u64| {
            let data = json!({"room": "a", "cause": "link", "at_us": s * 1_000_000});
            ServerEvent { name: "moved".to_owned(), data }
        };
        played.moves.note(&[moved(1), moved(2), moved(3), moved(4)]);
        let limits = common();
        let row = limits.row("row".to_owned(), &played);
        for (name, figure) in [
            ("unfault_gap_max_ms", 55.3),
            ("overlap_ms", 501.0),
            ("moves_in_a_minute", 4.0),
            ("settled_max_ms", 21_000.0),
        ] {
            assert_eq!(row.figure(name), Some(figure), "{name}");
            assert!(row.limits[name] < figure, "{name}");
        }
        assert_eq!(limits.misses(&played).len(), 4);
    }

    #[test]
    fn slow_variant_and_worst_kill_are_checked() {
        let of = |ms: u64, n: usize| FaultEffect {
            gaps_ns: vec![ms * 1_000_000; n],
            ..FaultEffect::default()
        };
        let faults = FaultEffect { hit: 1, ..of(40, 1_000) };
        let mut played = Played { faults, ..with_a_fault() };
        let limits = with("p99 = 50, max = 150");
        assert_eq!(limits.misses(&played), [""; 0]);
        played.ways.insert("hushed", of(60, 1));
        assert_eq!(limits.misses(&played), ["gap_p99_of_worst_way_ms 60.0, 50 is the limit"]);
        played.ways.clear();
        played.kills = vec![GapSpread::of_ns(vec![151_000_000])];
        assert_eq!(limits.misses(&played), ["gap_p99_of_worst_kill_ms 151.0, 150 is the limit"]);
    }

    #[test]
    fn each_limit_names_a_figure() {
        let all = with(
            "p99 = 1, found_max = 1, lost = 0, freezes = 0, marked_down = 0, left_within = 1, \
             index_within = 1, frozen_max = 1, key_frame_requests_per_death = 1, moves_min = 1, \
             moves_max = 1, predicted = 1, restored_within = 1, restore_max = 1, \
             offer_p99 = 1",
        );
        let detections =
            vec![NodeDetection { node: "a".to_owned(), after_ms: 1.0, by_witness: [].into() }];
        let gaps_ns = vec![1; 100];
        let unfaults = FaultEffect { gaps_ns: gaps_ns.clone(), ..FaultEffect::default() };
        let faults = FaultEffect { gaps_ns, left_ns: vec![1], detections, ..straggled(0) };
        let predicted = Predicted { rooms: 1, equal: 1 };
        let played = Played {
            faults,
            unfaults,
            predicted,
            settle_ns: vec![1],
            index_ns: vec![1],
            restore_ns: vec![1],
            offers_ns: vec![1; 100],
            key_frames_asked: vec![1],
            frozen_ms: vec![1],
            ..with_a_fault()
        };
        let mut row = all.row("row".to_owned(), &played);
        assert!(row.limits.len() > 15, "{row:?}");
        let is_measured = |name: &String| row.figure(name.trim_end_matches("_min")).is_some();
        assert!(row.limits.keys().all(is_measured), "{row:?}");
        row.judge();
        assert!(row.held.is_some(), "{row:?}");
    }

    #[test]
    fn longest_freeze_of_a_page_is_limited() {
        let misses = |frozen_ms: &[u64]| {
            let faults = FaultEffect { hit: 1, ..FaultEffect::default() };
            let limits = with("frozen_max = 250");
            let frozen_ms = frozen_ms.to_vec();
            limits.misses(&Played { faults, frozen_ms, ..with_a_fault() }).len()
        };
        assert_eq!((misses(&[250, 0]), misses(&[0, 251])), (0, 1));
    }

    #[test]
    fn key_frame_is_asked_once_after_each_fault() {
        let misses = |key_frames_asked: &[u64]| {
            let faults = FaultEffect { hit: 1, ..FaultEffect::default() };
            let key_frames_asked = key_frames_asked.to_vec();
            let limits = with("key_frame_requests_per_death = 1");
            limits.misses(&Played { faults, key_frames_asked, ..with_a_fault() }).len()
        };
        assert_eq!([&[1, 1], &[1, 0], &[2, 1]].map(|asked| misses(asked)), [0, 1, 1]);
    }

    #[test]
    fn gap_at_the_nodes_has_the_limits_of_clients() {
        let played = |ms: u64| {
            let faults = FaultEffect { hit: 1, ..FaultEffect::default() };
            Played { faults, gaps_up_ns: vec![ms * 1_000_000; 100], ..with_a_fault() }
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
            with("found_max = 20").misses(&Played { faults, ..with_a_fault() }).len()
        };
        assert_eq!([20.0, 20.1].map(misses), [0, 1]);
    }

    #[test]
    fn overlap_needs_make_before_break() {
        let misses = |limits: Limits, fault, unfault| {
            let (faults, unfaults) = (straggled(fault), straggled(unfault));
            limits.misses(&Played { faults, unfaults, ..with_a_fault() }).len()
        };
        assert_eq!(misses(common(), 0, 0), 0);
        assert_eq!(misses(common(), 1, 0), 1, "a dead node sends nothing");
        assert_eq!(misses(limits("hit = 1", Checks::OVERLAP), 499, 0), 0);
        assert_eq!(misses(limits("hit = 1", Checks::OVERLAP), 501, 0), 1);
        assert_eq!(misses(common(), 0, 499), 0, "fail-back is make-before-break");
        assert_eq!(misses(common(), 0, 501), 1);
    }
}
