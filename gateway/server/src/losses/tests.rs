//! Checks of losses against a core with rooms, whose thread the test plays.

use evenkeel_config::GatewayConfig;
use evenkeel_control::{ControlRequest, NodeNames, Slice};
use evenkeel_core::{Gateway, GatewayEffect};
use evenkeel_model::{
    ClientIdentity, CoreSettings, IngressProtocol, MediaDescription, MediaStream, NodeProbing,
    NodeSettings, Offer, OfferId, PayloadType, RedundancyMode, RegionId, RegionRole, RtcpPort,
    SessionId, Srtp, Starts, StreamKind, Zone, ZoneId,
};
use evenkeel_telemetry::Telemetry;
use tokio::sync::mpsc;

use super::*;

/// Two zones with a node for one voice session each. Rooms have no spare.
fn settings() -> CoreSettings {
    let mut settings = GatewayConfig::load(None, None).unwrap().core();
    let zone = |name: &str| Zone { name: name.into(), region: RegionId(0) };
    let node = |zone: u32| NodeSettings {
        name: format!("n{zone}").into(),
        zone: ZoneId(zone),
        carrier: None,
        capacity_kbps: 100,
        probed: NodeProbing::No,
        role: RegionRole::Active,
        starts: Starts::ByItself,
        hook: evenkeel_model::HookTerms::default(),
        canary: false,
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
        payload_types: vec![PayloadType { number: 111, codec: "opus".into(), clock_rate: 48_000 }],
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
        media: Arc::new(MediaDescription {
            streams: vec![audio],
            rtcp: RtcpPort::Mux,
            srtp: Srtp::Plain,
        }),
    }
}

/// A gateway with two rooms.
fn gateway() -> Gateway {
    let now = std::time::Instant::now();
    let mut gateway = Gateway::new(settings(), now);
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
    mut requests: mpsc::Receiver<ControlRequest>,
    mut closing: mpsc::Receiver<SessionId>,
) {
    let mut gateway = gateway();
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

async fn check(follower: &mut LossFollower) {
    let nodes = follower.handle.nodes().await.unwrap();
    follower.check(&nodes).await.unwrap();
}

#[tokio::test]
async fn uncovered_loss_is_reported_once() {
    let telemetry = Telemetry::start(&GatewayConfig::load(None, None).unwrap(), "test").unwrap();
    let (handle, requests) = Handle::new(Arc::new(NodeNames::of(&settings())), Arc::default());
    let mut events = handle.events.subscribe();
    let (close, closing) = mpsc::channel(1);
    let control = tokio::spawn(answer(requests, closing));
    let mut follower = LossFollower::new(handle, telemetry.instruments());
    check(&mut follower).await;
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
    assert_eq!(places, [("node", "n0"), ("zone", &zones[0]), ("zone", &zones[1])]);
    assert!(found.iter().all(|loss| (loss.sessions, loss.unplaced) == (1, 1)), "{found:?}");
    let unplaced = telemetry.prometheus().render();
    let unplaced = unplaced.lines().filter(|line| line.starts_with("evenkeel_loss_unplaced{"));
    assert_eq!(unplaced.filter(|line| line.ends_with(" 1")).count(), 2, "for a node and a zone");
    check(&mut follower).await;
    assert_eq!(reported(), None, "the same losses");
    close.send(SessionId(1)).await.unwrap();
    check(&mut follower).await;
    assert_eq!(reported().unwrap(), []);
    drop(follower);
    control.await.unwrap();
}
