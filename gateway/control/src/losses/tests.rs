//! Checks of losses against a core with rooms, whose thread the test plays.

use evenkeel_config::GatewayConfig;
use evenkeel_core::{Gateway, GatewayEffect};
use evenkeel_model::{
    ClientIdentity, CoreEvent, CoreSettings, Health, Hop, Incarnation, IngressProtocol,
    MediaDescription, MediaStream, NodeProbing, NodeSettings, Offer, OfferId, PayloadType,
    RedundancyMode, RegionId, RtcpPort, SessionId, Srtp, StreamKind, Zone, ZoneId,
};
use tokio::sync::mpsc;

use super::*;
use crate::{ControlRequest, NodeNames, Slice};

/// Two zones with a node for one voice session each. Rooms have no spare.
fn settings() -> CoreSettings {
    let mut settings = GatewayConfig::load(None, None, &[]).unwrap().core();
    let zone = |name: &str| Zone { name: name.into(), region: RegionId(0) };
    let node = |zone: u32| NodeSettings {
        probed: NodeProbing::No,
        ..NodeSettings::new(format!("n{zone}"), ZoneId(zone), 100)
    };
    settings.zones = vec![zone("a"), zone("b")];
    settings.nodes = vec![node(0), node(1)];
    for scenario in settings.scenarios.values_mut() {
        scenario.bound.fill(false);
        scenario.mode = RedundancyMode::Cold;
    }
    settings
}

fn offer(number: u16) -> Offer {
    let audio = MediaStream {
        kind: StreamKind::Audio,
        payload_types: vec![PayloadType::new(111, "opus", 48_000)],
        feedback: Default::default(),
        bitrate_kbps: Some(64),
    };
    let address = ([127, 0, 0, 1], number).into();
    Offer {
        id: OfferId(number.into()),
        scenario: "call".into(),
        room: format!("r{number}").into(),
        labels: Arc::from([]),
        ingress: IngressProtocol::Udp(ClientIdentity::Declared { address, rtcp: None }),
        media: Arc::new(MediaDescription::new(vec![audio], RtcpPort::Mux, Srtp::Plain)),
    }
}

/// A gateway with two rooms.
fn gateway(settings: CoreSettings) -> Gateway {
    let now = std::time::Instant::now();
    let mut gateway = Gateway::new(settings, now);
    for number in [1, 2] {
        gateway.handle_offer(offer(number), now);
        while let Some(output) = gateway.poll_output() {
            if let GatewayEffect::Open { session, hop, .. } = output {
                gateway.handle_opened(session, hop, Ok(()), now);
            }
        }
    }
    assert_eq!(gateway.live(), 2);
    gateway
}

