//! Rows of a trunk leg that loses datagrams on the way to the node. The paths of clients are clean.

use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::{Duration, Instant};

use evenkeel_lab::relay::Direction;
use evenkeel_report::{AcceptanceRow, RowLimits};

use super::clients::{Receiver, Schedule, Sender};
use super::leg::{LegLog, LossyLeg};
use super::losses::{Losses, percent_of};
use super::row::{LATENCY, MediaRow, Medium, ROUND_TRIP, Repair, set_figure};
use super::stage::{Clients, MediaStage};
use super::{CALM_S, JUDGED_S, LEARNING_S, MediaCall, OPENED_WITHIN, REST_S, SEEDS, run};

/// A row of minutes with one seed after another, on one leg.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LegRow {
    pub(super) id: &'static str,
    /// Calls of voice, which send at different times, so that the leg has about as many bundles as packets.
    calls: u64,
    /// The loss of bundles and of repair datagrams, independent, in per cent.
    percent: u32,
    seeds: u64,
    /// The repair that clients declare.
    repair: Option<Repair>,
    clients: Clients,
    /// The legs lose all repair datagrams, so that copies over both are the only repair.
    is_without_repair: bool,
}

pub(super) static ROWS: [LegRow; 3] = [
    LegRow {
        id: "trunk.random",
        calls: 40,
        percent: 5,
        seeds: SEEDS,
        repair: None,
        clients: Clients::Declared,
        is_without_repair: false,
    },
    LegRow {
        id: "two-hops",
        calls: 10,
        percent: 5,
        seeds: 3,
        repair: None,
        clients: Clients::DeclaredOverTwo,
        is_without_repair: true,
    },
    LegRow {
        id: "leg-only",
        calls: 10,
        percent: 20,
        seeds: 3,
        repair: Some(Repair::Any),
        clients: Clients::DeclaredByPolicies,
        is_without_repair: false,
    },
];

/// Shorter than the time between two packets of all calls.
const NAP: Duration = Duration::from_micros(150);
/// Bundles, of packets of media: some have reports, and some have two packets.
const BUNDLES_OF_PACKETS: RangeInclusive<f64> = 0.95..=1.2;
/// Time between two looks at the degradations in force, if there are any policies.
const LOOK_EVERY_S: usize = 5;

