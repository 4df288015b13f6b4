//! Encrypted trunk legs.

use super::*;

/// An agent with encrypted trunk legs, and a gateway's socket.
fn encrypted() -> (Scene, seal::GatewaySeal) {
    let mut scene = Scene::with(|settings| settings.salt = Some(22));
    scene.agent.handle_process(true, scene.now, &mut scene.io);
    (scene, seal::GatewaySeal::new(secret(), 11))
}

/// Asks an encrypted question, and returns the encrypted answer.
fn ask(
    scene: &mut Scene,
    gateway: &mut seal::GatewaySeal,
    question: &TrunkQuestion,
) -> Option<TrunkAnswer> {
    scene.nonce += 1;
    scene.now.unix_us += 1;
    let (mut message, now_us) = (Vec::new(), scene.now.unix_us);
    question.write(&secret(), scene.nonce, now_us, &mut message);
    scene.io.sent.clear();
    scene.receive(gateway.seal(&message), 1);
    let (_, mut answer) = scene.io.sent.pop()?;
    let content = gateway.open(&mut answer, || now_us).ok()?;
    Some(TrunkAnswer::read(content, &secret(), now_us).unwrap().message)
}

fn open(tag: u64) -> TrunkQuestion {
    TrunkQuestion::Open { room: 1, session: tag, tag: Tag(tag), lease_s: 30, numbered: false }
}

fn bundle(packet: &[u8]) -> Bundle {
    let mut bundle = Bundle::new(1_400);
    assert!(bundle.push(Tag(7), packet));
    bundle
}

#[test]
fn encrypted_leg_carries_packets_both_ways() {
    let (mut scene, mut gateway) = encrypted();
    let opened = TrunkAnswer::Open { tag: Tag(7), status: OpenStatus::Ok };
    assert_eq!(ask(&mut scene, &mut gateway, &open(7)), Some(opened));
    scene.receive(gateway.seal(bundle(&voice(1)).as_bytes()), 1);
    assert_eq!(scene.io.forwarded, [(0, MediaPacket::Rtp, voice(1))]);
    scene.io.sent.clear();
    scene.agent.handle_from_server(0, &voice(2), &mut scene.io);
    scene.agent.flush(&mut scene.io);
    let [(1, sealed)] = &mut scene.io.sent[..] else { panic!("one datagram") };
    let content = gateway.open(sealed, || START_US).unwrap();
    assert_eq!(content, bundle(&voice(2)).as_bytes());
    // The result of a command that opens the session comes later.
    scene.io.opening = Some(OpeningState::Pending);
    assert_eq!(ask(&mut scene, &mut gateway, &open(8)), None);
    scene.agent.handle_opened(1, true, scene.now, &mut scene.io);
    let (_, mut answer) = scene.io.sent.pop().unwrap();
    assert!(gateway.open(&mut answer, || START_US).is_ok());
}

#[test]
fn unencrypted_media_is_refused() {
    let (mut scene, mut gateway) = encrypted();
    ask(&mut scene, &mut gateway, &open(7));
    scene.receive(bundle(&voice(1)).as_bytes(), 1);
    let mut changed = gateway.seal(bundle(&voice(1)).as_bytes()).to_vec();
    changed[40] ^= 1;
    scene.receive(&changed, 1);
    assert_eq!(scene.open(8), Some(OpenStatus::Unencrypted), "the gateway is told");
    assert!(scene.io.forwarded.is_empty());
    assert_eq!(scene.agent.counters.refused_unreadable, 3);
    let [line] = &scene.io.log[..] else { panic!("{:?}", scene.io.log) };
    assert!(line.contains("set `encrypt` at both ends") && line.contains("192.0.2.1:1"), "{line}");
    assert!(scene.probe().is_some(), "probes are signed and need no encryption");
}

#[test]
fn encrypted_media_needs_the_key() {
    let mut scene = Scene::new();
    scene.open(7);
    let mut gateway = seal::GatewaySeal::new(secret(), 11);
    scene.receive(gateway.seal(bundle(&voice(1)).as_bytes()), 1);
    assert!(scene.io.forwarded.is_empty());
    assert_eq!((scene.agent.counters.refused_unreadable, scene.io.log.len()), (1, 1));
}

#[test]
fn replayed_media_is_refused() {
    let (mut scene, mut gateway) = encrypted();
    ask(&mut scene, &mut gateway, &open(7));
    let sealed = gateway.seal(bundle(&voice(1)).as_bytes()).to_vec();
    for port in [2, 1] {
        scene.receive(&sealed, port);
    }
    let replayed = scene.agent.counters.refused_replayed;
    assert_eq!((scene.io.forwarded.len(), replayed), (1, 1), "the first copy passes");
    scene.io.sent.clear();
    scene.agent.handle_from_server(0, &voice(2), &mut scene.io);
    scene.agent.flush(&mut scene.io);
    assert_eq!(scene.io.sent[0].0, 1, "no bundle changes the destination");
}

#[test]
fn gateway_without_sessions_is_forgotten() {
    let (mut scene, mut gateway) = encrypted();
    ask(&mut scene, &mut gateway, &open(7));
    ask(&mut scene, &mut gateway, &TrunkQuestion::Close { tag: Tag(7) });
    scene.pass(LEASES_EVERY);
    scene.receive(gateway.seal(bundle(&voice(1)).as_bytes()), 1);
    assert_eq!(
        scene.agent.counters.unknown_source, 1,
        "only a signed message introduces a gateway"
    );
    let opened = TrunkAnswer::Open { tag: Tag(7), status: OpenStatus::Ok };
    assert_eq!(ask(&mut scene, &mut gateway, &open(7)), Some(opened));
}
