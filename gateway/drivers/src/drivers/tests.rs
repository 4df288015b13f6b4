use std::time::Duration;

use evenkeel_config::{ConfigBitRate, DriverSettings, NodeProbe, NodeSrtp, SecretFile, Signalling};
use evenkeel_dataplane::flows::Home;
use evenkeel_dataplane::worker::NodeLeg;
use evenkeel_media::trunk::Tag;
use evenkeel_media::trunk::message::{NodeSecret, OpenStatus, TrunkAnswer, TrunkQuestion};
use evenkeel_model::{Incarnation, RoomId, Srtp};

use super::*;
use crate::session::Transport;

const HOP: Hop = Hop { node: NodeId(0), incarnation: Incarnation(1) };
const SESSION: SessionId = SessionId(7);
const WORKER: u16 = 3;
const HOME: Home = Home { worker: WORKER, slot: 5, generation: 1 };

const SECRET: &[u8] = b"a secret of some length";

fn secret() -> NodeSecret {
    NodeSecret::new(SECRET, "east-a1").unwrap()
}

fn node(address: SocketAddr, driver: DriverSettings) -> NodeConfig {
    NodeConfig::new(
        "east-a1".into(),
        address,
        "east".into(),
        "a".into(),
        driver,
        ConfigBitRate(1_000_000),
    )
}

fn plain(address: SocketAddr) -> NodeConfig {
    node(address, DriverSettings::new("plain", NodeProbe::Stun, Signalling::None))
}

fn agent() -> NodeConfig {
    let secret = SecretFile::new(SECRET.to_vec());
    let trunk = Signalling::Trunk { secret, encrypt: false };
    let driver = DriverSettings::new("agent", NodeProbe::Signed, trunk);
    node(([10, 0, 0, 9], 4_000).into(), driver)
}

fn at(start: Instant, ms: u64) -> Clock {
    Clock { now: start + Duration::from_millis(ms), unix_us: 1_000_000_000 + ms * 1_000 }
}

fn wish() -> OpenRequest<'static> {
    let (session, room, hop) = (SESSION, RoomId(1), HOP);
    let (client_srtp, srtp) = (Srtp::Plain, NodeSrtp::Off);
    OpenRequest {
        session,
        home: HOME,
        room,
        hop,
        address: None,
        rtcp_apart: true,
        client_srtp,
        srtp,
        facts: None,
    }
}

fn question(act: Option<DriverAction>, clock: Clock) -> (TrunkQuestion, u64) {
    let Some(DriverAction::Send {
        transport: Transport::Trunk { worker: WORKER, .. },
        bytes: message,
        ..
    }) = act
    else {
        panic!("{act:?}")
    };
    let verified = TrunkQuestion::read(&message, &secret(), clock.unix_us).unwrap();
    (verified.message, verified.nonce)
}

fn answer(status: OpenStatus, tag: Tag, nonce: u64, clock: Clock) -> Vec<u8> {
    let mut message = Vec::new();
    TrunkAnswer::Open { tag, status }.write(&secret(), nonce, clock.unix_us, &mut message);
    message
}

fn opening(start: Instant) -> (Drivers, Tag, u64) {
    let mut drivers = driven(&[agent()]);
    let mut next = 40;
    let mut draw = || {
        next += 1;
        next
    };
    let (asked, nonce) = question(drivers.open(&wish(), &mut draw, at(start, 0)), at(start, 0));
    let TrunkQuestion::Open { session: 7, tag, numbered: true, .. } = asked else {
        panic!("{asked:?}")
    };
    (drivers, tag, nonce)
}

/// The drivers of these nodes, by number.
fn driven(nodes: &[NodeConfig]) -> Drivers {
    let mut drivers = Drivers::new(crate::DRIVERS, LocalSource::Routed(|_| None), Arc::default());
    for (id, node) in (0..).map(NodeId).zip(nodes) {
        drivers.put(id, Some(node));
    }
    drivers
}

/// Handles what the node's agent signed.
fn signed(
    drivers: &mut Drivers,
    node: NodeId,
    message: &[u8],
    clock: Clock,
) -> Option<DriverAction> {
    drivers.handle(node, NodeInput::Signed(message.into()), &mut || 9, clock)
}

