//! Circuit breakers of clients, with a single region of nodes.

use std::time::Duration;

use evenkeel_model::{
    BreakerMode, BreakerState, ClientGroup, ClientLabel, CoreEvent, CoreSettings, FlowCounts,
    IngressProtocol, Measures, NewcomerAction, NodeId, OfferId, OfferRefusal, SessionId,
    StreamKind,
};

use super::super::GatewayEffect;
use super::*;

/// Packets of voice in 100 ms.
const PACKETS: u32 = 5;

fn with_action(action: NewcomerAction) -> CoreSettings {
    let mut settings = settings_of(&[(0, 1_000_000), (0, 1_000_000)]);
    settings.regions.truncate(1);
    settings.zones.truncate(1);
    settings.carriers = vec!["ct".into()];
    settings.limits.client_breakers.action = action;
    settings
}

/// Thirty calls each of clients of two carriers.
struct Carriers {
    world: World,
    ct: Vec<SessionId>,
    cu: Vec<SessionId>,
    /// The clients of the second carrier send media.
    cu_sends: bool,
    /// The loss in their receiver reports, if they send any.
    cu_reports_ppm: Option<u32>,
}

impl Carriers {
    fn new(action: NewcomerAction) -> Carriers {
        let mut carriers = Carriers {
            world: World::new(with_action(action)),
            ct: Vec::new(),
            cu: Vec::new(),
            cu_sends: true,
            cu_reports_ppm: None,
        };
        for number in 0..30 {
            let ct = carriers.offer("ct", &format!("ct{number}"));
            let cu = carriers.offer("cu", &format!("cu{number}"));
            carriers.ct.push(carriers.world.accepted(ct).session);
            carriers.cu.push(carriers.world.accepted(cu).session);
        }
        carriers
    }

    /// An offer of voice and video by a client of this carrier.
    fn offer(&mut self, carrier: &str, room: &str) -> OfferId {
        self.world.labels = [("carrier".into(), carrier.into())].into();
        let streams = [(StreamKind::Audio, 111, None), (StreamKind::Video, 96, None)];
        self.world.offer_with(room, "call", &streams, IngressProtocol::Quic)
    }

    /// Media flows, with one packet lost of `lost_of` on the uplinks of the first carrier; 0: none.
    fn flow(&mut self, ms_: u64, lost_of: u32) {
        for turn in 1..=ms_ / 100 {
            self.world.pass(ms(100));
            let (now, packets) = (self.world.now, turn as u32 * PACKETS);
            let lost = |of: u32| match of {
                0 => 0,
                of => packets / of - (packets - PACKETS) / of,
            };
            let cu_packets = if self.cu_sends { PACKETS } else { 0 };
            let lost_up = lost(lost_of);
            let ct = FlowCounts { sent: [PACKETS - lost_up, 0], lost_up, ..FlowCounts::default() };
            let client_ppm = self.cu_reports_ppm;
            let cu = FlowCounts { sent: [cu_packets, 0], client_ppm, ..FlowCounts::default() };
            for (sessions, client) in [(&self.ct, ct), (&self.cu, cu)] {
                for &session in sessions {
                    let room = self.world.gateway.tables.sessions[&session].room();
                    let flow = FlowCounts {
                        received: [PACKETS, 0],
                        hears: self.world.gateway.stands_at(room),
                        expected: PACKETS,
                        ..client
                    };
                    self.world.gateway.handle_summary(session, Measures::default(), Some(now));
                    self.world.gateway.handle_flow(session, &flow, now);
                }
            }
            self.world.settle();
        }
    }

    fn changes(&self) -> Vec<(&str, BreakerState)> {
        let changes = self.world.events().filter_map(|event| match event {
            CoreEvent::ClientBreaker { group, to, .. } => Some((&*group.value, *to)),
            _ => None,
        });
        changes.collect()
    }

    fn reply(&self, offer: OfferId) -> Option<OfferRefusal> {
        denied(self.world.replies.get(&offer))
    }

