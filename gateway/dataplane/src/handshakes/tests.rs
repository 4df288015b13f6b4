use std::cell::{Cell, RefCell};

use crossbeam_channel::Sender;
use evenkeel_dtls::{DtlsClient, HANDSHAKES_MAX, HandshakeFailure};
use evenkeel_media::fingerprint::CertificateFingerprint;
use evenkeel_media::srtp::SrtpKeys;
use evenkeel_model::SessionId;

use super::*;
use crate::flows::Home;
use crate::worker::SourceKey;
use crate::worker::dtls::WaitingPlaces;
use crate::worker::handshake_channel;

const TIMEOUT: Duration = Duration::from_secs(20);

/// The running thread, with the ends of its channels.
struct Scene {
    inputs: Sender<HandshakeInput>,
    commands: Receiver<WorkerCommand>,
    reports: mpsc::Receiver<WorkerReport>,
    stats: Arc<WorkerStats>,
    certificate: watch::Sender<DtlsCertificate>,
    thread: std::thread::JoinHandle<()>,
}

impl Scene {
    fn start() -> Scene {
        let (to_thread, inputs) = handshake_channel();
        let (commands, received) = crossbeam_channel::unbounded();
        let (reports, reported) = mpsc::channel(8);
        let stats = Arc::new(WorkerStats::new(Instant::now(), 0));
        let (certificate, shown) = watch::channel(DtlsCertificate::generate().unwrap());
        let parts = HandshakeParts {
            certificate: shown,
            inputs,
            workers: vec![HandshakeWorker { commands, waker: Arc::new(Waker::new().unwrap()) }],
            reports,
            stats: Arc::clone(&stats),
        };
        let thread = std::thread::spawn(move || parts.run());
        Scene {
            inputs: to_thread,
            commands: received,
            reports: reported,
            stats,
            certificate,
            thread,
        }
    }

    fn input(&self, input: InputKind) {
        self.inputs.send(HandshakeInput(input)).unwrap();
    }

    fn report(&mut self) -> WorkerReport {
        self.reports.blocking_recv().unwrap()
    }

    /// Passes datagrams between the client and the thread until the client has keys.
    fn connect(&self, client: &mut DtlsClient, pass: impl Fn(&[u8]) -> InputKind) -> SrtpKeys {
        let send = &mut |datagram: &[u8]| self.input(pass(datagram));
        client.handle_timeout(Instant::now(), send).unwrap();
        loop {
            if let Some(keys) = client.keys() {
                return keys.clone();
            }
            let WorkerCommand::SendDtls(flight) = self.commands.recv_timeout(TIMEOUT).unwrap()
            else {
                panic!("another command")
            };
            assert_eq!((flight.home, flight.to), (session(1).home, source(5_000).path()));
            client.receive(&flight.bytes, Instant::now(), send).unwrap();
        }
    }
}

fn session(id: u64) -> DtlsSession {
    DtlsSession { id: SessionId(id), home: Home { worker: 0, slot: id as u32, generation: 1 } }
}

fn source(port: u16) -> SourceKey {
    SourceKey { listener: 0, address: ([192, 0, 2, 1], port).into() }
}

/// A client with its certificate.
fn client() -> (DtlsClient, Arc<[CertificateFingerprint]>) {
    let certificate = DtlsCertificate::generate().unwrap();
    let fingerprint = CertificateFingerprint::Sha256(certificate.fingerprint());
    (DtlsClient::new(&certificate, Instant::now()), [fingerprint].into())
}

/// A datagram of session 1 from this port.
fn datagram(port: u16, fingerprints: &Arc<[CertificateFingerprint]>, bytes: &[u8]) -> InputKind {
    InputKind::Datagram(of_session(1, port, fingerprints, bytes))
}

fn of_session(
    id: u64,
    port: u16,
    fingerprints: &Arc<[CertificateFingerprint]>,
    bytes: &[u8],
) -> HandshakeDatagram {
    HandshakeDatagram {
        session: session(id),
        path: source(port).path(),
        fingerprints: Arc::clone(fingerprints),
        is_keyed: false,
        bytes: bytes.into(),
        _place: WaitingPlaces::default().take().unwrap(),
    }
}

