use evenkeel_media::trunk::message::{ServingState, TrunkQuestion};

use super::*;

const LOAD: NodeLoad =
    NodeLoad { permille: 1, state: ServingState::Gone, sessions: 0, vouched: false };

fn secret() -> NodeSecret {
    NodeSecret::new(b"a secret of many bytes", "n").unwrap()
}

fn gateway(port: u16) -> SocketAddr {
    ([192, 0, 2, 1], port).into()
}

fn notified(notices: &mut DeathNotices, now: Instant) -> Vec<u16> {
    let mut ports = Vec::new();
    notices.send(LOAD, &secret(), (now, 9_000_000), |to, _| ports.push(to.port()));
    ports
}

#[test]
fn only_recent_probers_are_notified() {
    let (mut notices, now) = (DeathNotices::default(), Instant::now());
    assert!(notified(&mut notices, now).is_empty(), "no gateway probed");
    notices.handle_probe(gateway(1), 7, now);
    notices.handle_probe(gateway(2), 8, now + SUBSCRIBED_FOR / 2);
    assert_eq!(notified(&mut notices, now + SUBSCRIBED_FOR / 2), [1, 2]);
    assert_eq!(notified(&mut notices, now + SUBSCRIBED_FOR), [2]);
}

#[test]
fn notice_echoes_last_probe_and_is_no_longer() {
    let (mut notices, now) = (DeathNotices::default(), Instant::now());
    notices.handle_probe(gateway(1), 7, now);
    notices.handle_probe(gateway(1), 8, now);
    let mut probe = Vec::new();
    TrunkQuestion::Probe.write(&secret(), 8, 9_000_000, &mut probe);
    notices.send(LOAD, &secret(), (now, 9_000_000), |_, message| {
        let read = TrunkAnswer::read(message, &secret(), 9_000_000).unwrap();
        assert_eq!((read.nonce, read.message), (8, TrunkAnswer::Notice { number: 1, load: LOAD }));
        assert!(message.len() <= probe.len());
    });
}

#[test]
fn notice_is_sent_three_times_within_20_ms() {
    let (mut notices, start) = (DeathNotices::default(), Instant::now());
    notices.handle_probe(gateway(1), 7, start);
    let mut sent = Vec::new();
    notices.send(LOAD, &secret(), (start, 9_000_000), |_, message| {
        sent.push((Duration::ZERO, message.to_vec()));
    });
    while let Some(at) = notices.poll_timeout() {
        notices.handle_timeout(at, |_, message| sent.push((at - start, message.to_vec())));
    }
    assert_eq!(sent.len(), 3);
    assert!(
        sent.iter()
            .all(|(at, message)| { *at < Duration::from_millis(20) && *message == sent[0].1 })
    );
}

#[test]
fn acknowledged_notice_is_not_sent_again() {
    let (mut notices, now) = (DeathNotices::default(), Instant::now());
    notices.handle_probe(gateway(1), 7, now);
    notices.handle_probe(gateway(2), 7, now);
    notified(&mut notices, now);
    assert!(!notices.handle_ack(gateway(1), 2), "another notice");
    assert!(notices.handle_ack(gateway(1), 1));
    assert!(!notices.handle_ack(gateway(1), 1), "a copy");
    let mut resend_at = Vec::new();
    notices.handle_timeout(now + RETRANSMIT_AFTER, |to, _| resend_at.push(to.port()));
    assert_eq!(resend_at, [2]);
}

#[test]
fn gateway_with_oldest_probe_is_dropped() {
    let (mut notices, now) = (DeathNotices::default(), Instant::now());
    for port in 0..=GATEWAYS_MAX as u16 {
        notices.handle_probe(gateway(port), 7, now + Duration::from_micros(port.into()));
    }
    let ports = notified(&mut notices, now + RETRANSMIT_AFTER);
    assert_eq!(ports.len(), GATEWAYS_MAX);
    assert!(!ports.contains(&0) && ports.contains(&(GATEWAYS_MAX as u16)));
}