/// Plays a row.
///
/// # Errors
/// The gateway fails, or does not open all sessions in time.
pub(super) fn measure(
    row: &LegRow,
    evenkeel: &Path,
    folder: &Path,
    limits: &RowLimits,
) -> Result<AcceptanceRow, String> {
    let system = |error: io::Error| error.to_string();
    let second = Medium::Voice.frames_per_second();
    let first = (CALM_S + LEARNING_S) * second;
    let minute = JUDGED_S * second;
    let judged = first..first + row.seeds as usize * minute;
    let packets = judged.end + REST_S * second;
    let mut legs: Vec<LossyLeg> = Vec::new();
    let mut stage = MediaStage::start(evenkeel, folder, row.clients, |node| {
        let leg = LossyLeg::start(node, row.is_without_repair)?;
        let near = leg.near();
        legs.push(leg);
        Ok(near)
    })?;
    let begin = |percent: u32, seed: u64| {
        (0..).zip(&legs).for_each(|(place, leg)| leg.begin(percent, 100 * place + seed));
    };
    let offered = MediaRow {
        ids: &[],
        medium: Medium::Voice,
        direction: Direction::Down,
        losses: Losses::NONE,
        repair: row.repair.unwrap_or(Repair::Any),
        round_trip: ROUND_TRIP,
    };
    let begins = Instant::now() + OPENED_WITHIN;
    let mut calls = Vec::new();
    for session in 0..row.calls {
        let begins =
            begins + Medium::Voice.since_first(1).mul_f64(session as f64 / row.calls as f64);
        let schedule = Schedule { medium: Medium::Voice, begins, packets };
        let mut sender = Sender::new(session, schedule).map_err(system)?;
        let receiver = Receiver::new(session, schedule, judged.clone(), row.repair, ROUND_TRIP);
        let mut receiver = receiver.map_err(system)?;
        let room = format!("room-{session}");
        let ends =
            [(&sender.socket, &mut sender.gateway), (&receiver.socket, &mut receiver.gateway)];
        for (socket, gateway) in ends {
            let address = socket.local_addr().map_err(system)?;
            *gateway = stage.open(&offered.offer(&room, address, row.repair.is_some()))?;
        }
        calls.push(MediaCall { sender, receiver });
    }
    if Instant::now() > begins {
        return Err(format!("sessions were not open after {OPENED_WITHIN:?}"));
    }
    let (mut until, mut degraded) = (begins, 0);
    let mut play = |seconds: usize, calls: &mut [MediaCall]| {
        let has_policies = row.clients == Clients::DeclaredByPolicies;
        let step = if has_policies { LOOK_EVERY_S } else { seconds };
        for from in (0..seconds).step_by(step) {
            until += Duration::from_secs(step.min(seconds - from) as u64);
            run(calls, until, Some(NAP)).map_err(system)?;
            if has_policies {
                degraded = degraded.max(stage.degraded()?);
            }
        }
        Ok::<(), String>(())
    };
    play(CALM_S, &mut calls)?;
    begin(row.percent, row.seeds);
    play(LEARNING_S, &mut calls)?;
    for seed in 0..row.seeds {
        begin(row.percent, seed);
        play(JUDGED_S, &mut calls)?;
    }
    begin(0, 0);
    play(REST_S, &mut calls)?;
    run(&mut calls, until + LATENCY, Some(NAP)).map_err(system)?;
    let left = |minute_begins: usize| {
        let numbers = minute_begins..minute_begins + minute;
        let of_calls = calls.iter().map(|MediaCall { receiver, .. }| {
            percent_of(&numbers, 1, |number| !receiver.has(number))
        });
        of_calls.sum::<f64>() / row.calls as f64
    };
    let judged_logs = legs.iter().map(|leg| {
        let mut logs = leg.logs();
        logs.drain(2..2 + row.seeds as usize).collect::<Vec<LegLog>>()
    });
    let logs: Vec<Vec<LegLog>> = judged_logs.collect();
    let receptions = || calls.iter().map(|call| call.receiver.reception);
    let of_senders: u64 = calls.iter().map(|call| call.sender.resent).sum();
    let of_receivers = receptions().map(|it| it.repeated + it.red_blocks).sum::<u64>();
    let of_clients = ClientFigures {
        left: judged.step_by(minute).map(left).collect(),
        repairs: of_senders + of_receivers,
        degraded,
        wrong: receptions().map(|reception| reception.wrong).sum(),
    };
    Ok(judge(row, &logs, &of_clients, limits))
}

/// The figures of all clients of a row.
#[derive(Clone, Debug)]
struct ClientFigures {
    /// Packets that did not arrive in time, by minute, in per cent.
    left: Vec<f64>,
    /// Repairs on the paths of clients.
    repairs: u64,
    /// The most sessions with a degradation in force at a time.
    degraded: usize,
    wrong: u64,
}

/// `logs`: of each leg, and each judged minute.
fn judge(
    row: &LegRow,
    logs: &[Vec<LegLog>],
    of_clients: &ClientFigures,
    limits: &RowLimits,
) -> AcceptanceRow {
    let packets_per_s = row.calls as f64 * Medium::Voice.frames_per_second() as f64;
    let bound: Vec<f64> = match logs {
        [one, other] => one
            .iter()
            .zip(other)
            .map(|(one, other)| {
                let lost = one.lost_packets.intersection(&other.lost_packets).count();
                100.0 * lost as f64 / (packets_per_s * JUDGED_S as f64)
            })
            .collect(),
        _ => logs.iter().flatten().map(LegLog::bound).collect(),
    };
    let mut row = AcceptanceRow::new(row.id);
    let mut set = |name: &str, values: Vec<f64>| {
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        set_figure(&mut row, name, mean, &values);
        mean
    };
    let of = |figure: fn(&LegLog) -> f64| logs.iter().flatten().map(figure).collect::<Vec<f64>>();
    set("lost_before", of(LegLog::lost));
    set("lost_after", of_clients.left.clone());
    set("control", of(LegLog::lost));
    set("bound", bound);
    set("parity", of(LegLog::repairs));
    set("bytes_over", of(LegLog::bytes_over));
    let rate = set("bundles_per_s", of(|log| log.bundle_count() as f64 / JUDGED_S as f64));
    row.set_figure("repairs_on_clean_path", Some(of_clients.repairs as f64));
    row.set_figure("degraded", Some(of_clients.degraded as f64));
    row.limit_by("lost_after", limits, "left");
    for name in ["parity", "repairs_on_clean_path", "degraded"] {
        row.limit_by(name, limits, name);
    }
    if !BUNDLES_OF_PACKETS.contains(&(rate / packets_per_s)) {
        row.not_measured = Some(format!("the leg had {rate:.0} bundles a second"));
    }
    row.judge();
    let wrong = of_clients.wrong;
    let strange = (wrong > 0).then(|| format!("{wrong} packets are none that the sender sent"));
    row.miss(strange.into_iter().collect());
    row
}

