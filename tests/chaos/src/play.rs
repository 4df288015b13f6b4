//! Runs a row: starts its stage and sessions, makes a control run, and injects its fault repeatedly.

use std::collections::BTreeSet;
use std::time::Duration;

use evenkeel_client::ServerEvent;
use evenkeel_contract::events::Continued;
use evenkeel_lab::clock;
use evenkeel_lab::crowd::{Crowd, CrowdPlan, FaultEffect, InjectedFault, ObservationWindow, Scope};
use evenkeel_lab::ledger::GapSpread;
use evenkeel_testkit::capture::Capture;
use evenkeel_testkit::client_packets::{CapturedIndices, ClientPacket, RefusedPacket};
use evenkeel_testkit::namespace::First;

use crate::death_counts::DeathCounts;
use crate::fault::StartedFault;
use crate::gateways::Gateways;
use crate::hosts::longest_pauses;
use crate::limits::Limits;
use crate::newcomers::{self, Newcomers};
use crate::node_samples::NodeSampler;
use crate::offers::{self, Offers};
use crate::prediction;
use crate::process::Quiet;
use crate::processors::ProcessorWatch;
use crate::report::{Control, Played};
use crate::row::Row;
use crate::stage::{CROWD, Places, Stage};
use crate::unplaced::UnplacedRooms;
use crate::webrtc::{self, ThirdParty, ThirdPartyClients, TransportCounts, Transports};

/// Least length of the control run.
const CONTROLLED_MIN: Duration = Duration::from_millis(200);
/// A fault comes one to two times this time after the last step, so that it hits any phase of packets and detection.
const BEFORE_FAULT: Duration = Duration::from_millis(200);
/// Newcomers continue for this time after recovery.
const AFTERWARDS: Duration = Duration::from_secs(2);
/// Interval of checks that a region is idle.
const POLL_EVERY: Duration = Duration::from_millis(50);
/// A packet that a gateway sent before a fault reaches its client within this time, over an impaired link too, nanoseconds.
const ON_ITS_WAY_NS: u64 = 20_000_000;
/// Time limit of the start, and of a hand-back between faults.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);

/// Runs a row.
///
/// The row ends before its faults if its control run exceeds a limit. `busy_at` is the idle time of the processors in the control run, per cent, below which the row ends before its faults.
///
/// # Errors
/// A step failed; `played` has the measurements so far.
pub(crate) async fn play(
    row: &Row,
    places: &Places,
    seed: u64,
    limits: &Limits,
    busy_at: f64,
    played: &mut Played,
) -> Result<RowEnd, String> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let stage = Stage::set(row.layout, places, seed).await?;
    let port = stage.gateway().udp.port();
    let capture = row.webrtc.then(|| webrtc::capture(port)).transpose()?;
    let shares = row.layout.shares(row.sessions);
    let plan = plan(row, shares[0], &stage, seed);
    let crowd = Crowd::enter(&plan, || stage.admin()).await;
    let mut crowd = crowd.map_err(|error| stage.gateway().process.error(error.to_string()))?;
    for (group, share) in stage.groups().zip(shares).skip(1) {
        let entered = crowd.enter_also(share, || group.owner().admin()).await;
        entered.map_err(|error| group.owner().process.error(error.to_string()))?;
    }
    let others = match row.third_party {
        Some(kind) => Some(ThirdPartyClients::start(kind, plan.sessions, places, &stage).await?),
        None => None,
    };
    for admin in &stage.admins()[1..] {
        let watched = crowd.watch_also(admin).await;
        watched.map_err(|error| format!("the events of a standby: {error}"))?;
    }
    let _first = First::come();
    if !stage.settled(SETTLED_WITHIN).await? {
        return Err("rooms have no spares".to_owned());
    }
    let sampler = row.checks.some_unplaced.then(|| NodeSampler::begin(stage.admin()));
    let home = row.layout.carrying();
    let newcomers = row.newcomers.then(|| Newcomers::begin(stage.admin(), home));
    let mut scene =
        Scene { row, limits, stage, crowd, capture, others, newcomers, faults_ns: Vec::new() };
    scene.stage.count_media_of_standby()?;
    played.control = control(row, &mut scene).await?;
    played.of_standby += scene.stage.count_media_of_standby()?;
    if played.control.idle_percent < busy_at {
        return Ok(RowEnd::Busy);
    }
    if let Some(reason) = limits.exceeded_without_fault(&played.control) {
        return Ok(RowEnd::Unfit(reason));
    }
    let calm = played.control.longest.marked_down.clone();
    played.marked_down("during the control run", &calm, &[]);
    let mut outcome = Ok(RowEnd::Played);
    for turn in 0..row.kills {
        let phase = BEFORE_FAULT.mul_f64(rng.f64());
        let turned = scene.turn(turn, phase, played).await;
        played.sampled = sampler.as_ref().map(NodeSampler::sampled);
        if let Err(error) = turned {
            outcome = Err(error);
            break;
        }
    }
    played.transports = scene.transports();
    played.unproven.extend(scene.others.iter().flat_map(ThirdPartyClients::misses));
    outcome
}

