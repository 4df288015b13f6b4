//! Faults of one segment of sessions' paths each, and the segments that the gateway names.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_client::ServerEvent;
use evenkeel_lab::client::DeviceFault;
use evenkeel_lab::clock;
use evenkeel_lab::crowd::{Crowd, CrowdPlan, ObservationWindow};
use evenkeel_lab::links::Conditions;
use evenkeel_lab::relay::Direction;
use evenkeel_lab::watch::at_ns;
use evenkeel_report::{AcceptanceRow, RowLimits, SectionLimits};
use nix::sys::signal::Signal;
use serde::Serialize;

use crate::layout::{Kind, Layout};
use crate::node::Misbehaviour;
use crate::stage::{Places, Stage};
use crate::word;

/// Time within which a fault is to be named.
const NAMED_WITHIN: Duration = Duration::from_secs(5);
/// Length of a fault.
const FAULT_LASTS: Duration = Duration::from_secs(8);
/// Loss of a faulty segment, in per cent.
const LOSS_PERCENT: u32 = 10;
/// Random delay of packets in a faulty segment, which keep their order: an interarrival jitter of 22 to 37 ms.
const DELAY_MAX: Duration = Duration::from_millis(300);
/// A stopped gateway is stopped for this long in each second.
const STOPPED: Duration = Duration::from_millis(300);
/// Video frames per second of a device that falls behind.
const FRAMES: u64 = 5;
/// Clients send for this long before the first fault.
const SETTLES: Duration = Duration::from_secs(5);
const SETTLED_WITHIN: Duration = Duration::from_secs(20);
/// Time after a fault in which its impairments end: receiver reports are remembered.
const RECOVERS: Duration = Duration::from_secs(16);

/// A faulty segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FaultySegment {
    Nothing,
    Uplink,
    Downlink,
    LegUp,
    LegDown,
    Node,
    Gateway,
    Device,
    JitterUp,
    JitterDown,
    MutedMicrophone,
    KeyFrames,
}

impl FaultySegment {
    const ALL: [FaultySegment; 12] = [
        FaultySegment::Nothing,
        FaultySegment::Uplink,
        FaultySegment::Downlink,
        FaultySegment::LegUp,
        FaultySegment::LegDown,
        FaultySegment::Node,
        FaultySegment::Gateway,
        FaultySegment::Device,
        FaultySegment::JitterUp,
        FaultySegment::JitterDown,
        FaultySegment::MutedMicrophone,
        FaultySegment::KeyFrames,
    ];

    fn id(self) -> &'static str {
        match self {
            FaultySegment::Nothing => "link.none",
            FaultySegment::Uplink => "link.uplink",
            FaultySegment::Downlink => "link.downlink",
            FaultySegment::LegUp => "link.leg.up",
            FaultySegment::LegDown => "link.leg.down",
            FaultySegment::Node => "link.node",
            FaultySegment::Gateway => "link.gateway",
            FaultySegment::Device => "link.device",
            FaultySegment::JitterUp => "link.uplink.jitter",
            FaultySegment::JitterDown => "link.downlink.jitter",
            FaultySegment::MutedMicrophone => "link.none.muted",
            FaultySegment::KeyFrames => "link.device.key-frames",
        }
    }

    /// The segment that the gateway should name.
    fn segment(self) -> Option<&'static str> {
        match self {
            FaultySegment::Nothing | FaultySegment::MutedMicrophone => None,
            FaultySegment::Uplink | FaultySegment::JitterUp => Some("uplink"),
            FaultySegment::Downlink | FaultySegment::JitterDown => Some("downlink"),
            FaultySegment::LegUp | FaultySegment::LegDown => Some("leg"),
            FaultySegment::Node => Some("node"),
            FaultySegment::Gateway => Some("gateway"),
            FaultySegment::Device | FaultySegment::KeyFrames => Some("device"),
        }
    }

    /// The signs by which it may show.
    fn signs(self) -> &'static [&'static str] {
        match self {
            FaultySegment::Nothing | FaultySegment::MutedMicrophone => &[],
            FaultySegment::Uplink
            | FaultySegment::Downlink
            | FaultySegment::LegUp
            | FaultySegment::LegDown
            | FaultySegment::Node => &["loss"],
            // Sockets may overflow while the gateway is stopped.
            FaultySegment::Gateway => &["stall", "loss"],
            FaultySegment::Device => &["few-frames"],
            FaultySegment::JitterUp | FaultySegment::JitterDown => &["jitter"],
            FaultySegment::KeyFrames => &["no-key-frame"],
        }
    }

    /// The session's media suffers. Faults of clients are those of the first session of every other room.
    fn hits(self, session: u64) -> bool {
        let room_is_faulty = session.div_ceil(2) % 2 == 1;
        let is_first = session % 2 == 1;
        match self {
            FaultySegment::Nothing => false,
            // The other session hears it.
            FaultySegment::Uplink | FaultySegment::JitterUp => room_is_faulty,
            FaultySegment::Downlink
            | FaultySegment::JitterDown
            | FaultySegment::Device
            | FaultySegment::MutedMicrophone
            | FaultySegment::KeyFrames => room_is_faulty && is_first,
            FaultySegment::LegUp
            | FaultySegment::LegDown
            | FaultySegment::Node
            | FaultySegment::Gateway => true,
        }
    }

    /// The session that the gateway should name: that of the fault if it is one of a client, else the session itself.
    fn at(self, session: u64) -> u64 {
        match self {
            FaultySegment::Uplink | FaultySegment::JitterUp => session.div_ceil(2) * 2 - 1,
            _ => session,
        }
    }

    fn layout(self) -> Layout {
        match self {
            FaultySegment::Node => {
                Layout { kind: Kind::Misbehaving(Misbehaviour::Loses), ..Layout::HOT }
            }
            _ => Layout::LINKED,
        }
    }
}

