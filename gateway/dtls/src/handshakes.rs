//! The handshakes of all sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dimpl::{Config, CryptoError, CryptoOperation, Dtls, Output, ProtocolVersion, SecurityError};
use evenkeel_media::fingerprint::CertificateFingerprint;
use evenkeel_media::srtp::{SrtpKey, SrtpKeys, SrtpProfile};

use crate::certificate::DtlsCertificate;
use crate::hello::{ClientHello, Fragment, SrtpOffer, Version};
use crate::provider::provider;
use crate::records::{ClientRecord, ClientRecords};

/// Limit of handshakes in progress. Each takes one or two round trips, so this many allow 4,096 new sessions a second over half a second
/// of distance. One takes 13 KiB, and 120 KiB if its client fills the queue of the library.
pub const HANDSHAKES_MAX: usize = 2_048;

/// Limit of states that are kept after a handshake, each of 14 KiB at most. If there are more, the first ones to connect lose theirs: such a session then ends
/// without `close_notify`, as after a takeover.
pub const CONNECTED_MAX: usize = 16_384;

/// Time from the first datagram of a handshake to its end. Afterwards the user has given up, and ICE checks of the client have ended.
pub const HANDSHAKE_LIFETIME: Duration = Duration::from_secs(30);

/// Time for which a handshake waits for the client after a sign of its end that any host can forge. A client that goes on repeats its
/// flight within this time.
const DOUBT_FOR: Duration = Duration::from_secs(3);

/// Length limit of an inbound datagram: that of the sockets. Clients send at most the 1,500 bytes of Ethernet.
pub(crate) const DATAGRAM_MAX: usize = 2_048;

/// Length limit of an outbound datagram: IPv6 over any link, with 80 bytes for TURN (RFC 8200, section 5).
const MTU: usize = 1_200;

/// Length limit of a ClientHello. Browsers send about 1,800 bytes if they offer a key of ML-KEM.
const HELLO_BYTES_MAX: usize = 8_192;

/// Limit of datagrams that wait for the rest of a ClientHello.
const HELLO_DATAGRAMS_MAX: usize = 8;

/// Limit of records that the library keeps until their predecessors arrive: a flight of a client has up to five messages.
const QUEUE_MAX: usize = 16;

/// First interval of retransmissions for DTLS-SRTP (RFC 9147, section 5.8.2). Each interval is twice the one before.
const RETRANSMISSION_INTERVAL: Duration = Duration::from_millis(400);

/// Retransmissions of a flight: the last one comes after 25 s.
const RETRANSMISSIONS_MAX: usize = 6;

/// Sequence number of an alert in plain text: above those of the library.
const ALERT_SEQUENCE: u32 = u32::MAX;

/// Alert descriptions (RFC 5246, section 7.2).
mod alert {
    pub(super) const HANDSHAKE_FAILURE: u8 = 40;
    pub(super) const BAD_CERTIFICATE: u8 = 42;
    pub(super) const DECODE_ERROR: u8 = 50;
    pub(super) const PROTOCOL_VERSION: u8 = 70;
}

/// The DTLS states of sessions, one for each. `K` names a session, `A` an address of a client.
pub struct Handshakes<K, A> {
    engine: Engine,
    states: BTreeMap<K, State<A>>,
    /// The next timer of each handshake in progress.
    timers: BTreeSet<(Instant, K)>,
    /// Sessions after their handshakes, in the order of these.
    connected: BTreeMap<u64, K>,
    connections: u64,
}

/// The client of a session, as the caller knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer<'a> {
    /// Its certificate must have one of these fingerprints of its SDP (RFC 8122, section 5).
    Expected(&'a [CertificateFingerprint]),
    /// Its handshake is complete, perhaps in another process: without a state, its datagrams are dropped.
    Connected,
}

