use crossbeam_channel::Sender;
use evenkeel_dtls::{DtlsClient, HandshakeFailure};
use evenkeel_media::fingerprint::CertificateFingerprint;
use evenkeel_media::srtp::SrtpKeys;
use evenkeel_model::SessionId;

use super::*;
use crate::flows::Home;
use crate::worker::handshake_channel;

const TIMEOUT: Duration = Duration::from_secs(20);

/// The running thread, with the ends of its channels.
struct Scene {
    inputs: Sender<HandshakeInput>,
    commands: Receiver<WorkerCommand>,
    reports: mpsc::Receiver<WorkerReport>,
    stats: Arc<WorkerStats>,
    thread: std::thread::JoinHandle<()>,
}

impl Scene {
    fn start() -> Scene {
        let (to_thread, inputs) = handshake_channel();
        let (commands, received) = crossbeam_channel::unbounded();
        let (reports, reported) = mpsc::channel(8);
        let stats = Arc::new(WorkerStats::new(Instant::now(), 0));
        let parts = HandshakeParts {
            certificate: DtlsCertificate::generate().unwrap(),
            inputs,
            workers: vec![HandshakeWorker { commands, waker: Arc::new(Waker::new().unwrap()) }],
            reports,
            stats: Arc::clone(&stats),
        };
        let thread = std::thread::spawn(move || parts.run());
        Scene { inputs: to_thread, commands: received, reports: reported, stats, thread }
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
            assert_eq!((flight.home, flight.to), (session(1).home, source(5_000)));
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
    InputKind::Datagram(HandshakeDatagram {
        session: session(1),
        source: source(port),
        fingerprints: Arc::clone(fingerprints),
        is_keyed: false,
        bytes: bytes.into(),
    })
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
    let hello = |client: &mut DtlsClient, port| {
        let send = &mut |bytes: &[u8]| scene.input(datagram(port, &fingerprints, bytes));
        client.handle_timeout(Instant::now(), send).unwrap();
    };
    hello(&mut first, 5_000);
    hello(&mut second, 6_000);
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