/// Plays control until the requests end. Closes a session at the signal.
async fn answer(
    settings: CoreSettings,
    mut requests: mpsc::Receiver<ControlRequest>,
    mut closing: mpsc::Receiver<SessionId>,
) {
    let mut gateway = gateway(settings);
    while let Some(request) = requests.recv().await {
        let now = std::time::Instant::now();
        if let Ok(session) = closing.try_recv() {
            gateway.handle_close(session, now).unwrap();
        }
        match request {
            ControlRequest::Nodes(reply) => _ = reply.send(gateway.views().nodes().collect()),
            ControlRequest::CopyNodes(reply) => {
                _ = reply.send(Box::new(gateway.records().copy_nodes()));
            }
            ControlRequest::CopyRooms { after, reply } => {
                let rooms = gateway.records().copy_rooms(after, now).next();
                let last = rooms.as_ref().map(|(id, _)| *id);
                let items = rooms.into_iter().filter_map(|(_, room)| room).collect();
                _ = reply.send(Slice { items, last });
            }
            ControlRequest::CopySessions { after, reply } => {
                let sessions = gateway.records().copy_sessions(after).next();
                let last = sessions.as_ref().map(|(id, _)| *id);
                let items = sessions.into_iter().filter_map(|(_, session)| session).collect();
                _ = reply.send(Slice { items, last });
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn check(follower: &mut LossFollower) -> LossLevels {
    let nodes = follower.handle.nodes().await.unwrap();
    follower.check(&nodes).await.unwrap()
}

/// A follower after its first check.
struct Checked {
    follower: LossFollower,
    levels: LossLevels,
    events: Receiver<Arc<EventRecord>>,
    close: mpsc::Sender<SessionId>,
    control: tokio::task::JoinHandle<()>,
}

async fn checked(settings: CoreSettings) -> Checked {
    let (handle, requests) = Handle::new(Arc::new(NodeNames::of(&settings)), Arc::default());
    let events = handle.events.subscribe();
    let (close, closing) = mpsc::channel(1);
    let control = tokio::spawn(answer(settings, requests, closing));
    let mut follower = LossFollower::new(handle);
    let levels = check(&mut follower).await;
    Checked { follower, levels, events, close, control }
}

#[test]
fn many_rooms_are_checked_less_often() {
    let second = Duration::from_secs(1);
    assert_eq!(pause(second, ROOMS_OFTEN_MAX), CHECKED_EVERY);
    assert_eq!(pause(2 * second, ROOMS_OFTEN_MAX), 100 * second);
    assert_eq!(pause(second, ROOMS_OFTEN_MAX + 1), PAUSE_MAX);
    assert_eq!(pause(60 * second, 1), PAUSE_MAX);
}

#[tokio::test]
async fn lost_spares_are_reported() {
    let mut settings = settings();
    settings.nodes.iter_mut().for_each(|node| node.capacity_kbps = 1_000);
    settings.scenarios.values_mut().for_each(|scenario| scenario.mode = RedundancyMode::Hot);
    let mut checked = checked(settings).await;
    let record = checked.events.try_recv().unwrap();
    let GatewayEvent::LossesUncovered(losses) = &record.event else { panic!("{record:?}") };
    let harms: Vec<[u32; 3]> = losses.iter().map(harm).collect();
    assert!(!harms.is_empty() && harms.iter().all(|harm| *harm == [0, 0, 2]), "{losses:?}");
    let worst = checked.levels.worst;
    assert_eq!(worst.map(|worst| worst.unprotected_rooms), [2, 2], "for a node and a zone");
    drop(checked.follower);
    checked.control.await.unwrap();
}

#[tokio::test]
async fn death_is_compared_with_the_check_before() {
    let Checked { mut follower, mut events, close, control, .. } = checked(settings()).await;
    let death = CoreEvent::Node {
        hop: Hop { node: NodeId(0), incarnation: Incarnation(1) },
        from: Health::Up,
        to: Health::Down,
        witnesses: Vec::new(),
        last_heard: None,
        rooms: 1,
    };
    follower.handle.publish(GatewayEvent::Core(death));
    // The death is still unread when a check ends that finds no rooms.
    for session in [1, 2] {
        close.send(SessionId(session)).await.unwrap();
        check(&mut follower).await;
    }
    let later = SystemTime::now() + Duration::from_secs(6);
    let ended = follower.faults.end(unix_us(later));
    follower.publish(ended);
    let compared =
        std::iter::from_fn(|| events.try_recv().ok()).find_map(|record| match &record.event {
            GatewayEvent::LossCompared(compared) => Some(compared.clone()),
            _ => None,
        });
    let compared = *compared.unwrap();
    let predicted = compared.predicted.unwrap();
    assert_eq!((&*predicted.place, predicted.figures.sessions), ("n0", 1));
    assert_eq!(compared.actual, LossFigures::default(), "no room moved");
    drop(follower);
    control.await.unwrap();
}

#[tokio::test]
async fn uncovered_loss_is_reported_once() {
    let Checked { mut follower, levels, mut events, close, control } = checked(settings()).await;
    let mut reported = || match events.try_recv() {
        Ok(record) => match &record.event {
            GatewayEvent::LossesUncovered(losses) => Some(losses.clone()),
            other => panic!("{other:?}"),
        },
        Err(_) => None,
    };
    let found = reported().unwrap();
    let places: Vec<(&str, &str)> =
        found.iter().map(|loss| (loss.scope.name(), &*loss.place)).collect();
    let region = settings().regions[0].clone();
    let zones = ["a", "b"].map(|zone| format!("{region}/{zone}"));
    let right = [("node", "n0"), ("node", "n1"), ("zone", &zones[0]), ("zone", &zones[1])];
    assert_eq!(places, right);
    let figures = LossFigures { rooms: 1, sessions: 1, unplaced_sessions: 1, reduced_sessions: 0 };
    assert!(found.iter().all(|loss| loss.figures == figures), "{found:?}");
    let unplaced = levels.worst.map(|worst| worst.unplaced_sessions);
    assert_eq!(unplaced, [1, 1], "for a node and a zone");
    check(&mut follower).await;
    assert_eq!(reported(), None, "the same losses");
    close.send(SessionId(1)).await.unwrap();
    check(&mut follower).await;
    assert_eq!(reported().unwrap(), []);
    drop(follower);
    control.await.unwrap();
}