    /// The session is sent no video.
    fn is_voice_only(&self, session: SessionId) -> bool {
        self.world.gateway.tables.sessions[&session].plan_in_force().limits.withholds(96)
    }
}

fn ct() -> ClientGroup {
    ClientGroup { label: ClientLabel::Carrier, value: "ct".into() }
}

#[test]
fn newcomers_of_bad_carrier_are_refused() {
    let mut carriers = Carriers::new(NewcomerAction::Refuse);
    carriers.flow(3_000, 0);
    assert_eq!(carriers.changes(), []);
    carriers.flow(8_000, 5);
    assert_eq!(carriers.changes(), [("ct", BreakerState::Open)]);
    let refused = carriers.offer("ct", "new");
    let Some(OfferRefusal::ClientsImpaired { group, retry_after }) = carriers.reply(refused) else {
        panic!("{:?}", carriers.reply(refused))
    };
    assert_eq!(group, ct());
    assert!((ms(2_000)..ms(20_000)).contains(&retry_after), "{retry_after:?}");
    let other = carriers.offer("cu", "other");
    assert_eq!(carriers.reply(other), None, "the other carrier is admitted");
    let live =
        carriers.ct.iter().filter(|id| carriers.world.gateway.views().mode_of(**id).is_some());
    assert_eq!(live.count(), 30, "established calls stay");
    carriers.flow(25_000, 0);
    let (half, closed) = (BreakerState::HalfOpen, BreakerState::Closed);
    assert_eq!(carriers.changes()[1..], [("ct", half), ("ct", closed)]);
    let admitted = carriers.offer("ct", "again");
    assert_eq!(carriers.reply(admitted), None);
}

/// The breaker opens only if the other carrier fares better, which is unknown without media and reports of its clients.
#[test]
fn clients_without_packets_and_reports_are_not_judged() {
    for (cu_sends, cu_reports_ppm, opens) in
        [(true, None, true), (false, None, false), (false, Some(0), true)]
    {
        let carriers = Carriers::new(NewcomerAction::Refuse);
        let mut carriers = Carriers { cu_sends, cu_reports_ppm, ..carriers };
        carriers.flow(11_000, 5);
        let opened = carriers.changes().contains(&("ct", BreakerState::Open));
        assert_eq!(opened, opens, "{cu_sends} {cu_reports_ppm:?}");
    }
}

/// These clients send no media.
#[test]
fn loss_in_receiver_reports_opens_the_breaker() {
    let mut carriers = Carriers::new(NewcomerAction::Refuse);
    (carriers.cu_sends, carriers.cu_reports_ppm) = (false, Some(100_000));
    carriers.flow(11_000, 0);
    assert_eq!(carriers.changes(), [("cu", BreakerState::Open)]);
}

#[test]
fn voice_only_newcomers_get_video_once_recovered() {
    let mut carriers = Carriers::new(NewcomerAction::VoiceOnly);
    carriers.flow(9_000, 5);
    let [limited, other] = [("ct", "new"), ("cu", "other")].map(|(carrier, room)| {
        let offer = carriers.offer(carrier, room);
        carriers.world.accepted(offer).session
    });
    let sender = carriers.offer("cu", "new");
    let sender = carriers.world.accepted(sender).session;
    carriers.world.labels = [("carrier".into(), "ct".into())].into();
    let without_video = carriers.world.open("voice");
    let established = carriers.ct[0];
    assert!(carriers.is_voice_only(limited));
    assert!(!carriers.is_voice_only(other) && !carriers.is_voice_only(established));
    let send_caps = |carriers: &Carriers| {
        let sessions = &carriers.world.gateway.tables.sessions;
        [limited, other, sender].map(|id| sessions[&id].plan_in_force().limits.send_kbps)
    };
    assert_eq!(
        send_caps(&carriers),
        [24, 0, 24],
        "the scenario's floor, for the other of the room as well"
    );
    let views = carriers.world.gateway.views();
    let explained = |id| views.explain(id, carriers.world.now).unwrap().voice_only_for;
    assert_eq!([limited, other, without_video].map(explained), [Some(ct()), None, None]);
    let standing: Vec<_> = views.client_breakers(carriers.world.now).collect();
    assert_eq!((standing.len(), standing[0].voice_only_sessions), (1, 1));
    carriers.flow(25_000, 0);
    assert_eq!(carriers.changes().last(), Some(&("ct", BreakerState::Closed)));
    assert!(!carriers.is_voice_only(limited));
    assert_eq!(send_caps(&carriers), [0; 3]);
    let shows = |output: &GatewayEffect| match output {
        GatewayEffect::Plan { session, limits, .. } => *session == limited && !limits.withholds(96),
        _ => false,
    };
    assert!(carriers.world.outputs.iter().any(shows), "its worker is told");
    let requests = |output: &GatewayEffect| match output {
        GatewayEffect::KeyFrame(senders) => *senders == [sender],
        _ => false,
    };
    assert!(carriers.world.outputs.iter().any(requests), "video starts with a key frame");
    assert_eq!(carriers.world.gateway.views().client_breakers(carriers.world.now).count(), 0);
}