/// The end of a row that was not broken off.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum RowEnd {
    Played,
    /// The control run took too much of the processors.
    Busy,
    /// The control run exceeded a limit, with the reason.
    Unfit(String),
}

/// The parts of a running row.
struct Scene<'a> {
    row: &'a Row,
    limits: &'a Limits,
    stage: Stage,
    crowd: Crowd,
    /// `None` without WebRTC clients.
    capture: Option<Capture<ClientPacket>>,
    /// The clients that are other programs.
    others: Option<ThirdPartyClients>,
    newcomers: Option<Newcomers>,
    /// The times of faults so far: nanoseconds since the Unix epoch.
    faults_ns: Vec<u64>,
}

/// An injected fault that has to be undone.
struct Done {
    struck: StartedFault,
    /// Sessions without a node.
    nowhere: BTreeSet<u64>,
    unplaced: UnplacedRooms,
    events: Vec<ServerEvent>,
}

impl Scene<'_> {
    /// Injects the fault, measures its effect and undoes it.
    async fn turn(
        &mut self,
        turn: u32,
        phase: Duration,
        played: &mut Played,
    ) -> Result<(), String> {
        let done = self.strike(turn, phase, played).await?;
        self.heal(done, played).await
    }

    /// The transports of WebRTC clients so far.
    fn transports(&self) -> Option<Transports> {
        let capture = self.capture.as_ref()?;
        let captured = capture.read(|packets| CapturedIndices::of(packets, capture.lost()));
        let of_lab = TransportCounts::from(self.crowd.webrtc());
        let others = self.others.as_ref();
        let refused = others.map(|others| capture.read(|packets| others.refused(packets)));
        let on_its_way =
            |packet: &RefusedPacket| packet.was_on_its_way(&self.faults_ns, ON_ITS_WAY_NS);
        let (refused_on_the_way, refused): (Vec<_>, Vec<_>) =
            refused.unwrap_or_default().into_iter().partition(on_its_way);
        let counts = others.map_or(of_lab, |others| {
            let theirs = capture.read(|packets| others.counts(packets, refused.len()));
            if others.has_lab_viewers() { of_lab.with(theirs) } else { theirs }
        });
        let sessions = self.row.sessions;
        Some(Transports { sessions, counts, captured, refused, refused_on_the_way })
    }

    /// Injects the fault and measures its effect.
    async fn strike(
        &mut self,
        turn: u32,
        phase: Duration,
        played: &mut Played,
    ) -> Result<Done, String> {
        let Scene { row, limits, stage, crowd, capture, others, faults_ns, .. } = self;
        stage.hand_back(SETTLED_WITHIN).await?;
        played.unproven.extend(stand_idle(stage, row.idle).await?);
        if let Some(others) = others {
            others.begin_observation().await?;
        }
        crowd.begin_window();
        drop(stage.gateways.passed());
        let admins = stage.admins();
        let offers = row.offers.then(|| Offers::begin(&admins, row.layout.carrying()));
        tokio::time::sleep(BEFORE_FAULT + phase).await;
        let predicted = match limits.predicts() {
            true => Some(prediction::ask(stage, &row.fault.names(stage).await?).await?),
            false => None,
        };
        let counts = match row.checks.counts_alike {
            true => Some(DeathCounts::before(stage).await?),
            false => None,
        };
        let struck = row.fault.strike(stage, crowd, turn).await?;
        faults_ns.push(struck.happened.at_ns);
        played.hellos_read.extend(struck.hellos_read);
        tokio::time::sleep(row.watched).await;
        if let Some(targets) = &predicted {
            played.predicted.compare(targets, stage).await?;
        }
        let offered = offers.map(Offers::end).unwrap_or_default();
        stage.groups_mut().try_for_each(Gateways::require)?;
        let (mut nowhere, mut unplaced) = (BTreeSet::new(), UnplacedRooms::default());
        if row.checks.some_unplaced {
            unplaced.ask(&newcomers::ask(&mut stage.admin(), row.layout.carrying(), 0).await.0);
            nowhere = stage.sessions_nowhere().await?;
        }
        // Until the next window begins, too: what is lost because a gateway lags then is lost in that window.
        let _quiet = Quiet::begin()?;
        let mut window = end_window(row, crowd).await;
        let until_ns = window.span.end;
        let mut passed = stage.gateways.passed();
        if let Scope::Sessions(hit) = &struck.happened.scope {
            passed.retain(|passed| hit.contains(&passed.session));
        }
        let up_ns = longest_pauses(&passed, struck.happened.at_ns, until_ns);
        played.gaps_up_ns.extend(up_ns);
        let taken_ns = stage.groups().filter_map(Gateways::owned_since);
        let at_ns = struck.happened.at_ns;
        played.taken_ns.extend(taken_ns.filter_map(|since| since.checked_sub(at_ns)));
        let continued = window.events.iter().filter_map(ServerEvent::data_of::<Continued>);
        played.restore_ns.extend(continued.map(|continued| continued.took_us * 1_000));
        played.moves.note(&window.events);
        if row.checks.some_unplaced {
            unplaced.add(UnplacedRooms::part(&mut window, &nowhere, struck.happened.scope.nodes()));
            unplaced.due = u64::from(row.sessions.div_ceil(2)).saturating_sub(row.layout.fits());
        }
        let mut effect = window.effect_of(&struck.happened);
        if let (Some(others), Some(capture)) = (others, &*capture) {
            let span = struck.happened.at_ns..until_ns;
            let ends = others.end_observation(capture, span).await?;
            effect.add(ends.effect);
            played.frozen_ms.extend(ends.frozen_ms);
            played.key_frames_asked.extend(ends.key_frames_asked);
        }
        if let Some(capture) = capture.as_ref().filter(|_| row.has_lab_clients()) {
            let frozen_ms = webrtc::frozen_ms(capture, struck.happened.at_ns..until_ns);
            played.frozen_ms.extend(frozen_ms);
        }
        if let Some(counts) = counts {
            let (names, events) = (&struck.names, &window.events);
            let differing = counts.differences(stage, names, events, &effect).await?;
            played.unproven.extend(differing);
        }
        let unproven = row.fault.unproven(stage, &struck, &window, &effect).await?;
        played.unproven.extend(unproven);
        played.offered += offered.len();
        played.offers_ns.extend(offered.iter().map(|offered| offered.took_ns));
        let offered: Vec<String> = offered.into_iter().map(|offered| offered.id).collect();
        played.offered_missing += stage.count_missing(offered.iter()).await?;
        offers::close(&stage.admin(), offered).await;
        played.marked_down("during the fault", &effect.marked_down, &struck.names);
        effect.detections.retain(|found| struck.names.contains(&found.node));
        played.kills.push(GapSpread::of_ns(effect.gaps_ns.clone()));
        if let Some(way) = row.fault.way(turn) {
            played.ways.entry(way).or_default().add(effect.clone());
        }
        played.faults.add(effect);
        Ok(Done { struck, nowhere, unplaced, events: window.events.to_vec() })
    }

    /// Undoes the fault and waits for recovery.
    async fn heal(&mut self, done: Done, played: &mut Played) -> Result<(), String> {
        let Scene { row, limits, stage, crowd, capture, others, newcomers, .. } = self;
        let Done { struck, nowhere, mut unplaced, mut events } = done;
        let healed_ns = clock::now_ns();
        row.fault.heal(stage, &struck).await?;
        if let Some(store) = &mut stage.store {
            played.index_ns.append(&mut store.corrected_ns);
        }
        if stage.settled(limits.settled_within()).await? {
            played.settle_ns.push(clock::now_ns() - healed_ns);
        } else {
            played.unsettled += 1;
        }
        if newcomers.is_some() {
            tokio::time::sleep(AFTERWARDS).await;
        }
        let mut window = end_window(row, crowd).await;
        played.of_standby += stage.count_media_of_standby()?;
        played.moves.note(&window.events);
        unplaced.come_back(&mut window, &nowhere, healed_ns);
        played.unplaced.add(unplaced);
        events.extend_from_slice(&window.events);
        let fault_ns = struck.happened.at_ns;
        played.tide = newcomers.as_ref().map(|all| all.tell(&events, fault_ns, healed_ns));
        let healed = InjectedFault { at_ns: healed_ns, scope: struck.happened.scope };
        let mut unfault = unfault(row, &window, &healed);
        if let (Some(others), Some(capture)) = (others, capture) {
            unfault.add(others.effect(capture, healed_ns..window.span.end));
        }
        // Until its repair the fault loses packets.
        let before = std::mem::take(&mut unfault.lost_before);
        unfault.lost -= before;
        played.faults.lost += before;
        played.marked_down("after the fault", &unfault.marked_down, &[]);
        played.unfaults.add(unfault);
        Ok(())
    }
}

