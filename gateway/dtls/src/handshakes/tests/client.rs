//! A client by the library, and its link to a table on virtual time.

use std::sync::LazyLock;

use super::*;

/// The origin of virtual time.
#[expect(clippy::disallowed_methods, reason = "an origin is needed; only distances count")]
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

pub(crate) fn now() -> Instant {
    *ORIGIN
}

pub(super) fn address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 50_000))
}

pub(super) struct Client {
    pub(super) dtls: Dtls,
    /// DER.
    pub(super) certificate: Vec<u8>,
    /// The exported keys.
    pub(super) material: Option<Vec<u8>>,
    pub(super) closed: bool,
    pub(super) error: Option<dimpl::Error>,
    /// The next retransmission.
    pub(super) timer: Instant,
}

impl Client {
    pub(super) fn new(version: Version) -> Self {
        match version {
            Version::Dtls12 => Self::by(Dtls::new_12),
            Version::Dtls13 => Self::by(Dtls::new_13),
        }
    }

    pub(super) fn of_both_versions() -> Self {
        Self::by(Dtls::new_auto)
    }

    fn by(new: impl FnOnce(Arc<Config>, dimpl::DtlsCertificate, Instant) -> Dtls) -> Self {
        let own = DtlsCertificate::generate().unwrap();
        let config = Config::builder()
            .with_crypto_provider(provider(&own.key))
            .flight_start_rto(RETRANSMISSION_INTERVAL)
            .build()
            .unwrap();
        let certificate = own.der;
        let library =
            dimpl::DtlsCertificate { certificate: certificate.clone(), private_key: Vec::new() };
        let mut dtls = new(Arc::new(config), library, now());
        dtls.set_active(true);
        dtls.handle_timeout(now()).unwrap();
        let (material, closed, error) = (None, false, None);
        Self { dtls, certificate, material, closed, error, timer: now() }
    }

    /// Returns the datagrams that the client sends.
    pub(super) fn poll(&mut self) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; DATAGRAM_MAX];
        let mut datagrams = Vec::new();
        loop {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(datagram) => datagrams.push(datagram.to_vec()),
                Output::KeyingMaterial(material, _) => self.material = Some(material.to_vec()),
                Output::CloseNotify => self.closed = true,
                Output::Timeout(at) => {
                    self.timer = at;
                    return datagrams;
                }
                _ => {}
            }
        }
    }
}

/// A client with its gateway.
pub(super) struct Link {
    pub(super) client: Client,
    pub(super) table: Handshakes<u64, SocketAddr>,
    pub(super) expected: Vec<CertificateFingerprint>,
    pub(super) events: Vec<HandshakeEvent>,
    pub(super) now: Instant,
    /// Address of the client.
    pub(super) source: SocketAddr,
    /// Datagrams on their way.
    pub(super) to_client: VecDeque<Vec<u8>>,
    /// Datagrams of the client that arrived.
    pub(super) from_client: Vec<Vec<u8>>,
    /// Length of the longest datagram of the gateway.
    pub(super) largest: usize,
}

impl Link {
    pub(super) fn new(client: Client) -> Self {
        let expected = vec![sha256(&client.certificate)];
        Self {
            table: Handshakes::new(&DtlsCertificate::generate().unwrap()),
            client,
            expected,
            events: Vec::new(),
            now: now(),
            source: address(),
            to_client: VecDeque::new(),
            from_client: Vec::new(),
            largest: 0,
        }
    }

    /// Delivers a datagram to the gateway.
    pub(super) fn receive(&mut self, datagram: &[u8]) {
        let Self { table, expected, to_client, source, largest, .. } = self;
        let source = *source;
        let output = &mut |destination, datagram: &[u8]| {
            assert_eq!(destination, source);
            *largest = datagram.len().max(*largest);
            to_client.push_back(datagram.to_vec());
        };
        let peer = Peer::Expected(expected);
        let event = table.receive(SESSION, source, peer, datagram, self.now, output);
        self.events.extend(event);
        self.from_client.push(datagram.to_vec());
    }

    /// Delivers the datagrams of the gateway to the client.
    pub(super) fn deliver(&mut self) {
        while let Some(datagram) = self.to_client.pop_front() {
            self.client.dtls.handle_timeout(self.now).unwrap();
            if let Err(error) = self.client.dtls.handle_packet(&datagram) {
                self.client.error = Some(error);
            }
        }
    }

    /// Exchanges datagrams until both ends are silent, without loss.
    pub(super) fn run(&mut self) {
        loop {
            self.deliver();
            let datagrams = self.client.poll();
            if datagrams.is_empty() {
                return;
            }
            for datagram in datagrams {
                self.receive(&datagram);
            }
        }
    }

    /// Advances the time to the next timer of either end.
    pub(super) fn wait(&mut self) {
        let timers = [Some(self.client.timer), self.table.next_timeout()];
        self.now = timers.into_iter().flatten().min().unwrap();
        self.client.dtls.handle_timeout(self.now).unwrap();
        let to_client = &mut self.to_client;
        let output = &mut |_, datagram: &[u8]| to_client.push_back(datagram.to_vec());
        for (key, failure) in handle_timeouts(&mut self.table, self.now, output) {
            assert_eq!(key, SESSION);
            self.events.push(HandshakeEvent::Failed(failure));
        }
    }
}

/// Handles the timers until `now`. Returns the failed handshakes by session.
pub(super) fn handle_timeouts(
    table: &mut Handshakes<u64, SocketAddr>,
    now: Instant,
    output: &mut impl FnMut(SocketAddr, &[u8]),
) -> Vec<(u64, HandshakeFailure)> {
    let mut failures = Vec::new();
    for key in table.due(now) {
        failures.extend(table.handle_timeout(key, now, output).map(|failure| (key, failure)));
    }
    failures
}

/// Splits the first message of a datagram into two fragments, each in a datagram.
pub(super) fn split(datagram: &[u8]) -> Vec<Vec<u8>> {
    const HEADERS: usize = 13 + 12;
    let body = &datagram[HEADERS..];
    let at = body.len() / 2;
    [0..at, at..body.len()]
        .map(|range| {
            let mut part = datagram[..HEADERS].to_vec();
            part[10] = u8::from(range.start > 0);
            let length = u16::try_from(range.len() + 12).unwrap().to_be_bytes();
            part[11..13].copy_from_slice(&length);
            let offset = u16::try_from(range.start).unwrap().to_be_bytes();
            part[20..22].copy_from_slice(&offset);
            let length = u16::try_from(range.len()).unwrap().to_be_bytes();
            part[23..25].copy_from_slice(&length);
            part.extend(&body[range]);
            part
        })
        .into()
}
