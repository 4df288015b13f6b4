use std::net::{Ipv4Addr, SocketAddr};

use evenkeel_config::Traceparent;
use evenkeel_dataplane::flows::Flows;
use evenkeel_model::{ClientIdentity, IngressProtocol, Offer, RtcpPort, Srtp};

use crate::registry::*;

const WORKERS: usize = 2;

fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn registry(ports: &[u16], port_legs: Option<IpAddr>) -> SessionRegistry {
    let address = |port| ListenerAddress { rtp: at(port), rtcp: None, carrier: None };
    let addresses = |port| ListenerAddresses { default: address(port), others: Vec::new() };
    let listener = |port: &u16| UdpListener {
        addresses: addresses(*port),
        bound: at(*port),
        declared: *port == 5_000,
        declared_ip: *port == 5_000,
        stun: true,
        open: None,
    };
    let udp = ports.iter().map(listener).collect();
    let quic =
        QuicListener { addresses: addresses(443), certificate_sha256: [7; 32], short_lived: None };
    let (flows, traces) = (Arc::new(Flows::new(1_000)), TraceRegistry::new(Traceparent::Parent));
    SessionRegistry::new(udp, Some(quic), flows, port_legs, true, WORKERS, Arc::new(traces))
}

fn media(rtcp: RtcpPort) -> Arc<MediaDescription> {
    Arc::new(MediaDescription::new(Vec::new(), rtcp, Srtp::Plain))
}

fn register(
    registry: &mut SessionRegistry,
    session: u64,
    ingress: IngressProtocol,
) -> Result<Registered, ControlError> {
    let offer = Offer {
        id: OfferId(session + 100),
        scenario: "call".into(),
        room: "room".into(),
        labels: Arc::default(),
        ingress,
        media: media(RtcpPort::Own),
    };
    let mut drawn = session as u8;
    let mut random = |bytes: &mut [u8]| {
        bytes.fill_with(|| {
            drawn = drawn.wrapping_mul(5).wrapping_add(7);
            drawn
        });
    };
    registry.register(SessionId(session), &offer, vec![("n".into(), at(9))], &mut random)
}

fn declared(port: u16) -> IngressProtocol {
    IngressProtocol::Udp(ClientIdentity::Declared { address: at(port), rtcp: None })
}

fn beside(registry: &SessionRegistry) -> RestoredParts {
    let ports = registry.ports(&media(RtcpPort::Own)).unwrap();
    let (facts, data) = (Some(("room".into(), Labels::default())), None);
    RestoredParts { media: media(RtcpPort::Own), ports, facts, data, has_address: false }
}

/// All sessions continue in a new registry.
fn continued(before: &SessionRegistry, mut now: SessionRegistry) -> SessionRegistry {
    let sessions = now.begin_restore(before.record()).unwrap().entries;
    for entry in sessions {
        let beside = beside(&now);
        now.restore(entry, beside).unwrap();
    }
    now
}

fn assert_same(now: &SessionRegistry, before: &SessionRegistry) {
    assert_eq!(now.flows.counts(), before.flows.counts());
    let text = |registry: &SessionRegistry| {
        let entries = registry.entries.range(..).map(|(id, entry)| {
            let second = entry.more.as_ref().and_then(|more| more.second_key);
            let entries = [Some(entry.key.key()), second].map(|key| {
                let entry = registry.flows.entry(&key?)?;
                Some((entry.home, entry.password))
            });
            format!("{id} {entry:?} {entries:?}")
        });
        let slots = registry.workers.iter().map(|slots| (slots.used, slots.generations.clone()));
        (entries.collect::<Vec<_>>(), slots.collect::<Vec<_>>())
    };
    assert_eq!(text(now), text(before));
}

#[test]
fn sessions_keep_identification_and_home() {
    let mut before = registry(&[5_000, 5_001], None);
    let stun = IngressProtocol::Udp(ClientIdentity::Stun);
    let ip = IngressProtocol::Udp(ClientIdentity::DeclaredIp(Ipv4Addr::LOCALHOST.into()));
    let all = [declared(4_000), stun, ip, IngressProtocol::Quic];
    for (session, ingress) in (1..).zip(all) {
        register(&mut before, session, ingress).unwrap();
    }
    let totals = Totals { packets_up: 7, ..Totals::default() };
    before.get_mut(SessionId(2)).unwrap().note_totals(totals);
    let now = continued(&before, registry(&[5_000, 5_001], None));
    assert_same(&now, &before);
}

#[test]
fn restored_session_has_the_same_client() {
    let mut before = registry(&[5_000], None);
    for (session, ingress) in (1..).zip([declared(4_000), IngressProtocol::Quic]) {
        let Registered { home, client, .. } = register(&mut before, session, ingress).unwrap();
        let mut now = registry(&[5_000], None);
        let sessions = now.begin_restore(before.record()).unwrap().entries;
        let entry = sessions.into_iter().find(|entry| entry.session.0 == session).unwrap();
        let beside = beside(&now);
        let restored = now.restore(entry, beside).unwrap();
        assert_eq!((restored.0, restored.1), (home, client));
    }
}