#[test]
fn answered_opening_is_kept_open() {
    let start = Instant::now();
    let (mut drivers, tag, nonce) = opening(start);
    let opened = signed(
        &mut drivers,
        HOP.node,
        &answer(OpenStatus::Ok, tag, nonce, at(start, 1)),
        at(start, 1),
    );
    assert!(
        matches!(opened, Some(DriverAction::Opened { session: SESSION, hop: HOP, leg: NodeLeg::Trunk(t) }) if t == tag)
    );
    assert!(drivers.poll(at(start, 2)).is_none());
    let again = answer(OpenStatus::Ok, tag, nonce, at(start, 3));
    assert!(signed(&mut drivers, HOP.node, &again, at(start, 3)).is_none(), "it is open already");
    assert!(drivers.poll(at(start, 8_002)).is_none());
    let (refresh, _) = question(drivers.poll(at(start, 9_002)), at(start, 9_002));
    assert_eq!(refresh, TrunkQuestion::Keep { lease_s: 30, numbered: true, tags: [tag].into() });
}

#[test]
fn unanswered_opening_is_retried() {
    let start = Instant::now();
    let (mut drivers, tag, _) = opening(start);
    assert!(drivers.poll(at(start, 49)).is_none());
    let (again, _) = question(drivers.poll(at(start, 50)), at(start, 50));
    assert!(matches!(again, TrunkQuestion::Open { tag: same, .. } if same == tag));
}

#[test]
fn leases_at_a_node_that_left_delay_no_others() {
    let start = Instant::now();
    let mut drivers = driven(&[agent(), agent()]);
    let mut drawn = 40;
    for node in [NodeId(0), NodeId(1)] {
        let mut draw = || {
            drawn += 1;
            drawn
        };
        let wish = OpenRequest { hop: Hop { node, ..HOP }, ..wish() };
        assert!(drivers.open(&wish, &mut draw, at(start, 0)).is_some());
    }
    drivers.put(NodeId(0), None);
    let again = drivers.poll(at(start, 50));
    assert!(matches!(again, Some(DriverAction::Send { node: NodeId(1), .. })), "{again:?}");
}

#[test]
fn refusal_is_reported_and_not_retried() {
    let start = Instant::now();
    let (mut drivers, tag, nonce) = opening(start);
    let refused = signed(
        &mut drivers,
        HOP.node,
        &answer(OpenStatus::Full, tag, nonce, at(start, 1)),
        at(start, 1),
    );
    let reason = "it is full".into();
    let told = Some(DriverAction::Refused { session: SESSION, hop: HOP, unwilling: true, reason });
    assert_eq!(format!("{refused:?}"), format!("{told:?}"));
    assert!(drivers.poll(at(start, 60_000)).is_none());
}

#[test]
fn room_has_one_random_name() {
    let start = Instant::now();
    let named = |drawn: u64, rooms: &[u64]| -> Vec<u64> {
        let mut drivers = driven(&[agent()]);
        let name = |(session, room): (u64, &u64)| {
            let wish = OpenRequest { session: SessionId(session), room: RoomId(*room), ..wish() };
            let act = drivers.open(&wish, &mut || drawn, at(start, 0));
            let (asked, _) = question(act, at(start, 0));
            let TrunkQuestion::Open { room, .. } = asked else { panic!("{asked:?}") };
            room
        };
        (1..).zip(rooms).map(name).collect()
    };
    let names = named(1_000, &[1, 1, 2]);
    assert_eq!(names[0], names[1], "by all of its sessions");
    assert_ne!(names[0], names[2]);
    assert_ne!(names[0], named(1_001, &[1])[0], "another gateway's first room");
}

#[test]
fn answer_with_wrong_tag_or_node_is_ignored() {
    let start = Instant::now();
    let (mut drivers, tag, nonce) = opening(start);
    let foreign = answer(OpenStatus::Ok, Tag(tag.0 + 1), nonce, at(start, 1));
    assert!(signed(&mut drivers, HOP.node, &foreign, at(start, 1)).is_none());
    let mut forged = answer(OpenStatus::Ok, tag, nonce, at(start, 1));
    *forged.last_mut().unwrap() ^= 1;
    assert!(signed(&mut drivers, HOP.node, &forged, at(start, 1)).is_none());
    let opened = answer(OpenStatus::Ok, tag, nonce, at(start, 1));
    drivers.put(NodeId(1), Some(&agent()));
    assert!(signed(&mut drivers, NodeId(1), &opened, at(start, 1)).is_none(), "of another node");
    assert!(signed(&mut drivers, HOP.node, &opened, at(start, 1)).is_some());
}