#[test]
fn video_dropped_by_policy_stays_dropped() {
    let mut carriers = Carriers::new(NewcomerAction::VoiceOnly);
    carriers.flow(9_000, 5);
    let offer = carriers.offer("ct", "new");
    let limited = carriers.world.accepted(offer).session;
    let session = carriers.world.gateway.tables.sessions.get_mut(&limited).unwrap();
    session.replan(session.plan_now());
    carriers.flow(25_000, 0);
    assert_eq!(carriers.changes().last(), Some(&("ct", BreakerState::Closed)));
    assert!(carriers.is_voice_only(limited));
    let degraded = |event: &CoreEvent| match event {
        CoreEvent::Degraded { session, .. } => *session == limited,
        _ => false,
    };
    assert!(!carriers.world.events().any(degraded), "its plan is the same");
}

#[test]
fn ended_voice_only_session_is_forgotten() {
    let mut carriers = Carriers::new(NewcomerAction::VoiceOnly);
    carriers.flow(9_000, 5);
    let offer = carriers.offer("ct", "new");
    let limited = carriers.world.accepted(offer).session;
    carriers.world.close(limited);
    let standing = carriers.world.gateway.views().client_breakers(carriers.world.now).next();
    assert_eq!(standing.unwrap().voice_only_sessions, 0);
}

/// Loss on the leg to the node, and a downlink of another client, are not the client's.
#[test]
fn next_process_continues_breaker_and_its_sessions() {
    let mut carriers = Carriers::new(NewcomerAction::VoiceOnly);
    carriers.flow(9_000, 5);
    let offer = carriers.offer("ct", "new");
    let limited = carriers.world.accepted(offer).session;
    carriers.world.outputs.clear();
    carriers.world.hand_over(Duration::ZERO);
    assert_eq!(carriers.changes(), [("ct", BreakerState::Open)], "new to this process");
    let offer = carriers.offer("ct", "newer");
    let newcomer = carriers.world.accepted(offer).session;
    assert!(carriers.is_voice_only(limited) && carriers.is_voice_only(newcomer));
    carriers.flow(25_000, 0);
    assert_eq!(carriers.changes().last(), Some(&("ct", BreakerState::Closed)));
    assert!(!carriers.is_voice_only(limited) && !carriers.is_voice_only(newcomer));
}

#[test]
fn owner_that_is_heard_again_keeps_its_sessions() {
    let mut carriers = Carriers::new(NewcomerAction::VoiceOnly);
    carriers.flow(9_000, 5);
    carriers.offer("ct", "new");
    let record = carriers.world.gateway.record(carriers.world.now);
    carriers.world.restart(Duration::ZERO);
    let gateway = &mut carriers.world.gateway;
    let node = |name: &str| name[1..].parse().ok().map(NodeId);
    gateway.handle_record(record, node, carriers.world.now).unwrap();
    while gateway.poll_output().is_some() {}
    gateway.forget_restored();
    let standing = gateway.views().client_breakers(carriers.world.now).next().unwrap();
    assert_eq!((standing.breaker, standing.voice_only_sessions), ("open", 0));
}