/// The first datagram of a client.
fn hello(client: &mut DtlsClient) -> Vec<u8> {
    let mut hello = Vec::new();
    client.handle_timeout(Instant::now(), &mut |bytes| hello = bytes.to_vec()).unwrap();
    hello
}

/// The thread's part without channels.
fn thread<S: FnMut(DtlsSession, ClientPath, &[u8])>(send: S) -> HandshakeThread<S> {
    let handshakes = Handshakes::new(&DtlsCertificate::generate().unwrap());
    HandshakeThread { handshakes, send, stats: Arc::new(WorkerStats::new(Instant::now(), 0)) }
}

#[test]
fn next_handshake_shows_a_changed_certificate() {
    let scene = Scene::start();
    let changed = DtlsCertificate::generate().unwrap();
    for is_changed in [false, true] {
        if is_changed {
            scene.certificate.send_replace(changed.clone());
        }
        let (mut client, fingerprints) = client();
        let pass = |bytes: &[u8]| datagram(5_000, &fingerprints, bytes);
        scene.connect(&mut client, pass);
        let expected = CertificateFingerprint::Sha256(changed.fingerprint());
        let shown = client.gateway_certificate().unwrap();
        assert_eq!(expected.matches(shown), is_changed);
        scene.input(InputKind::Ended(session(1)));
    }
}

#[test]
fn keys_and_the_end_of_a_connection_are_reported() {
    let mut scene = Scene::start();
    let (mut client, fingerprints) = client();
    let pass = |bytes: &[u8]| datagram(5_000, &fingerprints, bytes);
    let keys = scene.connect(&mut client, pass);
    let WorkerReport::Handshake { session: SessionId(1), result } = scene.report() else {
        panic!("another report")
    };
    assert_eq!(*result.unwrap(), keys);
    client.close(&mut |bytes| scene.input(pass(bytes)));
    assert!(matches!(scene.report(), WorkerReport::Ended(SessionId(1), CloseReason::ClientClosed)));
    drop(scene.inputs);
    scene.thread.join().unwrap();
}

#[test]
fn client_with_another_certificate_fails() {
    let mut scene = Scene::start();
    let (mut first, _) = client();
    let (_, fingerprints) = client();
    let pass = |bytes: &[u8]| datagram(5_000, &fingerprints, bytes);
    let send = &mut |bytes: &[u8]| scene.input(pass(bytes));
    first.handle_timeout(Instant::now(), send).unwrap();
    let refused = loop {
        let WorkerCommand::SendDtls(flight) = scene.commands.recv_timeout(TIMEOUT).unwrap() else {
            panic!("another command")
        };
        if let Err(refused) = first.receive(&flight.bytes, Instant::now(), send) {
            break refused;
        }
    };
    assert!(matches!(refused, HandshakeFailure::Alert(_)), "{refused}");
    let WorkerReport::Handshake { result, .. } = scene.report() else { panic!("another report") };
    assert_eq!(result.unwrap_err(), HandshakeFailure::Fingerprint);
}

#[test]
fn hello_from_a_second_address_is_counted() {
    let scene = Scene::start();
    let (mut first, fingerprints) = client();
    let (mut second, _) = client();
    scene.input(datagram(5_000, &fingerprints, &hello(&mut first)));
    scene.input(datagram(6_000, &fingerprints, &hello(&mut second)));
    drop(scene.inputs);
    scene.thread.join().unwrap();
    assert_eq!(scene.stats.drops(DropReason::DtlsAddress), 1);
}

#[test]
fn ended_session_has_no_state() {
    let mut scene = Scene::start();
    let (mut client, fingerprints) = client();
    let pass = |bytes: &[u8]| datagram(5_000, &fingerprints, bytes);
    scene.connect(&mut client, pass);
    assert!(matches!(scene.report(), WorkerReport::Handshake { result: Ok(_), .. }));
    scene.input(InputKind::Ended(session(1)));
    client.close(&mut |bytes| scene.input(pass(bytes)));
    drop(scene.inputs);
    scene.thread.join().unwrap();
    assert!(scene.reports.blocking_recv().is_none(), "without a state, close_notify is dropped");
}