/// A change of a session by DTLS.
#[derive(PartialEq, Debug)]
pub enum HandshakeEvent {
    /// The handshake is complete: the client proved the key of a certificate that was expected. Both keys have one profile.
    Connected(SrtpKeys),
    /// The client ended the connection by `close_notify` or a fatal alert. The state is gone.
    Closed,
    /// The datagram was dropped.
    Refused(HandshakeRefusal),
    /// There is no connection. The state is gone; another ClientHello begins a new handshake.
    Failed(HandshakeFailure),
}

/// Reason why a datagram was dropped, or a record of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandshakeRefusal {
    /// It belongs to no handshake, is not authentic, or is an alert in plain text.
    Record,
    /// A ClientHello that is not that of the session's handshake, and comes from another address.
    SecondAddress,
    /// [`HANDSHAKES_MAX`] handshakes were in progress.
    Full,
}

/// Reason why a handshake ended without keys.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HandshakeFailure {
    /// The client's certificate has another fingerprint than the SDP.
    #[error("the client's certificate has none of the fingerprints of its SDP")]
    Fingerprint,
    /// No `use_srtp`.
    #[error("the ClientHello lacks the extension use_srtp (RFC 5764)")]
    NoSrtp,
    /// No SRTP profile of the gateway.
    #[error(
        "the ClientHello offers none of AEAD_AES_256_GCM, AEAD_AES_128_GCM and \
         SRTP_AES128_CM_HMAC_SHA1_80"
    )]
    NoCommonProfile,
    /// Neither DTLS 1.2 nor 1.3.
    #[error("the ClientHello offers neither DTLS 1.2 nor DTLS 1.3")]
    Version,
    /// The client fell silent.
    #[error("the handshake was not completed in {} s", HANDSHAKE_LIFETIME.as_secs())]
    Timeout,
    /// Fragments of the ClientHello did not arrive.
    #[error("fragments of the ClientHello did not arrive in {} s", HANDSHAKE_LIFETIME.as_secs())]
    Incomplete,
    /// The ClientHello cannot be parsed.
    #[error("the ClientHello is malformed")]
    Malformed,
    /// The limit of a ClientHello's length.
    #[error("the ClientHello has more than {HELLO_BYTES_MAX} bytes")]
    Large,
    /// Another process began the handshake.
    #[error("another gateway or process began the handshake; the client must offer again")]
    Lost,
    /// The client ended the handshake.
    #[error("the client sent alert {0} (RFC 5246, section 7.2)")]
    Alert(u8),
    /// Any other violation of the protocol.
    #[error("DTLS: {0}")]
    Protocol(dimpl::Error),
}

impl HandshakeFailure {
    pub(crate) fn of(error: dimpl::Error) -> Self {
        match error {
            dimpl::Error::Timeout(_) => Self::Timeout,
            dimpl::Error::SecurityError(SecurityError::FatalAlert { description }) => {
                Self::Alert(description)
            }
            other => Self::Protocol(other),
        }
    }

    /// A word for counters.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Fingerprint => "fingerprint",
            Self::NoSrtp => "no-srtp",
            Self::NoCommonProfile => "no-common-profile",
            Self::Version => "version",
            Self::Timeout => "timeout",
            Self::Incomplete => "incomplete",
            Self::Malformed => "malformed",
            Self::Large => "large",
            Self::Lost => "lost",
            Self::Alert(_) => "alert",
            Self::Protocol(_) => "protocol",
        }
    }

    /// The alert that tells the client.
    fn alert(&self) -> Option<u8> {
        match self {
            // RFC 8122, section 6.2.
            Self::Fingerprint => Some(alert::BAD_CERTIFICATE),
            Self::NoSrtp | Self::NoCommonProfile | Self::Large | Self::Protocol(_) => {
                Some(alert::HANDSHAKE_FAILURE)
            }
            Self::Version => Some(alert::PROTOCOL_VERSION),
            Self::Malformed => Some(alert::DECODE_ERROR),
            Self::Timeout | Self::Incomplete | Self::Lost | Self::Alert(_) => None,
        }
    }
}