/// Ends a window of the crowd. Its clients hear no stream of another program as their own.
async fn end_window(row: &Row, crowd: &mut Crowd) -> ObservationWindow {
    let mut window = crowd.end_window().await;
    if row.third_party.is_some() {
        window.forget(&window.by_id.values().copied().collect());
    }
    window
}

/// Checks that no room stays in a region where none belongs.
async fn stand_idle(stage: &Stage, long: Duration) -> Result<Option<String>, String> {
    let until = tokio::time::Instant::now() + long;
    while tokio::time::Instant::now() < until {
        if !stage.is_idle().await? {
            return Ok(Some("a region that was to be idle was not".to_owned()));
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
    Ok(None)
}

/// The plan of this number of the row's sessions.
fn plan(row: &Row, sessions: u32, stage: &Stage, seed: u64) -> CrowdPlan {
    // A client with a changing address cannot declare it.
    let stun = row.natted;
    let region = row.layout.carrying().to_owned();
    let labels = [("region".to_owned(), region)].into();
    let Row { quic, video, webrtc, webtransport, natted, both_ways, .. } = *row;
    let (rooms, scenario) = (CROWD.to_owned(), row.layout.scenario.to_owned());
    let clients_at = stage.clients_at();
    // Other programs open their own sessions.
    let own = row.third_party.map_or(0, ThirdParty::sessions);
    let mut plan = CrowdPlan::new(sessions - own);
    // Freezes of WebRTC clients are measured.
    (plan.video, plan.feedback) = (video || webrtc, webrtc);
    if row.layout.is_live() {
        plan.silent = true;
        plan.room_size = row.sessions;
    }
    CrowdPlan {
        both_ways,
        echoes: row.layout.echoes(),
        quic,
        webrtc,
        webtransport,
        natted,
        stun,
        rooms,
        scenario,
        labels,
        clients_at,
        seed,
        ..plan
    }
}

/// The effect of the repair on all sessions and on the affected nodes. If the row allows unaffected sessions to suffer,
/// only affected ones count.
fn unfault(row: &Row, window: &ObservationWindow, healed: &InjectedFault) -> FaultEffect {
    let of_the_hit = window.effect_of(healed);
    if row.checks.others_suffer.is_some() {
        return of_the_hit;
    }
    let everybody =
        window.effect_of(&InjectedFault { scope: Scope::Everybody, at_ns: healed.at_ns });
    FaultEffect { of_the_hit: of_the_hit.of_the_hit, ..everybody }
}

/// The control run, as long as a fault is observed.
async fn control(row: &Row, scene: &mut Scene<'_>) -> Result<Control, String> {
    let Scene { crowd, stage, capture, others, .. } = scene;
    if let Some(others) = others {
        others.begin_observation().await?;
    }
    crowd.begin_window();
    drop(stage.gateways.passed());
    let processors = ProcessorWatch::begin();
    let moments = clock::control_moments(row.watched.max(CONTROLLED_MIN)).await;
    let idle_percent = processors.idle_percent();
    let window = end_window(row, crowd).await;
    let first = moments.first().copied().unwrap_or(0);
    let mut longest = window.effect_of(&InjectedFault { at_ns: first, scope: Scope::Everybody });
    let (mut frozen_ms, mut frames_per_second) = (Vec::new(), None);
    if let (Some(others), Some(capture)) = (others, &*capture) {
        let ends = others.end_observation(capture, first..window.span.end).await?;
        longest.add(ends.effect);
        (frozen_ms, frames_per_second) = (ends.frozen_ms, ends.frames_per_second);
    }
    if let Some(capture) = capture.as_ref().filter(|_| row.has_lab_clients()) {
        frozen_ms.extend(webrtc::frozen_ms(capture, first..window.span.end));
    }
    let up_ns = longest_pauses(&stage.gateways.passed(), first, window.span.end);
    let gaps_ns = window.control(&moments);
    Ok(Control { gaps_ns, longest, up_ns, idle_percent, frozen_ms, frames_per_second })
}
