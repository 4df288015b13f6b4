//! Media over a path that loses packets: what is left of the losses with repair, and without it at the same time.
//!
//! A row has ten sessions with ten seeds, each twice: with the repair of the row declared, and without. Both lose the same packet numbers.
//! The row of a trunk leg has ten minutes with ten seeds; those of costs have no sockets.
//!
//! Sender and receiver are of this bench, the relay on the client's path has the impairments of the lab. The report has the mean of the
//! sessions and, under the same name with `_spread`, the distance from the best to the worst.

mod adapt;
mod browser;
mod clients;
mod codes;
mod content;
mod cost;
mod flexfec;
mod leg;
mod losses;
mod path;
mod rating;
mod red;
mod row;
mod stage;
mod trunk;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use evenkeel_lab::relay::Direction;
use evenkeel_lab::relay::pump;
use evenkeel_report::{AcceptanceRow, LimitTable, SectionLimits};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};

use clients::{Receiver, Schedule, Sender};
use losses::{LossPlan, percent_of};
use path::{LaneTally, Paths};
use row::{MediaRow, Medium, Repair};
use stage::{Clients, MediaStage};

/// Sessions of a row, each with a seed of its own.
const SEEDS: u64 = 10;
/// Time to open the sessions of a row.
const OPENED_WITHIN: Duration = Duration::from_secs(5);
/// Seconds without losses at first.
const CALM_S: usize = 5;
/// Seconds with losses before those that are judged: the gateway learns of losses from reports.
const LEARNING_S: usize = 5;
const JUDGED_S: usize = 60;
/// Seconds of packets after the judged ones: their redundant blocks may complete the judged ones.
const REST_S: usize = 1;
/// The loss beyond that of the path at which sessions without repair, and so the machine, say that nothing was measured, in per cent.
const CONTROL_BEYOND: f64 = 0.05;
/// Events per `epoll_wait`; the next call returns the rest.
const EVENTS: usize = 64;

/// The options.
#[derive(Args, Clone, Debug)]
pub(crate) struct Choice {
    /// Run only rows with this in their id
    #[arg(long, value_name = "TEXT", default_value = "")]
    rows: String,
    /// Calls of browsers per row, of which the report has the median
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// Path of the gateway's program
    #[arg(long, value_name = "FILE", default_value = "target/release/evenkeel")]
    evenkeel: PathBuf,
    /// Folder of the report: `report.json`, or `part.json` for a part
    #[arg(long, value_name = "FOLDER", default_value = "target/bench-media")]
    out: PathBuf,
}

pub(crate) fn measure(choice: &Choice) -> Result<(), String> {
    let evenkeel = evenkeel_report::gateway(&choice.evenkeel, "bench-media")?;
    let limits = LimitTable::load()?.rows_of("media", &ids())?;
    let is_wanted = |id: &str| id.contains(&choice.rows);
    let rows = row::ROWS.iter().filter(|row| row.ids.iter().any(|id| is_wanted(id)));
    let rows: Vec<&MediaRow> = rows.collect();
    let browser_rows: Vec<_> = browser::ROWS.iter().filter(|row| is_wanted(row.id)).collect();
    let cost_rows: Vec<_> = cost::ROWS.iter().filter(|row| is_wanted(row.id)).collect();
    if !ids().iter().any(|id| is_wanted(id)) {
        return Err(format!("--rows {:?}: no row has this in its id", choice.rows));
    }
    let name = if choice.rows.is_empty() { "report.json" } else { "part.json" };
    let (out, run) = (choice.out.join(name), choice.out.join("run"));
    let mut measured: Vec<AcceptanceRow> = Vec::new();
    let mut add = |rows: Vec<AcceptanceRow>| {
        rows.iter().for_each(print);
        measured.extend(rows);
        evenkeel_report::write(&BTreeMap::from([("rows", &measured)]), &out)
    };
    for row in cost_rows {
        add(vec![cost::measure(row, &limits.of(row.id), cost::ROUNDS)])?;
    }
    for row in rows {
        add(play(row, &evenkeel, &empty(&run)?, &limits)?)?;
    }
    for row in trunk::ROWS.iter().filter(|row| is_wanted(row.id)) {
        add(vec![trunk::measure(row, &evenkeel, &empty(&run)?, &limits.of(row.id))?])?;
    }
    for row in adapt::ROWS.iter().filter(|row| is_wanted(row.id)) {
        add(vec![adapt::measure(row, &evenkeel, &empty(&run)?, &limits.of(row.id))?])?;
    }
    for row in browser_rows {
        let limits = limits.of(row.id);
        add(vec![browser::measure(*row, &limits, &evenkeel, || empty(&run), choice.runs.max(1))?])?;
    }
    println!("written to {}", out.display());
    Ok(())
}