impl<K: Copy + Ord, A: Copy + PartialEq> Handshakes<K, A> {
    /// Creates an empty table that shows this certificate to clients.
    pub fn new(certificate: &DtlsCertificate) -> Self {
        Self {
            engine: Engine::new(certificate),
            states: BTreeMap::new(),
            timers: BTreeSet::new(),
            connected: BTreeMap::new(),
            connections: 0,
        }
    }

    /// Shows this certificate in handshakes that begin from now on.
    pub fn set_certificate(&mut self, certificate: &DtlsCertificate) {
        self.engine = Engine::new(certificate);
    }

    /// Processes a datagram that the demultiplexer classified as DTLS (RFC 7983), from an address that sent a verified ICE check of the
    /// session. A ClientHello begins a handshake. Application data is dropped.
    ///
    /// A host can forge the client's address, so that records which cannot be parsed, are not authentic or belong to no handshake are
    /// dropped and end nothing. A handshake message without a state, which is a sign that another process began the handshake
    /// ([`HandshakeFailure::Lost`]), a malformed ClientHello and a fatal alert in plain text end a session by
    /// [`Self::handle_timeout`] if the client does not go on in time.
    ///
    /// `output` sends a datagram of up to 1,200 bytes to the last address of the client.
    pub fn receive(
        &mut self,
        key: K,
        source: A,
        peer: Peer<'_>,
        datagram: &[u8],
        now: Instant,
        output: &mut impl FnMut(A, &[u8]),
    ) -> Option<HandshakeEvent> {
        let hello = Fragment::all(datagram);
        let random = hello.iter().find_map(Fragment::random);
        let mut is_lost = false;
        if let Some(state) = self.states.get_mut(&key) {
            let is_same = hello.is_empty() || state.random.is_none() || random == state.random;
            if source != state.client && !is_same {
                return Some(HandshakeEvent::Refused(HandshakeRefusal::SecondAddress));
            }
        } else {
            if peer == Peer::Connected {
                return None;
            }
            is_lost = hello.iter().all(|fragment| fragment.message_seq != 0);
            if is_lost && !Fragment::has_handshake(datagram) {
                return None;
            }
            if self.timers.len() >= HANDSHAKES_MAX {
                return Some(HandshakeEvent::Refused(HandshakeRefusal::Full));
            }
        }
        let mut state = self.take(key).unwrap_or_else(|| State::new(source, now));
        if is_lost {
            state.doubt(HandshakeFailure::Lost, now);
        }
        state.client = source;
        state.random = match &state.phase {
            Phase::Hello(_) => random.or(state.random),
            _ => state.random,
        };
        let expected = match peer {
            Peer::Expected(fingerprints) => fingerprints,
            Peer::Connected => &[],
        };
        let result = state.receive(&mut self.engine, expected, datagram, now, output);
        self.keep(key, state, result, output)
    }

    /// The sessions with expired timers, the earliest first.
    pub fn due(&self, now: Instant) -> Vec<K> {
        let due = self.timers.iter().take_while(|(at, _)| *at <= now);
        due.map(|(_, key)| *key).collect()
    }

    /// Retransmits the flight of a session that is [due](Self::due), or ends its handshake at the deadline and returns the failure.
    pub fn handle_timeout(
        &mut self,
        key: K,
        now: Instant,
        output: &mut impl FnMut(A, &[u8]),
    ) -> Option<HandshakeFailure> {
        let mut state = self.take(key)?;
        let result = state.handle_timeout(&mut self.engine, now, output);
        match self.keep(key, state, result, output) {
            Some(HandshakeEvent::Failed(failure)) => Some(failure),
            _ => None,
        }
    }

    /// The time at which the next session is [due](Self::due).
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Forgets the state of a session in silence.
    pub fn remove(&mut self, key: K) {
        self.take(key);
    }

