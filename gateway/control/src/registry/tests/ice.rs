use std::sync::Arc;

use evenkeel_config::Traceparent;
use evenkeel_dataplane::flows::{Flows, Ufrag};
use evenkeel_model::{
    ClientIdentity, IngressProtocol, MediaDescription, Offer, OfferId, RtcpPort, Srtp,
};

use crate::registry::*;

const SESSION: SessionId = SessionId(7);

fn registry() -> SessionRegistry {
    let at = ListenerAddress { rtp: ([127, 0, 0, 1], 5_004).into(), rtcp: None, carrier: None };
    let udp = UdpListener {
        addresses: ListenerAddresses { default: at, others: Vec::new() },
        bound: ([0, 0, 0, 0], 5_004).into(),
        declared: false,
        declared_ip: false,
        stun: true,
        open: None,
    };
    let (flows, traces) = (Arc::new(Flows::new(16)), TraceRegistry::new(Traceparent::Link));
    SessionRegistry::new(vec![udp], None, flows, None, false, 1, Arc::new(traces))
}

fn media() -> Arc<MediaDescription> {
    let rtcp = RtcpPort::Mux;
    Arc::new(MediaDescription::new(Vec::new(), rtcp, Srtp::Terminated))
}

/// Registers the session. Returns its user fragment.
fn register(registry: &mut SessionRegistry) -> Box<str> {
    let offer = Offer {
        id: OfferId(1),
        scenario: "call".into(),
        room: "room".into(),
        labels: Vec::new().into(),
        ingress: IngressProtocol::Udp(ClientIdentity::Stun),
        media: media(),
    };
    let registered = registry.register(SESSION, &offer, Vec::new(), &mut |bytes| bytes.fill(1));
    match registered.unwrap().reached {
        IngressAnswer::Udp { ice: Some(ice), .. } => ice.ufrag,
        other => panic!("{other:?}"),
    }
}

/// Restarts ICE. Returns the new user fragment.
fn restart(registry: &mut SessionRegistry, random: u8) -> Box<str> {
    registry.restart_ice(SESSION, &mut |bytes| bytes.fill(random)).unwrap();
    registry.ice_of(SESSION).unwrap().ufrag
}

fn has(registry: &SessionRegistry, ufrag: &str) -> bool {
    let key = FlowKey::Ufrag(Ufrag::new(ufrag.as_bytes()).unwrap());
    registry.flows.entry(&key).is_some_and(|entry| entry.password.is_some())
}

#[test]
fn credentials_hold_until_the_second_restart() {
    let mut registry = registry();
    let first = register(&mut registry);
    let second = restart(&mut registry, 2);
    assert!(first != second && has(&registry, &first) && has(&registry, &second));
    let third = restart(&mut registry, 3);
    let present = [&first, &second, &third].map(|ufrag| has(&registry, ufrag));
    assert_eq!(present, [false, true, true]);
    registry.remove(SESSION).unwrap();
    assert!(!has(&registry, &second) && !has(&registry, &third));
    let gone = registry.restart_ice(SESSION, &mut |_| {});
    assert!(matches!(gone, Err(ControlError::NotWebrtc)), "{gone:?}");
}

#[test]
fn record_has_the_credentials_before_and_after_a_restart() {
    let mut registry = registry();
    let first = register(&mut registry);
    let second = restart(&mut registry, 2);
    let encoded = rmp_serde::to_vec_named(&registry.record()).unwrap();
    let mut next = self::registry();
    let record = rmp_serde::from_slice(&encoded).unwrap();
    let restoring = next.begin_restore(record).unwrap();
    for entry in restoring.entries {
        let beside = RestoredParts {
            media: media(),
            ports: None,
            facts: None,
            data: None,
            has_address: false,
        };
        next.restore(entry, beside).unwrap();
    }
    assert!(has(&next, &first) && has(&next, &second));
    assert_eq!(next.ice_of(SESSION), registry.ice_of(SESSION));
    restart(&mut next, 3);
    assert!(!has(&next, &first) && has(&next, &second));
}

#[test]
fn debug_of_an_answer_shows_no_password() {
    let ice = IceAnswer {
        ufrag: "gate".into(),
        password: "hush".into(),
        certificate_sha256: [7; 32],
        announced: None,
    };
    let answer = IngressAnswer::Udp { addresses: Vec::new(), rtcp: Vec::new(), ice: Some(ice) };
    let shown = format!("{answer:?}");
    assert!(shown.contains("gate") && !shown.contains("hush"), "{shown}");
}