/// The sessions of a fault, by the names that they got.
#[derive(Clone, Debug, Default, Serialize)]
struct NameCounts {
    /// Sessions that the fault hit.
    hit: u32,
    /// Hit sessions for which the segment was named in time.
    named: u32,
    /// Sessions without a fault, and those that were hit.
    all: u32,
    /// Sessions for which another segment was named.
    falsely: u32,
    /// From the fault until its segment was named.
    after_ms: Vec<f64>,
    /// False names, for the reader of the report.
    false_names: BTreeMap<String, u32>,
}

/// The report, `target/bench-diagnosis/report.json`.
#[derive(Debug, Default, Serialize)]
pub(crate) struct DiagnosisReport {
    rows: Vec<AcceptanceRow>,
    /// Counts of each row.
    named: BTreeMap<&'static str, NameCounts>,
}

impl DiagnosisReport {
    /// The ids of all rows.
    pub(crate) fn ids() -> Vec<&'static str> {
        FaultySegment::ALL.into_iter().map(FaultySegment::id).collect()
    }

    /// Plays each fault this often.
    pub(crate) async fn measure(
        places: &Places,
        limits: &SectionLimits,
        sessions: u32,
        rounds: u32,
        seed: u64,
    ) -> DiagnosisReport {
        let mut report = DiagnosisReport::default();
        for faulty in FaultySegment::ALL {
            let row = match play(faulty, places, sessions, rounds, seed).await {
                Ok(named) => {
                    let row = named.row(faulty, &limits.of(faulty.id()));
                    report.named.insert(faulty.id(), named);
                    row
                }
                Err(reason) => AcceptanceRow::skipped(faulty.id(), reason),
            };
            println!("{}", line(&row));
            report.rows.push(row);
        }
        report
    }
}

fn line(row: &AcceptanceRow) -> String {
    match &row.skipped {
        Some(reason) => format!("{:<22} skipped: {reason}", row.id),
        None => format!("{:<22} {:<6} {:?}", row.id, row.word(), row.figures),
    }
}

async fn play(
    faulty: FaultySegment,
    places: &Places,
    sessions: u32,
    rounds: u32,
    seed: u64,
) -> Result<NameCounts, String> {
    let stage = Stage::set(faulty.layout(), places, seed).await?;
    let plan = CrowdPlan {
        both_ways: true,
        natted: true,
        video: matches!(faulty, FaultySegment::Device | FaultySegment::KeyFrames),
        labels: [("region".to_owned(), "east".to_owned())].into(),
        seed,
        ..CrowdPlan::new(sessions)
    };
    let crowd = Crowd::enter(&plan, || stage.admin()).await;
    let mut crowd = crowd.map_err(|error| stage.gateway().process.error(error.to_string()))?;
    if !stage.settled(SETTLED_WITHIN).await? {
        return Err("rooms have no spares".to_owned());
    }
    tokio::time::sleep(SETTLES).await;
    let mut named = NameCounts::default();
    for _ in 0..rounds {
        crowd.begin_window();
        let from_ns = clock::now_ns();
        inject(faulty, true, &stage, &crowd)?;
        wait_while_faulty(faulty, &stage).await?;
        inject(faulty, false, &stage, &crowd)?;
        // Names by late reports count as well.
        tokio::time::sleep(RECOVERS).await;
        let window = crowd.end_window().await;
        named.count(faulty, &window, from_ns);
    }
    let mut admin = stage.admin();
    crowd.leave(&mut admin).await.map_err(|error| error.to_string())?;
    Ok(named)
}