    /// The number of handshakes in progress.
    pub fn in_progress(&self) -> usize {
        self.timers.len()
    }

    /// The number of states after complete handshakes.
    pub fn connected(&self) -> usize {
        self.connected.len()
    }

    fn take(&mut self, key: K) -> Option<State<A>> {
        let state = self.states.remove(&key)?;
        match state.phase {
            Phase::Connected { number, .. } => {
                self.connected.remove(&number);
            }
            _ => {
                self.timers.remove(&(state.timer, key));
            }
        }
        Some(state)
    }

    /// Stores a state again, unless its connection is over.
    fn keep(
        &mut self,
        key: K,
        mut state: State<A>,
        result: Result<Option<HandshakeEvent>, HandshakeFailure>,
        output: &mut impl FnMut(A, &[u8]),
    ) -> Option<HandshakeEvent> {
        let event = match result {
            Ok(Some(HandshakeEvent::Closed)) => return Some(HandshakeEvent::Closed),
            Ok(event) => event,
            Err(failure) if matches!(state.phase, Phase::Connected { .. }) => {
                // The session continues without DTLS.
                return matches!(failure, HandshakeFailure::Alert(_))
                    .then_some(HandshakeEvent::Closed);
            }
            Err(failure) => {
                if let Some(description) = failure.alert() {
                    output(state.client, &alert_record(description));
                }
                return Some(HandshakeEvent::Failed(failure));
            }
        };
        if let Phase::Connected { number, .. } = &mut state.phase {
            if matches!(event, Some(HandshakeEvent::Connected(_))) {
                *number = self.connections;
                self.connections += 1;
            }
            self.connected.insert(*number, key);
        } else {
            self.timers.insert((state.timer, key));
        }
        self.states.insert(key, state);
        if self.connected.len() > CONNECTED_MAX
            && let Some((_, first)) = self.connected.pop_first()
        {
            self.states.remove(&first);
        }
        event
    }
}

/// Parts that all handshakes share.
struct Engine {
    config: Arc<Config>,
    /// Without its key, which the provider has.
    certificate: dimpl::DtlsCertificate,
    /// Receives the outputs of the library.
    buffer: Vec<u8>,
}

impl Engine {
    fn new(certificate: &DtlsCertificate) -> Self {
        let config = Config::builder()
            .mtu(MTU)
            .max_queue_rx(QUEUE_MAX)
            .use_server_cookie(false)
            .flight_start_rto(RETRANSMISSION_INTERVAL)
            .flight_retries(RETRANSMISSIONS_MAX)
            .handshake_timeout(HANDSHAKE_LIFETIME)
            .with_crypto_provider(provider(&certificate.key))
            .build();
        let config = config.expect("the limits are valid, and ring passes the library's checks");
        let certificate = dimpl::DtlsCertificate {
            certificate: certificate.der.clone(),
            private_key: Vec::new(),
        };
        Self { config: Arc::new(config), certificate, buffer: vec![0; DATAGRAM_MAX] }
    }
}

/// The DTLS state of a session.
struct State<A> {
    /// Address of the last datagram.
    client: A,
    /// The random of the ClientHello.
    random: Option<[u8; 32]>,
    /// The end of the handshake's time.
    deadline: Instant,
    /// The next time at which the handshake needs a call.
    timer: Instant,
    /// The library has a ChangeCipherSpec of DTLS 1.2. Others would fill its queue.
    has_change_cipher_spec: bool,
    doubt: Option<Doubt>,
    phase: Phase,
}

/// A sign of the client's end of the handshake, until the client goes on.
struct Doubt {
    failure: HandshakeFailure,
    until: Instant,
}

enum Phase {
    /// Datagrams with fragments of a ClientHello that is not complete.
    Hello(Vec<Box<[u8]>>),
    Handshake {
        dtls: Box<Dtls>,
        /// The certificate has an expected fingerprint.
        is_expected: bool,
    },
    Connected {
        dtls: Box<Dtls>,
        /// Position in the order of connections.
        number: u64,
    },
}