/// The ids of all rows.
fn ids() -> Vec<&'static str> {
    let simulated = row::ROWS.iter().flat_map(|row| row.ids).copied();
    let pages = browser::ROWS.iter().map(|row| row.id);
    let of_cost = cost::ROWS.iter().map(|row| row.id);
    let of_legs = trunk::ROWS.iter().map(|row| row.id);
    let adaptive = adapt::ROWS.iter().map(|row| row.id);
    simulated.chain(pages).chain(of_cost).chain(of_legs).chain(adaptive).collect()
}

fn print(row: &AcceptanceRow) {
    let why = row.not_measured.as_ref().or(row.skipped.as_ref());
    println!("{} {}{}", row.id, row.word(), why.map_or(String::new(), |why| format!(": {why}")));
    let figures = row.figures.iter().filter_map(|(name, value)| Some((name, (*value)?)));
    figures.for_each(|(name, value)| println!("  {name} {value:.3}"));
    row.misses.iter().for_each(|miss| println!("  {miss}"));
}

/// An empty folder. A gateway continues what its cache remembers.
fn empty(folder: &Path) -> Result<PathBuf, String> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("cannot empty {}: {error}", folder.display()))
        }
        Ok(()) | Err(_) => evenkeel_report::folder(folder),
    }
}

/// A call from a sender to a receiver.
struct MediaCall {
    sender: Sender,
    receiver: Receiver,
}

/// The figures of a call, in per cent.
struct CallFigures {
    lost_before: f64,
    lost_after: f64,
    frames_broken: f64,
    /// Ratings of voice over time.
    ratings: Vec<f64>,
    bytes: u64,
    /// Those of second copies.
    bytes_of_copies: u64,
    /// Packets of parity, in per cent of the packets of media.
    parity: f64,
    /// Packets that did not arrive in time.
    missed: usize,
    /// Packets that would not have arrived in time without their second copy.
    saved_by_copies: usize,
    /// Repairs on the path that lost nothing.
    on_clean_path: u64,
    red_packets: u64,
    red_blocks: u64,
    misses: Vec<String>,
}

/// Plays a row. Returns it under each of its ids.
fn play(
    row: &MediaRow,
    evenkeel: &Path,
    folder: &Path,
    limits: &SectionLimits,
) -> Result<Vec<AcceptanceRow>, String> {
    let system = |error: io::Error| error.to_string();
    let second = row.medium.frames_per_second() * row.medium.packets_per_frame();
    let calm = if row.losses == losses::Losses::NONE { CALM_S } else { CALM_S + LEARNING_S };
    let judged_s = calm..CALM_S + LEARNING_S + JUDGED_S;
    let judged = judged_s.start * second..judged_s.end * second;
    let packets = judged.end + REST_S * second;
    let mut stage = MediaStage::start(evenkeel, folder, Clients::Declared, Ok)?;
    let paths = Paths::start(row.round_trip).map_err(system)?;
    let begins = Instant::now() + OPENED_WITHIN;
    let (mut calls, mut plans) = (Vec::new(), Vec::new());
    for seed in 0..SEEDS {
        let plan = Arc::new(row.plan(CALM_S * second..packets, seed));
        // Sessions of one seed send at the same time, and others in between.
        let begins = begins + row.medium.since_first(1).mul_f64(seed as f64 / SEEDS as f64);
        let schedule = Schedule { medium: row.medium, begins, packets };
        for is_repaired in [true, false] {
            let session = 2 * seed + u64::from(!is_repaired);
            let (plan, judged) = (Arc::clone(&plan), judged.clone());
            let repair = is_repaired.then_some(row.repair);
            let sender = Sender::new(session, schedule).map_err(system)?;
            let receiver = Receiver::new(session, schedule, judged.clone(), repair, row.round_trip)
                .map_err(system)?;
            let mut call = MediaCall { sender, receiver };
            let lane = paths.open(row.direction, plan, judged).map_err(system)?;
            let own = call.sender.socket.local_addr().and_then(|sender| {
                let receiver = call.receiver.socket.local_addr()?;
                Ok(match row.direction {
                    Direction::Up => [lane.far, receiver],
                    Direction::Down => [sender, lane.far],
                })
            });
            let room = format!("room-{session}");
            let [from_sender, from_receiver] =
                own.map_err(system)?.map(|address| row.offer(&room, address, is_repaired));
            call.sender.gateway = stage.open(&from_sender)?;
            call.receiver.gateway = stage.open(&from_receiver)?;
            let impaired = match row.direction {
                Direction::Up => &mut call.sender.gateway,
                Direction::Down => &mut call.receiver.gateway,
            };
            paths.connect(lane, *impaired).map_err(system)?;
            *impaired = lane.near;
            calls.push(call);
        }
        plans.push(plan);
    }
    if Instant::now() > begins {
        return Err(format!("sessions were not open after {OPENED_WITHIN:?}"));
    }
    // A little longer than the packets, so that repairs of the last ones arrive.
    let ends = begins + row.medium.since_first(packets / row.medium.packets_per_frame());
    run(&mut calls, ends + row::LATENCY, None).map_err(system)?;
    let tallies = paths.tallies();
    let figures: Vec<CallFigures> = calls
        .iter()
        .zip(&tallies)
        .map(|(call, tally)| figures(row, call, tally, &judged))
        .collect();
    Ok(rows(row, &figures, &plans, &judged, limits))
}