fn inject(faulty: FaultySegment, begins: bool, stage: &Stage, crowd: &Crowd) -> Result<(), String> {
    let conditions = match faulty {
        _ if !begins => Conditions::default(),
        FaultySegment::JitterUp | FaultySegment::JitterDown => {
            Conditions { jitter: DELAY_MAX, ..Conditions::default() }
        }
        _ => Conditions::loss_percent(LOSS_PERCENT),
    };
    let sessions = crowd.by_id().values().copied();
    // A fault of a client is at the first session of its room.
    let firsts = sessions.filter(|session| session % 2 == 1 && faulty.hits(*session));
    let firsts: BTreeSet<u64> = firsts.collect();
    let impair = |direction| crowd.impair(&firsts, direction, conditions);
    let device = |sessions: &BTreeSet<u64>, fault| {
        let fault = if begins { fault } else { DeviceFault::default() };
        crowd.set_device_fault(sessions, fault);
    };
    let links = || stage.nodes.iter().filter_map(|node| node.link.as_ref());
    match faulty {
        FaultySegment::Nothing | FaultySegment::Gateway => {}
        FaultySegment::Uplink | FaultySegment::JitterUp => impair(Direction::Up),
        FaultySegment::Downlink | FaultySegment::JitterDown => impair(Direction::Down),
        FaultySegment::LegUp => links().for_each(|link| link.set(Direction::Up, conditions)),
        FaultySegment::LegDown => links().for_each(|link| link.set(Direction::Down, conditions)),
        FaultySegment::Node => {
            let signal = if begins { Signal::SIGUSR1 } else { Signal::SIGUSR2 };
            stage.nodes.iter().try_for_each(|node| stage.signal(&node.name, signal))?;
        }
        FaultySegment::Device => {
            let frames_per_second = Some(FRAMES);
            device(&firsts, DeviceFault { frames_per_second, ..DeviceFault::default() });
        }
        FaultySegment::MutedMicrophone => {
            device(&firsts, DeviceFault { is_muted: true, ..DeviceFault::default() });
        }
        FaultySegment::KeyFrames => {
            // The other session of the room requests what the first one does not send.
            let others = firsts.iter().map(|first| first + 1).collect();
            device(&others, DeviceFault { requests_key_frames: true, ..DeviceFault::default() });
        }
    }
    Ok(())
}

/// Waits while the fault lasts.
async fn wait_while_faulty(faulty: FaultySegment, stage: &Stage) -> Result<(), String> {
    if faulty != FaultySegment::Gateway {
        tokio::time::sleep(FAULT_LASTS).await;
        return Ok(());
    }
    let until = tokio::time::Instant::now() + FAULT_LASTS;
    while tokio::time::Instant::now() < until {
        let process = &stage.gateway().process;
        process.signal(Signal::SIGSTOP)?;
        tokio::time::sleep(STOPPED).await;
        process.signal(Signal::SIGCONT)?;
        tokio::time::sleep(Duration::from_secs(1).saturating_sub(STOPPED)).await;
    }
    Ok(())
}

impl NameCounts {
    fn count(&mut self, faulty: FaultySegment, window: &ObservationWindow, from_ns: u64) {
        let mut of: BTreeMap<u64, Vec<&ServerEvent>> = BTreeMap::new();
        for event in window.events.iter().filter(|event| event.name == "impaired") {
            if let Some(session) = window.by_id.get(&word(&event.data["session"])) {
                of.entry(*session).or_default().push(event);
            }
        }
        for session in window.by_id.values() {
            let expected = faulty.segment().filter(|_| faulty.hits(*session));
            let events = of.get(session).map_or(&[][..], Vec::as_slice);
            let named = || events.iter().filter(|event| event.data["impairment"].is_object());
            let is_right = |event: &&&ServerEvent| {
                let impairment = &event.data["impairment"];
                let at = window.by_id.get(&word(&impairment["impaired_by"]));
                impairment["segment"].as_str() == expected
                    && impairment["sign"].as_str().is_some_and(|it| faulty.signs().contains(&it))
                    && at == Some(&faulty.at(*session))
            };
            let (right, wrong) = (named().find(is_right), named().find(|event| !is_right(event)));
            self.all += 1;
            if let Some(wrong) = wrong {
                self.falsely += 1;
                let impairment = &wrong.data["impairment"];
                let name = ["segment", "sign"].map(|of| word(&impairment[of])).join(" ");
                *self.false_names.entry(name).or_default() += 1;
            }
            if expected.is_some() {
                self.hit += 1;
                let after =
                    right.map(|event| Duration::from_nanos(at_ns(event).saturating_sub(from_ns)));
                self.named += u32::from(after.is_some_and(|after| after <= NAMED_WITHIN));
                self.after_ms.extend(after.map(|after| after.as_secs_f64() * 1e3));
            }
        }
    }

    fn row(&self, faulty: FaultySegment, limits: &RowLimits) -> AcceptanceRow {
        let percent = |part: u32, of: u32| 100.0 * f64::from(part) / f64::from(of.max(1));
        let mut row = AcceptanceRow::new(faulty.id());
        row.set_figure("sessions", Some(f64::from(self.all)));
        row.set_figure("falsely_percent", Some(percent(self.falsely, self.all)));
        row.limit_scaled("falsely_percent", limits, "false_names", 100.0);
        if self.hit > 0 {
            row.set_figure("named_percent", Some(percent(self.named, self.hit)));
            row.limit_scaled("named_percent", limits, "named_within_5s", 100.0);
            let mut after = self.after_ms.clone();
            after.sort_by(f64::total_cmp);
            for (name, at) in
                [("named_p50_ms", after.len() / 2), ("named_p95_ms", after.len() * 95 / 100)]
            {
                row.set_figure(name, after.get(at).copied());
            }
        }
        row.judge();
        row
    }
}
