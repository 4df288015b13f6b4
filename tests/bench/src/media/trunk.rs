//! The row of a trunk leg that loses datagrams on the way to the node. The paths of clients are clean.

use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::{Duration, Instant};

use evenkeel_lab::relay::Direction;
use evenkeel_report::{AcceptanceRow, RowLimits};

use super::clients::{Receiver, Schedule, Sender};
use super::leg::{Leg, LegLog};
use super::losses::{Losses, percent_of};
use super::row::{LATENCY, MediaRow, Medium, ROUND_TRIP, Repair, set_figure};
use super::stage::{Clients, MediaStage};
use super::{CALM_S, JUDGED_S, LEARNING_S, MediaCall, OPENED_WITHIN, REST_S, SEEDS, run};

pub(super) const ID: &str = "trunk.random";

/// Calls, which send at different times: 2,000 packets a second, and so as many bundles.
const CALLS: u64 = 40;
const LOST_PERCENT: u32 = 5;
/// Shorter than the time between two packets of all calls.
const NAP: Duration = Duration::from_micros(150);
/// Bundles a second: those of media, and some with reports.
const BUNDLES_PER_S: RangeInclusive<f64> = 1_900.0..=2_400.0;

/// The offers of clients, which declare no repair.
const OFFERED: MediaRow = MediaRow {
    ids: &[ID],
    medium: Medium::Voice,
    direction: Direction::Down,
    losses: Losses::NONE,
    repair: Repair::Nack,
    round_trip: ROUND_TRIP,
};

/// Plays the row: minutes with one seed after another, on one leg.
///
/// # Errors
/// The gateway fails, or does not open all sessions in time.
pub(super) fn measure(
    evenkeel: &Path,
    folder: &Path,
    limits: &RowLimits,
) -> Result<AcceptanceRow, String> {
    let system = |error: io::Error| error.to_string();
    let second = Medium::Voice.frames_per_second();
    let first = (CALM_S + LEARNING_S) * second;
    let minute = JUDGED_S * second;
    let judged = first..first + SEEDS as usize * minute;
    let packets = judged.end + REST_S * second;
    let mut started = None;
    let mut stage = MediaStage::start(evenkeel, folder, Clients::Declared, |node| {
        let leg = started.insert(Leg::start(node)?);
        Ok(leg.near())
    })?;
    let leg = started.as_ref().ok_or("the stage has no leg")?;
    let begins = Instant::now() + OPENED_WITHIN;
    let mut calls = Vec::new();
    for session in 0..CALLS {
        let begins = begins + Medium::Voice.since_first(1).mul_f64(session as f64 / CALLS as f64);
        let schedule = Schedule { medium: Medium::Voice, begins, packets };
        let mut sender = Sender::new(session, schedule).map_err(system)?;
        let receiver = Receiver::new(session, schedule, judged.clone(), None, ROUND_TRIP);
        let mut receiver = receiver.map_err(system)?;
        let room = format!("room-{session}");
        let ends =
            [(&sender.socket, &mut sender.gateway), (&receiver.socket, &mut receiver.gateway)];
        for (socket, gateway) in ends {
            let address = socket.local_addr().map_err(system)?;
            *gateway = stage.open(&OFFERED.offer(&room, address, false))?;
        }
        calls.push(MediaCall { sender, receiver });
    }
    if Instant::now() > begins {
        return Err(format!("sessions were not open after {OPENED_WITHIN:?}"));
    }
    let mut until = begins;
    let mut play = |seconds: usize, calls: &mut [MediaCall]| {
        until += Duration::from_secs(seconds as u64);
        run(calls, until, Some(NAP)).map_err(system)
    };
    play(CALM_S, &mut calls)?;
    leg.begin(LOST_PERCENT, SEEDS);
    play(LEARNING_S, &mut calls)?;
    for seed in 0..SEEDS {
        leg.begin(LOST_PERCENT, seed);
        play(JUDGED_S, &mut calls)?;
    }
    leg.begin(0, 0);
    play(REST_S, &mut calls)?;
    run(&mut calls, until + LATENCY, Some(NAP)).map_err(system)?;
    let left = |minute_begins: usize| {
        let numbers = minute_begins..minute_begins + minute;
        let of_calls = calls.iter().map(|MediaCall { receiver, .. }| {
            percent_of(&numbers, 1, |number| !receiver.has(number))
        });
        of_calls.sum::<f64>() / CALLS as f64
    };
    let left: Vec<f64> = judged.step_by(minute).map(left).collect();
    let wrong: u64 = calls.iter().map(|call| call.receiver.reception.wrong).sum();
    let logs = leg.logs();
    Ok(judge(&logs[2..2 + SEEDS as usize], &left, wrong, limits))
}

/// `logs`, `left`: of each judged minute; `left` in per cent of the packets of all calls.
fn judge(logs: &[LegLog], left: &[f64], wrong: u64, limits: &RowLimits) -> AcceptanceRow {
    let mut row = AcceptanceRow::new(ID);
    let mut set = |name: &str, values: Vec<f64>| {
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        set_figure(&mut row, name, mean, &values);
        mean
    };
    let of = |figure: fn(&LegLog) -> f64| logs.iter().map(figure).collect::<Vec<f64>>();
    set("lost_before", of(LegLog::lost));
    set("lost_after", left.to_vec());
    set("control", of(LegLog::lost));
    set("bound", of(LegLog::bound));
    set("parity", of(LegLog::repairs));
    set("bytes_over", of(LegLog::bytes_over));
    let rate = set("bundles_per_s", of(|log| log.bundle_count() as f64 / JUDGED_S as f64));
    row.limit_by("lost_after", limits, "left");
    row.limit_by("parity", limits, "parity");
    if !BUNDLES_PER_S.contains(&rate) {
        row.not_measured = Some(format!("the leg had {rate:.0} bundles a second"));
    }
    row.judge();
    let strange = (wrong > 0).then(|| format!("{wrong} packets are none that the sender sent"));
    row.miss(strange.into_iter().collect());
    row
}

#[cfg(test)]
mod tests {
    use evenkeel_report::LimitTable;

    use super::super::leg::tests::log;
    use super::*;

    #[test]
    fn leg_is_judged_by_packets_that_are_left() {
        let ids = super::super::ids();
        let limits = LimitTable::load().unwrap().rows_of("media", &ids).unwrap().of(ID);
        let logs = vec![log(120_000, |number, is_repair| !is_repair && number % 20 == 3); 2];
        let row = |left: f64| judge(&logs, &[left, left], 0, &limits);
        let held = row(0.16);
        let figure = |name: &str| held.figure(name).unwrap();
        assert_eq!(["lost_before", "control", "parity"].map(figure), [5.0, 5.0, 20.0]);
        assert_eq!((figure("bundles_per_s"), figure("bound")), (2_000.0, 0.0));
        assert_eq!([held.held, row(0.17).held], [Some(true), Some(false)]);
        assert_eq!(judge(&logs, &[0.1, 0.1], 1, &limits).held, Some(false));
        let few = [log(1_000, |_, _| false)];
        assert!(judge(&few, &[0.1], 0, &limits).not_measured.is_some());
    }
}