#[test]
fn hello_beyond_the_limit_of_handshakes_is_counted() {
    let mut thread = thread(|_, _, _| {});
    let (mut client, fingerprints) = client();
    // A handshake that waits for the rest of its ClientHello costs no cryptography.
    let mut part = hello(&mut client);
    part.truncate(13 + 12 + 40);
    part[11..13].copy_from_slice(&52_u16.to_be_bytes());
    part[22..25].copy_from_slice(&[0, 0, 40]);
    let now = Instant::now();
    let mut receive = |id| {
        let datagram = of_session(id, 5_000, &fingerprints, &part);
        let reports = thread.turn(Some(InputKind::Datagram(datagram)), now);
        assert!(reports.is_empty(), "{reports:?}");
        thread.stats.drops(DropReason::DtlsFull)
    };
    let drops: Vec<u64> = (0..=HANDSHAKES_MAX as u64).map(&mut receive).collect();
    assert_eq!(drops[HANDSHAKES_MAX - 1..], [0, 1]);
}

#[test]
fn keyed_session_begins_no_handshake() {
    let sent = Cell::new(0);
    let mut thread = thread(|_, _, _| sent.set(sent.get() + 1));
    let (mut client, fingerprints) = client();
    let hello = hello(&mut client);
    let now = Instant::now();
    let mut receive = |is_keyed| {
        let datagram =
            HandshakeDatagram { is_keyed, ..of_session(1, 5_000, &fingerprints, &hello) };
        let reports = thread.turn(Some(InputKind::Datagram(datagram)), now);
        assert!(reports.is_empty(), "{reports:?}");
        (sent.take() > 0, thread.handshakes.in_progress())
    };
    assert_eq!(receive(true), (false, 0));
    assert_eq!(receive(false), (true, 1));
}

#[test]
fn keyed_session_ends_with_its_connection() {
    let mut scene = Scene::start();
    let (mut client, fingerprints) = client();
    scene.connect(&mut client, |bytes| datagram(5_000, &fingerprints, bytes));
    assert!(matches!(scene.report(), WorkerReport::Handshake { result: Ok(_), .. }));
    client.close(&mut |bytes| {
        let of_session = of_session(1, 5_000, &fingerprints, bytes);
        scene.input(InputKind::Datagram(HandshakeDatagram { is_keyed: true, ..of_session }));
    });
    assert!(matches!(scene.report(), WorkerReport::Ended(SessionId(1), CloseReason::ClientClosed)));
}

#[test]
fn panic_over_a_timer_ends_its_session_alone() {
    let (sent, broken) = (RefCell::new(Vec::new()), Cell::new(None));
    let mut thread = thread(|session: DtlsSession, _, _: &[u8]| {
        assert_ne!(Some(session.id.0), broken.get(), "the flight of this session");
        sent.borrow_mut().push(session.id.0);
    });
    let (mut client, fingerprints) = client();
    let hello = hello(&mut client);
    let began = Instant::now();
    let datagram = |id| InputKind::Datagram(of_session(id, 5_000, &fingerprints, &hello));
    for id in 1..=3 {
        assert!(thread.turn(Some(datagram(id)), began).is_empty());
    }
    sent.borrow_mut().clear();
    broken.set(Some(2));
    // The timers of the three are due while a datagram of a fourth is received.
    let reports = thread.turn(Some(datagram(4)), began + Duration::from_secs(1));
    let [WorkerReport::Ended(SessionId(2), CloseReason::HandshakeFailed)] = &reports[..] else {
        panic!("{reports:?}")
    };
    let mut sent = sent.borrow().clone();
    sent.sort_unstable();
    sent.dedup();
    assert_eq!(sent, [1, 3, 4]);
    assert_eq!(thread.handshakes.in_progress(), 3);
}

#[test]
fn panic_over_a_datagram_ends_its_session_alone() {
    let is_broken = Cell::new(false);
    let mut thread = thread(|_, _, _| assert!(!is_broken.get(), "a flight"));
    let (mut client, fingerprints) = client();
    let hello = hello(&mut client);
    let began = Instant::now();
    let datagram = |id| InputKind::Datagram(of_session(id, 5_000, &fingerprints, &hello));
    assert!(thread.turn(Some(datagram(1)), began).is_empty());
    is_broken.set(true);
    let reports = thread.turn(Some(datagram(2)), began);
    let [WorkerReport::Ended(SessionId(2), CloseReason::HandshakeFailed)] = &reports[..] else {
        panic!("{reports:?}")
    };
    assert_eq!(thread.handshakes.in_progress(), 1);
}