/// Sends and receives until then. `nap`: the time between two looks, if it is to be shorter than a millisecond.
fn run(calls: &mut [MediaCall], until: Instant, nap: Option<Duration>) -> io::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (place, call) in (0..).zip(calls.iter()) {
        pump::watch(&epoll, &call.sender.socket, 2 * place)?;
        pump::watch(&epoll, &call.receiver.socket, 2 * place + 1)?;
    }
    let mut events = [EpollEvent::empty(); EVENTS];
    while Instant::now() < until {
        let timeout = nap.map_or(EpollTimeout::from(1_u8), |nap| {
            std::thread::sleep(nap);
            EpollTimeout::ZERO
        });
        // An interrupted wait returns no events.
        let ready = epoll.wait(&mut events, timeout).unwrap_or(0);
        for event in &events[..ready] {
            let call = &mut calls[(event.data() / 2) as usize];
            match event.data() % 2 {
                0 => call.sender.receive(),
                _ => call.receiver.receive(),
            }
        }
        let now = Instant::now();
        for call in &mut *calls {
            call.sender.handle_timeout(now);
            call.receiver.handle_timeout(now);
        }
    }
    Ok(())
}

fn figures(
    row: &MediaRow,
    call: &MediaCall,
    tally: &LaneTally,
    judged: &Range<usize>,
) -> CallFigures {
    let MediaCall { sender, receiver } = call;
    let lost = |number: usize| !receiver.has(number);
    let reception = receiver.reception;
    let mut misses = Vec::new();
    let strange = reception.wrong + tally.unknown;
    if strange > 0 {
        misses.push(format!("{strange} packets or blocks are none that the sender sent"));
    }
    CallFigures {
        lost_before: 100.0 * tally.lost_first as f64 / judged.len() as f64,
        lost_after: percent_of(judged, 1, lost),
        frames_broken: percent_of(judged, row.medium.packets_per_frame(), lost),
        ratings: rating::ratings(judged, lost),
        bytes: tally.bytes,
        bytes_of_copies: tally.bytes_of_copies,
        parity: 100.0 * tally.parities as f64 / judged.len() as f64,
        missed: judged.clone().filter(|number| lost(*number)).count(),
        saved_by_copies: tally.saved_by_copies.iter().filter(|it| receiver.has(**it)).count(),
        on_clean_path: match row.direction {
            Direction::Up => reception.repeated + reception.red_blocks,
            Direction::Down => sender.resent,
        },
        red_packets: reception.red_packets,
        red_blocks: reception.red_blocks,
        misses,
    }
}