#[cfg(test)]
mod tests {
    use evenkeel_report::LimitTable;

    use super::super::leg::SentPacket;
    use super::super::leg::tests::log;
    use super::*;

    fn limits(row: &LegRow) -> RowLimits {
        let ids = super::super::ids();
        LimitTable::load().unwrap().rows_of("media", &ids).unwrap().of(row.id)
    }

    fn clients(left: f64) -> ClientFigures {
        ClientFigures { left: vec![left; 2], repairs: 0, degraded: 0, wrong: 0 }
    }

    #[test]
    fn leg_is_judged_by_packets_that_are_left() {
        let (row, limits) = (&ROWS[0], limits(&ROWS[0]));
        let log_of_minute = log(120_000, |number, is_repair| !is_repair && number % 20 == 3);
        let logs = [vec![log_of_minute; 2]];
        let held_with = |of_clients: &ClientFigures| judge(row, &logs, of_clients, &limits).held;
        let held = judge(row, &logs, &clients(0.16), &limits);
        let figure = |name: &str| held.figure(name).unwrap();
        assert_eq!(["lost_before", "control", "parity"].map(figure), [5.0, 5.0, 20.0]);
        assert_eq!(figure("bundles_per_s"), 2_000.0);
        // No parity follows the last packet.
        assert!(figure("bound") < 0.001);
        assert_eq!([held.held, held_with(&clients(0.17))], [Some(true), Some(false)]);
        assert_eq!(held_with(&ClientFigures { wrong: 1, ..clients(0.1) }), Some(false));
        let few = [vec![log(1_000, |_, _| false)]];
        assert!(judge(row, &few, &clients(0.1), &limits).not_measured.is_some());
    }

    #[test]
    fn packet_that_both_legs_lost_is_left() {
        let (row, limits) = (&ROWS[1], limits(&ROWS[1]));
        let losing = |first: u64| {
            let mut log = log(30_000, |number, _| number % 20 == 3);
            let numbers = first..first + 1_500;
            log.lost_packets = numbers.map(|number| SentPacket { session: 1, number }).collect();
            log
        };
        let row = judge(row, &[vec![losing(0)], vec![losing(1_440)]], &clients(0.3), &limits);
        let figure = |name: &str| row.figure(name).unwrap();
        assert_eq!((figure("bound"), figure("lost_before"), row.held), (0.2, 5.0, Some(true)));
    }

    #[test]
    fn loss_of_the_leg_alone_changes_nothing_at_clients() {
        let (row, limits) = (&ROWS[2], limits(&ROWS[2]));
        let logs = [vec![log(30_000, |number, is_repair| !is_repair && number % 5 == 3)]];
        let held = |of_clients: &ClientFigures| judge(row, &logs, of_clients, &limits).held;
        assert_eq!(held(&clients(12.0)), Some(true), "whatever the leg loses");
        assert_eq!(held(&ClientFigures { repairs: 1, ..clients(12.0) }), Some(false));
        assert_eq!(held(&ClientFigures { degraded: 1, ..clients(12.0) }), Some(false));
    }
}