impl<A: Copy + PartialEq> State<A> {
    fn new(client: A, now: Instant) -> Self {
        let deadline = now + HANDSHAKE_LIFETIME;
        Self {
            client,
            random: None,
            deadline,
            timer: deadline,
            has_change_cipher_spec: false,
            doubt: None,
            phase: Phase::Hello(Vec::new()),
        }
    }

    /// The first sign counts: later ones do not postpone the end.
    fn doubt(&mut self, failure: HandshakeFailure, now: Instant) {
        self.doubt.get_or_insert(Doubt { failure, until: now + DOUBT_FOR });
        self.schedule(self.timer);
    }

    fn schedule(&mut self, at: Instant) {
        let until = self.doubt.as_ref().map_or(self.deadline, |doubt| doubt.until);
        self.timer = at.min(self.deadline).min(until);
    }

    fn receive(
        &mut self,
        engine: &mut Engine,
        expected: &[CertificateFingerprint],
        datagram: &[u8],
        now: Instant,
        output: &mut impl FnMut(A, &[u8]),
    ) -> Result<Option<HandshakeEvent>, HandshakeFailure> {
        let dropped = || Some(HandshakeEvent::Refused(HandshakeRefusal::Record));
        if datagram.len() > DATAGRAM_MAX {
            return Ok(dropped());
        }
        let mut hello = None;
        if let Phase::Hello(datagrams) = &mut self.phase {
            let (version, record) = match collect_hello(datagrams, datagram) {
                Ok(HelloProgress::Unrelated) => return Ok(dropped()),
                Ok(HelloProgress::Known) => return Ok(None),
                Ok(HelloProgress::Part) => {
                    self.doubt = None;
                    self.schedule(self.deadline);
                    return Ok(None);
                }
                Ok(HelloProgress::Complete { version, record }) => (version, record),
                Err(failure @ (HandshakeFailure::Malformed | HandshakeFailure::Large)) => {
                    self.doubt(failure, now);
                    return Ok(dropped());
                }
                Err(failure) => return Err(failure),
            };
            hello = Some(record);
            let new = match version {
                Version::Dtls12 => Dtls::new_12,
                Version::Dtls13 => Dtls::new_13,
            };
            let dtls = new(Arc::clone(&engine.config), engine.certificate.clone(), now);
            (self.doubt, self.deadline) = (None, now + HANDSHAKE_LIFETIME);
            self.phase = Phase::Handshake { dtls: Box::new(dtls), is_expected: false };
        }
        if let Some(dtls) = self.phase.dtls() {
            dtls.handle_timeout(now).map_err(HandshakeFailure::of)?;
        }
        let is_whole = self.pass(hello.as_deref().unwrap_or(datagram), now)?;
        let event = self.poll(engine, expected, output)?;
        Ok(if is_whole { event } else { event.or_else(dropped) })
    }

    /// Passes the records of a datagram to the library. Returns false if it dropped one.
    fn pass(&mut self, datagram: &[u8], now: Instant) -> Result<bool, HandshakeFailure> {
        let Some(dtls) = self.phase.dtls() else { return Ok(true) };
        let version = match dtls.protocol_version() {
            Some(ProtocolVersion::DTLS1_3) => Version::Dtls13,
            _ => Version::Dtls12,
        };
        let (mut is_whole, mut alert) = (true, None);
        for record in ClientRecords::of(datagram, version) {
            let (bytes, is_change_cipher_spec) = match record {
                ClientRecord::Usable(bytes) => (bytes, false),
                ClientRecord::ChangeCipherSpec(bytes) => (bytes, true),
                ClientRecord::PlainAlert(description) => {
                    (is_whole, alert) = (false, Some(description));
                    continue;
                }
                ClientRecord::Invalid => {
                    is_whole = false;
                    continue;
                }
            };
            if is_change_cipher_spec && self.has_change_cipher_spec {
                continue;
            }
            match dtls.handle_packet(bytes) {
                Ok(()) => {
                    self.has_change_cipher_spec |= is_change_cipher_spec;
                    self.doubt = None;
                }
                // The library has not changed its state.
                Err(
                    dimpl::Error::CryptoError(CryptoError::OperationFailed(
                        CryptoOperation::Decrypt,
                    ))
                    | dimpl::Error::ReceiveQueueFull,
                ) => is_whole = false,
                Err(error) => return Err(HandshakeFailure::of(error)),
            }
        }
        if let Some(description) = alert
            && matches!(self.phase, Phase::Handshake { .. })
        {
            self.doubt(HandshakeFailure::Alert(description), now);
        }
        Ok(is_whole)
    }