/// The row under each of its ids. `calls` are those of each seed in turn, with repair and without.
fn rows(
    row: &MediaRow,
    calls: &[CallFigures],
    plans: &[Arc<LossPlan>],
    judged: &Range<usize>,
    limits: &SectionLimits,
) -> Vec<AcceptanceRow> {
    let repaired = || calls.iter().step_by(2);
    let control = || calls.iter().skip(1).step_by(2);
    let packets: u64 = repaired().map(|call| call.red_packets).sum();
    let blocks: u64 = repaired().map(|call| call.red_blocks).sum();
    let depth = blocks as f64 / packets.max(1) as f64;
    // Of a row with two ids the gateway chooses the one.
    let chosen = if row.ids.len() > 1 && depth >= 1.5 { 1 } else { 0 };
    let id = row.ids[chosen];
    let mut measured = AcceptanceRow::new(id);
    let mut set = |name: &str, values: Vec<f64>| {
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        row::set_figure(&mut measured, name, mean, &values);
    };
    set("lost_before", repaired().map(|call| call.lost_before).collect());
    set("lost_after", repaired().map(|call| call.lost_after).collect());
    let over = repaired().zip(control());
    let over = over.map(|(call, control)| 100.0 * (call.bytes as f64 / control.bytes as f64 - 1.0));
    set("bytes_over", over.collect());
    let mut judged_share: fn(&CallFigures) -> f64 = |call| call.lost_after;
    if row.medium == Medium::Video {
        judged_share = |call| call.frames_broken;
        set("frames_broken", repaired().map(judged_share).collect());
    }
    set("control", control().map(judged_share).collect());
    let bounds: Option<Vec<f64>> = plans.iter().map(|plan| row.bound(plan, judged, id)).collect();
    if let Some(bounds) = bounds {
        set("bound", bounds);
    }
    if row.repair == Repair::Parity {
        set("parity", repaired().map(|call| call.parity).collect());
    }
    let mut rivals: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (name, left) in plans.iter().flat_map(|plan| row.rivals(plan, judged)) {
        rivals.entry(name).or_default().push(left);
    }
    rivals.into_iter().for_each(|(name, left)| set(&name, left));
    let blocks = (0..=row::PARITIES_MAX)
        .map_while(|parities| measured.figure(&format!("block_{parities}")))
        .collect::<Vec<f64>>();
    let sums = measured.figure("frames_broken").zip(measured.figure("bytes_over"));
    if let Some((broken, over)) = sums.filter(|_| !blocks.is_empty()) {
        let parities = codes::parities_for(broken, &blocks);
        let over_of_blocks = 100.0 * parities / row.medium.packets_per_frame() as f64;
        measured.set_figure("of_blocks", Some(over / over_of_blocks));
    }
    if row.losses.is_ramp() {
        let best: Vec<Vec<f64>> =
            plans.iter().map(|plan| rating::best_ratings(plan, judged)).collect();
        rating::set_rating(&mut measured, "r", &ratings_of(repaired()));
        rating::set_rating(&mut measured, "control", &ratings_of(control()));
        rating::set_rating(&mut measured, "bound", &best);
    }
    if packets > 0 {
        measured.set_figure("red_depth", Some(depth));
    }
    if row.repair.has_nack() {
        set_figures_of_copies(&mut measured, &repaired().collect::<Vec<_>>());
    }
    let on_clean_path = repaired().map(|call| call.on_clean_path).sum::<u64>() as f64;
    measured.set_figure("repairs_on_clean_path", Some(on_clean_path));
    let limits_of = limits.of(id);
    measured.limit_by("lost_after", &limits_of, "left");
    for name in [
        "frames_broken",
        "bytes_over",
        "repairs_on_clean_path",
        "parity",
        "of_blocks",
        "misses_saved",
        "bytes_of_copies",
        "r",
    ] {
        measured.limit_by(name, &limits_of, name);
    }
    let count = control().count().max(1) as f64;
    let beyond = control().map(|call| call.lost_after - call.lost_before).sum::<f64>() / count;
    if beyond > CONTROL_BEYOND {
        measured.not_measured =
            Some(format!("sessions without repair lost {beyond:.2} % beside the path"));
    }
    measured.judge();
    measured.miss(calls.iter().flat_map(|call| call.misses.clone()).collect());
    let others = row.ids.iter().filter(|other| **other != id);
    let why = format!("the gateway sent {depth:.1} earlier frames in a packet");
    let others = others.map(|other| AcceptanceRow::not_measured(*other, why.clone()));
    let others: Vec<AcceptanceRow> = others.collect();
    [vec![measured], others].concat()
}

fn ratings_of<'a>(calls: impl Iterator<Item = &'a CallFigures>) -> Vec<Vec<f64>> {
    calls.map(|call| call.ratings.clone()).collect()
}