#[test]
fn slots_go_on_without_reuse() {
    let mut before = registry(&[5_000], None);
    for session in 1..=5 {
        register(&mut before, session, IngressProtocol::Quic).unwrap();
    }
    let homes: Vec<Home> = (1..=5).map(|id| before.get(SessionId(id)).unwrap().home).collect();
    before.remove(SessionId(1)).unwrap();
    before.remove(SessionId(3)).unwrap();
    let mut now = continued(&before, registry(&[5_000], None));
    for session in 6..=11 {
        let home = register(&mut now, session, IngressProtocol::Quic).unwrap().home;
        assert!(!homes.contains(&home), "{home:?}");
        let used = now
            .entries
            .values()
            .filter(|entry| (entry.home.worker, entry.home.slot) == (home.worker, home.slot));
        assert_eq!(used.count(), 1);
    }
}

#[test]
fn listeners_are_found_by_address() {
    let mut before = registry(&[5_000, 5_001], None);
    register(&mut before, 1, declared(4_000)).unwrap();
    let now = continued(&before, registry(&[5_002, 5_001, 5_000], None));
    let key = FlowKey::Udp { listener: 2, address: at(4_000) };
    assert_eq!(now.flows.home(&key), Some(before.get(SessionId(1)).unwrap().home));
    let refused = registry(&[5_001], None).begin_restore(before.record()).unwrap_err();
    assert_eq!(refused, SnapshotError::NoListener(at(5_000)));
}

#[test]
fn other_process_must_be_able_to_serve_all() {
    let mut before = registry(&[5_000], None);
    register(&mut before, 1, IngressProtocol::Quic).unwrap();
    let mut without_quic = registry(&[5_000], None);
    without_quic.quic = None;
    assert_eq!(without_quic.begin_restore(before.record()).unwrap_err(), SnapshotError::NoQuic);
    let mut one_worker = registry(&[5_000], None);
    one_worker.workers.pop();
    let refused = one_worker.begin_restore(before.record()).unwrap_err();
    assert_eq!(refused, SnapshotError::Workers { found: 2, here: 1 });
    let mut twice = before.record();
    let copy = EntryRecord { session: SessionId(2), ..twice.sessions[0].clone() };
    twice.sessions.push(copy);
    let refused = registry(&[5_000], None).begin_restore(twice).unwrap_err();
    assert_eq!(refused, SnapshotError::malformed("s2 has no slot of its own"));
}

#[test]
fn learned_port_frees_the_declared_address() {
    let mut before = registry(&[5_000], None);
    let ip = Ipv4Addr::LOCALHOST.into();
    register(&mut before, 1, IngressProtocol::Udp(ClientIdentity::DeclaredIp(ip))).unwrap();
    for has_address in [false, true] {
        let mut now = registry(&[5_000], None);
        let sessions = now.begin_restore(before.record()).unwrap().entries;
        let entry = sessions.into_iter().next().unwrap();
        let beside = RestoredParts { has_address, ..beside(&now) };
        now.restore(entry, beside).unwrap();
        let held = now.flows.home(&FlowKey::DeclaredIp { listener: 0, ip }).is_some();
        assert_eq!(held, !has_address);
    }
}

#[test]
fn sessions_get_ports_that_new_nodes_need() {
    let mut before = registry(&[5_000], None);
    assert!(register(&mut before, 1, declared(4_000)).unwrap().ports.is_none());
    let mut now = registry(&[5_000], Some(Ipv4Addr::UNSPECIFIED.into()));
    let sessions = now.begin_restore(before.record()).unwrap().entries;
    let beside = RestoredParts { ports: None, ..beside(&now) };
    let (.., ports) = now.restore(sessions.into_iter().next().unwrap(), beside).unwrap();
    let facts = now.get(SessionId(1)).unwrap().facts().unwrap();
    assert_eq!((facts.ports, &*facts.room), (ports.unwrap().numbers(), "room"));
}

#[test]
fn traces_of_sessions_continue() {
    let mut before = registry(&[5_000], None);
    for session in [1, 2] {
        register(&mut before, session, declared(4_000 + 10 * session as u16)).unwrap();
    }
    let caller = CallerSpan {
        trace_id: [7; 16],
        span_id: [8; 8],
        is_sampled: true,
        state: Some("a=1".into()),
    };
    before.note_caller(SessionId(1), Some(&caller));
    let traces = |registry: &SessionRegistry| [1, 2].map(|id| registry.trace(SessionId(id)));
    let mut now = continued(&before, registry(&[5_000], None));
    assert_eq!(traces(&now), traces(&before));
    assert_eq!(traces(&now)[0].trace_id, caller.trace_id);
    assert_eq!(now.callers().collect::<Vec<_>>(), [(SessionId(1), caller)]);
    now.forget_restored();
    let forgotten = traces(&now);
    assert!(traces(&before).iter().all(|trace| !forgotten.contains(trace)));
    before.remove(SessionId(1));
    assert_eq!(before.callers().count(), 0);
}

#[test]
fn urls_of_sessions_are_those_of_the_process_before() {
    let (owner, mut next) = (registry(&[5_000], None), registry(&[5_000], None));
    let code = owner.session_urls.code(&["s17"]);
    assert_ne!(next.session_urls.code(&["s17"]), code);
    next.begin_restore(owner.record()).unwrap();
    assert_eq!(next.session_urls.code(&["s17"]), code);
}