#[test]
fn closed_session_is_not_refreshed() {
    let start = Instant::now();
    let (mut drivers, tag, _) = opening(start);
    let (closed, _) = question(drivers.close(SESSION, HOP, at(start, 1)), at(start, 1));
    assert_eq!(closed, TrunkQuestion::Close { tag });
    assert!(drivers.poll(at(start, 60_000)).is_none());
}

#[test]
fn plain_node_uses_the_address_of_the_offer() {
    let standing: SocketAddr = "10.0.0.1:4000".parse().unwrap();
    let named: SocketAddr = "10.0.0.1:5000".parse().unwrap();
    let mut drivers = driven(&[plain(standing)]);
    let mut open = |address| match drivers.open(
        &OpenRequest { address, ..wish() },
        &mut || 0,
        at(Instant::now(), 0),
    ) {
        Some(DriverAction::Opened { leg: NodeLeg::Port(port), .. }) => {
            (port.address, port.rtcp_port)
        }
        act => panic!("{act:?}"),
    };
    assert_eq!(open(None), (standing, 4_001));
    assert_eq!(open(Some(named)), (named, 5_001));
}

#[test]
fn nodes_of_a_session_may_not_share_an_address() {
    let at = |port| SocketAddr::from(([10, 0, 0, 1], port));
    let drivers = driven(&[plain(at(4_000)), plain(at(4_001)), agent()]);
    let (a, b) = (NodeId(0), NodeId(1));
    let shared = |named: &[_], rtcp_apart| drivers.shared_address(named, rtcp_apart, |_| false);
    assert_eq!(shared(&[], false), None);
    assert_eq!(shared(&[], true), Some((a, b, at(4_001))));
    assert_eq!(shared(&[(b, at(4_002))], true), None);
    assert_eq!(shared(&[(b, at(4_000))], false), Some((a, b, at(4_000))));
    let mapped = "[::ffff:10.0.0.1]:4000".parse().unwrap();
    assert!(shared(&[(b, mapped)], false).is_some());
    let tunnelled = [(NodeId(2), at(4_000))];
    assert_eq!(shared(&tunnelled, false), None, "a trunk has tags");
    let leaves = |node| node == a;
    assert_eq!(drivers.shared_address(&[], true, leaves), None, "one comes where another goes");
}

#[test]
fn lost_long_probes_shorten_bundles() {
    let start = Instant::now();
    let mut drivers = driven(&[agent()]);
    let mut limit = None;
    for turn in 1..=4 {
        let clock = at(start, turn * 30);
        assert!(limit.is_none(), "three may be lost");
        let long = NodeInput::LongBundle { worker: WORKER };
        assert!(drivers.handle(HOP.node, long, &mut || 9, clock).is_none());
        let asked: Vec<DriverAction> = std::iter::from_fn(|| drivers.poll(clock)).collect();
        let [
            DriverAction::Send {
                transport: Transport::Trunk { of_sessions: false, .. },
                bytes: long,
                ..
            },
            DriverAction::Send { bytes: short, .. },
        ] = &asked[..]
        else {
            panic!("{asked:?}")
        };
        assert_eq!((long.len(), short.len()), (1_400, 72));
        let short = TrunkQuestion::read(short, &secret(), clock.unix_us).unwrap();
        assert_eq!(short.message, TrunkQuestion::Path { bundle_max: 1_400, padding: 0 });
        let mut answer = Vec::new();
        TrunkAnswer::Path { padding: 0 }.write(&secret(), short.nonce, clock.unix_us, &mut answer);
        limit = signed(&mut drivers, HOP.node, &answer, clock);
    }
    assert!(matches!(
        limit,
        Some(DriverAction::LimitBundles { worker: WORKER, node: NodeId(0), size_max: 1_200 })
    ));
    let clock = at(start, 121);
    let (told, _) = question(drivers.poll(clock), clock);
    assert_eq!(
        told,
        TrunkQuestion::Path { bundle_max: 1_200, padding: 0 },
        "the node's shrink too"
    );
    drivers.put(HOP.node, Some(&agent()));
    let clock = at(start, 2_000);
    assert!(drivers.poll(clock).is_none(), "another node has its number: it has other ways");
}

mod configuration;
mod keeping;