/// Sets the gain and the cost of second copies beside the same transmissions without them. Of all sessions together: few packets of one are late.
fn set_figures_of_copies(row: &mut AcceptanceRow, calls: &[&CallFigures]) {
    let percent = |part: f64, whole: f64| 100.0 * part / whole.max(1.0);
    let saved = |calls: &[&CallFigures]| {
        let saved: usize = calls.iter().map(|call| call.saved_by_copies).sum();
        let missed: usize = calls.iter().map(|call| call.missed).sum();
        percent(saved as f64, (missed + saved) as f64)
    };
    let cost = |calls: &[&CallFigures]| {
        let copies: u64 = calls.iter().map(|call| call.bytes_of_copies).sum();
        let bytes: u64 = calls.iter().map(|call| call.bytes).sum();
        percent(copies as f64, (bytes - copies) as f64)
    };
    let each = |figure: &dyn Fn(&[&CallFigures]) -> f64| {
        calls.iter().map(|call| figure(&[*call])).collect::<Vec<f64>>()
    };
    row::set_figure(row, "misses_saved", saved(calls), &each(&saved));
    row::set_figure(row, "bytes_of_copies", cost(calls), &each(&cost));
}

#[cfg(test)]
mod tests {
    use super::losses::Losses;
    use super::*;

    fn limits() -> SectionLimits {
        LimitTable::load().unwrap().rows_of("media", &ids()).unwrap()
    }

    fn call(lost_before: f64, lost_after: f64, bytes: u64) -> CallFigures {
        CallFigures {
            lost_before,
            lost_after,
            frames_broken: 2.0 * lost_after,
            ratings: vec![90.0 - lost_after; 12],
            bytes,
            bytes_of_copies: 0,
            parity: 0.0,
            missed: 0,
            saved_by_copies: 0,
            on_clean_path: 0,
            red_packets: 0,
            red_blocks: 0,
            misses: Vec::new(),
        }
    }

    /// The row of this id, and the others that its calls stand for.
    fn judge(id: &str, calls: &[CallFigures]) -> Vec<AcceptanceRow> {
        let row = row::ROWS.iter().find(|row| row.ids.contains(&id)).unwrap();
        let plan = Arc::new(row.plan(120..5_040, 1));
        rows(row, calls, &[plan], &(120..4_920), &limits())
    }

    #[test]
    fn each_row_has_limits() {
        let limits = limits();
        for id in ids() {
            assert!(limits.of(id).iter().next().is_some(), "{id}");
        }
    }

    #[test]
    fn figures_are_means_beside_sessions_without_repair() {
        let calls = [
            call(10.0, 0.1, 120),
            call(10.0, 10.0, 100),
            call(12.0, 0.2, 110),
            call(12.0, 12.0, 100),
        ];
        let rows = judge("voice.random.nack", &calls);
        let [row] = &rows[..] else { panic!("{rows:?}") };
        let figure = |name: &str| (row.figure(name).unwrap() * 1_000.0).round();
        assert_eq!(
            ["lost_before", "lost_after", "control"].map(figure),
            [11_000.0, 150.0, 11_000.0]
        );
        assert_eq!(["bytes_over", "bytes_over_spread"].map(figure), [15_000.0, 10_000.0]);
        assert!(row.figure("bound").unwrap() < 0.1 && row.figure("frames_broken").is_none());
    }

    #[test]
    fn video_is_judged_by_frames() {
        let calls = [call(5.0, 0.1, 104), call(5.0, 5.0, 100)];
        let row = &judge("video.random.nack", &calls)[0];
        assert_eq!((row.figure("frames_broken"), row.figure("control")), (Some(0.2), Some(10.0)));
        assert_eq!(row.held, Some(true));
        let calls = [call(5.0, 3.0, 104), call(5.0, 5.0, 100)];
        assert_eq!(judge("video.random.nack", &calls)[0].held, Some(false));
    }

    #[test]
    fn red_row_is_the_one_that_the_gateway_chose() {
        for (blocks, chosen) in [(100, "voice.burst.red1"), (190, "voice.burst.red2")] {
            let red = CallFigures { red_packets: 100, red_blocks: blocks, ..call(10.0, 2.0, 160) };
            let rows = judge("voice.burst.red1", &[red, call(10.0, 10.0, 100)]);
            assert_eq!((rows.len(), &*rows[0].id), (2, chosen));
            assert!(rows[0].held.is_some() && rows[1].not_measured.is_some(), "{rows:?}");
        }
    }

    #[test]
    fn busy_machine_measures_nothing() {
        let calls = [call(5.0, 0.1, 104), call(5.0, 5.2, 100)];
        let row = &judge("video.random.nack", &calls)[0];
        assert!(row.not_measured.is_some() && row.held.is_none());
    }