    fn handle_timeout(
        &mut self,
        engine: &mut Engine,
        now: Instant,
        output: &mut impl FnMut(A, &[u8]),
    ) -> Result<Option<HandshakeEvent>, HandshakeFailure> {
        if let Some(Doubt { failure, .. }) = self.doubt.take_if(|doubt| doubt.until <= now) {
            return Err(failure);
        }
        let Some(dtls) = self.phase.dtls() else { return Err(HandshakeFailure::Incomplete) };
        if now >= self.deadline {
            return Err(HandshakeFailure::Timeout);
        }
        dtls.handle_timeout(now).map_err(HandshakeFailure::of)?;
        // Certificates arrive in datagrams.
        self.poll(engine, &[], output)
    }

    /// Takes the outputs of the library. It reports the certificate and the keys before it sends its last flight.
    fn poll(
        &mut self,
        engine: &mut Engine,
        expected: &[CertificateFingerprint],
        output: &mut impl FnMut(A, &[u8]),
    ) -> Result<Option<HandshakeEvent>, HandshakeFailure> {
        let Some(dtls) = self.phase.dtls() else { return Ok(None) };
        let (mut certified, mut keys, mut closed) = (false, None, false);
        loop {
            match dtls.poll_output(&mut engine.buffer) {
                Output::Packet(datagram) => output(self.client, datagram),
                Output::PeerCert(certificate) => {
                    if !expected.iter().any(|fingerprint| fingerprint.matches(certificate)) {
                        return Err(HandshakeFailure::Fingerprint);
                    }
                    certified = true;
                }
                Output::KeyingMaterial(material, profile) => {
                    keys = srtp_keys(profile, &material);
                }
                Output::CloseNotify => closed = true,
                Output::BufferTooSmall { needed } => engine.buffer.resize(needed, 0),
                Output::Timeout(at) => {
                    self.schedule(at);
                    break;
                }
                _ => {}
            }
        }
        if let Phase::Handshake { is_expected, .. } = &mut self.phase {
            *is_expected |= certified;
            if keys.is_some() && !*is_expected {
                return Err(HandshakeFailure::Fingerprint);
            }
        }
        if keys.is_some() {
            self.phase.connect();
        }
        Ok(if closed { Some(HandshakeEvent::Closed) } else { keys.map(HandshakeEvent::Connected) })
    }
}

impl Phase {
    fn dtls(&mut self) -> Option<&mut Dtls> {
        match self {
            Self::Hello(_) => None,
            Self::Handshake { dtls, .. } | Self::Connected { dtls, .. } => Some(dtls),
        }
    }

    fn connect(&mut self) {
        let phase = std::mem::replace(self, Self::Hello(Vec::new()));
        *self = match phase {
            Self::Handshake { dtls, .. } => Self::Connected { dtls, number: 0 },
            other => other,
        };
    }
}

/// What a datagram adds to a ClientHello.
enum HelloProgress {
    /// It has no part of one.
    Unrelated,
    /// It came before.
    Known,
    Part,
    Complete {
        version: Version,
        /// The whole message.
        record: Vec<u8>,
    },
}