#[test]
fn held_breaker_refuses_newcomers_until_auto() {
    let mut carriers = Carriers::new(NewcomerAction::Refuse);
    let hold = |carriers: &mut Carriers, mode| {
        let now = carriers.world.now;
        carriers.world.gateway.hold_client_breaker(&ct(), mode, now).unwrap();
        carriers.world.settle();
    };
    hold(&mut carriers, BreakerMode::Open);
    assert_eq!(carriers.changes(), [("ct", BreakerState::Open)]);
    carriers.world.hand_over(Duration::ZERO);
    carriers.flow(20_000, 0);
    let refused = carriers.offer("ct", "new");
    let Some(OfferRefusal::ClientsImpaired { retry_after, .. }) = carriers.reply(refused) else {
        panic!("{:?}", carriers.reply(refused))
    };
    assert!(retry_after >= ms(60_000), "{retry_after:?}");
    hold(&mut carriers, BreakerMode::Auto);
    carriers.flow(8_000, 0);
    let admitted = carriers.offer("ct", "again");
    assert_eq!(carriers.reply(admitted), None);
}

#[test]
fn impairment_elsewhere_opens_no_breaker() {
    let mut carriers = Carriers::new(NewcomerAction::Refuse);
    for _ in 0..100 {
        carriers.world.pass(ms(100));
        let now = carriers.world.now;
        for session in carriers.ct.clone() {
            let room = carriers.world.gateway.tables.sessions[&session].room();
            let flow = FlowCounts {
                sent: [PACKETS, 0],
                received: [PACKETS - 1, 0],
                hears: carriers.world.gateway.stands_at(room),
                expected: PACKETS,
                lost: 1,
                ..FlowCounts::default()
            };
            carriers.world.gateway.handle_flow(session, &flow, now);
        }
        carriers.world.settle();
    }
    assert_eq!(carriers.changes(), []);
    let impaired = |event: &CoreEvent| matches!(event, CoreEvent::Impaired { .. });
    assert!(carriers.world.events().any(impaired), "by the node");
}

#[test]
fn room_prefers_nodes_of_its_clients_carrier() {
    let with_carriers = |nodes: &[(u32, u64)], carriers: &[&str]| {
        let mut settings = settings_of(nodes);
        for (node, carrier) in settings.nodes.iter_mut().zip(carriers) {
            node.carrier = Some((*carrier).into());
        }
        World::new(settings)
    };
    let open = |world: &mut World, carrier: &str| {
        world.labels = [("carrier".into(), carrier.into())].into();
        let name = format!("r{}", world.gateway.live());
        world.open(&name);
        world.route(&name).into_iter().map(|(node, _)| node).collect::<Vec<_>>()
    };
    let first = |world: &mut World, carrier: &str| open(world, carrier)[0];
    let mut world = with_carriers(&[(0, 100_000), (0, 100_000), (2, 100_000)], &["ct", "cu", "cm"]);
    for (carrier, node) in [("cu", B), ("cu", B), ("ct", A), ("ct", A), ("ct", A), ("ct", A)] {
        assert_eq!(first(&mut world, carrier), node, "{carrier}");
    }
    assert_ne!(first(&mut world, "cm"), C, "the region goes before the carrier");
    let mut world = with_carriers(&[(0, 100), (0, 100_000)], &["ct", "cu"]);
    assert_eq!([first(&mut world, "ct"), first(&mut world, "ct")], [A, B], "the first is full");
    let mut world = with_carriers(&[(0, 100_000), (1, 100_000), (1, 100_000)], &["ct", "cu", "ct"]);
    assert_eq!(open(&mut world, "ct"), [A, C], "its spare as well");
}