    #[test]
    fn parity_is_judged_beside_other_codes() {
        let parity = |left, parity| CallFigures { parity, ..call(5.0, left, 134) };
        let row =
            |left, share| judge("video.fec", &[parity(left, share), call(5.0, 5.0, 100)]).remove(0);
        let held = row(0.8, 33.3);
        let figure = |name: &str| held.figure(name).unwrap();
        assert_eq!((held.held, figure("parity")), (Some(true), 33.3));
        assert!(figure("bound") < figure("disjoint_1") && figure("disjoint_1") < 15.0, "{held:?}");
        assert!(held.figure("disjoint_3").is_some());
        assert_eq!([row(0.9, 33.3), row(0.8, 40.0)].map(|row| row.held), [Some(false); 2]);
    }

    #[test]
    fn parity_in_bursts_is_judged_beside_blocks() {
        let parity = |bytes| CallFigures { parity: 50.0, ..call(5.0, 1.0, bytes) };
        let row = |bytes| judge("video.gilbert", &[parity(bytes), call(5.0, 5.0, 100)]).remove(0);
        let measured = row(150);
        let figure = |name: &str| measured.figure(name).unwrap();
        let blocks: Vec<f64> = (0..=12).map(|n| figure(&format!("block_{n}"))).collect();
        let parities = codes::parities_for(2.0, &blocks);
        assert!((figure("of_blocks") - 0.5 * 12.0 / parities).abs() < 1e-9, "{measured:?}");
        assert!(row(101).held == Some(true) && row(1_000).held == Some(false));
    }

    #[test]
    fn ramp_is_judged_by_the_worst_rating() {
        let ramp = |worst| CallFigures { ratings: vec![90.0, worst, 80.0], ..call(15.0, 1.0, 200) };
        let row = |worst| judge("voice.ramp", &[ramp(worst), call(15.0, 15.0, 100)]).remove(0);
        let held = row(77.0);
        assert_eq!((held.figure("r"), held.figure("control")), (Some(77.0), Some(75.0)));
        assert!(held.figure("bound").is_some_and(|bound| bound > 60.0), "{held:?}");
        assert_eq!([held.held, row(76.9).held], [Some(true), Some(false)]);
    }

    #[test]
    fn copies_are_judged_beside_none() {
        let copied = |saved, bytes| CallFigures {
            missed: 60,
            saved_by_copies: saved,
            bytes_of_copies: bytes,
            ..call(5.0, 0.1, 10_000)
        };
        let row = |saved, bytes| {
            let calls = [copied(saved, bytes), call(5.0, 5.0, 9_500)];
            judge("video.deadline", &calls).remove(0)
        };
        let held = row(40, 49);
        let figure = |name: &str| held.figure(name).unwrap();
        assert_eq!((figure("misses_saved"), held.held), (40.0, Some(true)));
        assert!((figure("bytes_of_copies") - 0.492).abs() < 0.001);
        assert_eq!([row(20, 49), row(40, 60)].map(|row| row.held), [Some(false); 2]);
    }

    #[test]
    fn foreign_content_is_a_miss() {
        let strange = CallFigures { misses: vec!["1".to_owned()], ..call(5.0, 0.1, 104) };
        let row = &judge("video.random.nack", &[strange, call(5.0, 5.0, 100)])[0];
        assert_eq!((row.held, row.misses.len()), (Some(false), 1));
    }

    #[test]
    fn repair_of_the_clean_path_is_a_miss() {
        for id in ["uplink-only", "downlink-only"] {
            let on_clean_path = |packets| {
                let repaired = CallFigures { on_clean_path: packets, ..call(10.0, 0.1, 104) };
                judge(id, &[repaired, call(10.0, 10.0, 100)])[0].held
            };
            assert_eq!([0, 1].map(on_clean_path), [Some(true), Some(false)], "{id}");
        }
    }

    #[test]
    fn clean_row_has_no_bound() {
        let row = &judge("clean", &[call(0.0, 0.0, 100), call(0.0, 0.0, 100)])[0];
        assert_eq!((row.figure("bound"), row.held), (None, Some(true)));
        let row = &judge("clean", &[call(0.0, 0.0, 101), call(0.0, 0.0, 100)])[0];
        assert_eq!(row.held, Some(false), "a byte of repair");
        assert!(row::ROWS.iter().any(|row| row.losses == Losses::NONE));
    }
}