/// Adds a datagram to those with fragments of a ClientHello. After [`HandshakeFailure::Large`] and [`HandshakeFailure::Malformed`] a
/// repetition can still become complete.
fn collect_hello(
    datagrams: &mut Vec<Box<[u8]>>,
    datagram: &[u8],
) -> Result<HelloProgress, HandshakeFailure> {
    let first = |fragment: &Fragment<'_>| fragment.message_seq == 0;
    let new: Vec<_> = Fragment::all(datagram).into_iter().filter(first).collect();
    if new.is_empty() {
        return Ok(HelloProgress::Unrelated);
    }
    if new.iter().any(|fragment| fragment.length > HELLO_BYTES_MAX) {
        return Err(HandshakeFailure::Large);
    }
    // Forged fragments that came before do not matter to a message that comes whole.
    let mut message = Fragment::join(new.clone());
    if message.is_none() {
        let mut all: Vec<_> =
            datagrams.iter().flat_map(|datagram| Fragment::all(datagram)).filter(first).collect();
        let is_known = |new: &Fragment<'_>| {
            all.iter().any(|old| old.offset == new.offset && old.bytes.len() == new.bytes.len())
        };
        if new.iter().all(is_known) {
            return Ok(HelloProgress::Known);
        }
        all.extend(&new);
        message = Fragment::join(all);
    }
    let Some(message) = message else {
        if datagrams.len() >= HELLO_DATAGRAMS_MAX {
            // They never become complete, and the client repeats its own.
            datagrams.clear();
        }
        datagrams.push(datagram.into());
        return Ok(HelloProgress::Part);
    };
    datagrams.clear();
    let hello = ClientHello::parse(&message).ok_or(HandshakeFailure::Malformed)?;
    match hello.srtp {
        SrtpOffer::None => Err(HandshakeFailure::NoSrtp),
        SrtpOffer::Unsupported => Err(HandshakeFailure::NoCommonProfile),
        SrtpOffer::Supported => {
            let version = hello.version.ok_or(HandshakeFailure::Version)?;
            Ok(HelloProgress::Complete { version, record: Fragment::record(&message) })
        }
    }
}

/// Splits the exported material: the client's key, the server's, the client's salt, the server's (RFC 5764, section 4.2).
pub(crate) fn srtp_keys(profile: dimpl::SrtpProfile, material: &[u8]) -> Option<SrtpKeys> {
    let profile = match profile {
        dimpl::SrtpProfile::AEAD_AES_128_GCM => SrtpProfile::AeadAes128Gcm,
        dimpl::SrtpProfile::AEAD_AES_256_GCM => SrtpProfile::AeadAes256Gcm,
        dimpl::SrtpProfile::AES128_CM_SHA1_80 => SrtpProfile::Aes128CmHmacSha1Tag80,
        _ => return None,
    };
    let (client_key, rest) = material.split_at_checked(profile.key_len())?;
    let (gateway_key, rest) = rest.split_at_checked(profile.key_len())?;
    let (client_salt, gateway_salt) = rest.split_at_checked(profile.salt_len())?;
    Some(SrtpKeys {
        client: SrtpKey::new(profile, client_key, client_salt).ok()?,
        gateway: SrtpKey::new(profile, gateway_key, gateway_salt).ok()?,
        tag: None,
    })
}

/// A fatal alert in plain text. A client takes it until it has received the ServerHello of DTLS 1.3, or the last flight of DTLS 1.2.
fn alert_record(description: u8) -> [u8; 15] {
    const FATAL: u8 = 2;
    let [a, b, c, d] = ALERT_SEQUENCE.to_be_bytes();
    [21, 0xfe, 0xfd, 0, 0, 0, 0, a, b, c, d, 0, 2, FATAL, description]
}

#[cfg(test)]
pub(crate) mod tests;
