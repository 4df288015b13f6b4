//! The state of a gateway, for the process that continues its sessions, and its replica, kept from batches of records.
//!
//! The encoding begins with a format version and the time, on the clock that all processes of the machine share, from
//! which the times in the state count. The state is MessagePack with the names of the fields: a version may add fields
//! with defaults and ignores fields that it does not know.
//!
//! The last states of an upgrade are encoded while packets wait: in Postcard if both processes have the same layout of
//! them ([`STATES`]), which takes half of the time.
//!
//! The functions that read and write MessagePack are `#[inline]`: their code, a third of this crate's, is made in the crates that
//! call them, which are built for size, since no packet waits for it.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::iter::Peekable;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_contract::sessions::{EndedSession, SessionRating};
use evenkeel_core::{GatewayRecord, RoomRecord, SessionRecord};
use evenkeel_dataplane::worker::{SessionState, TrunkState};
use evenkeel_drivers::{DriversRecord, DriversReplica};
use evenkeel_instant as instant;
use evenkeel_kept::{Encoded, KeptPart};
use evenkeel_media::srtp::{CopyNumber, CopyProof, SentBatch};
use evenkeel_model::{MediaDescription, RoomId, SessionId};
use evenkeel_policies::PolicyRecords;
use evenkeel_slo::SloRecord;
use nix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::alerts::AlertsRecord;
use crate::certificates::CertificatesRecord;
use crate::changes::ChangeRecord;
use crate::forecasts::{EarlierForecasts, ForecastPart, ForecastParts};
use crate::idempotency::{KeyRecord, KeyReplica};
use crate::messages::SnapshotError;
use crate::offers::RequestInterner;
use crate::operations::Operations;
use crate::registry::{EntryRecord, RegistryRecord, ReservedPorts};
use crate::session_urls::SessionUrlSecret;

/// The first bytes of an encoded snapshot.
const MAGIC: &[u8; 8] = b"evenkeel";

/// The format that this version writes.
const FORMAT: u32 = 2;

/// The first bytes of last states in Postcard.
const STATES_MAGIC: &[u8; 8] = b"evkstate";

/// The layout of last states in Postcard, which names neither fields nor types. It changes with any of them: a test
/// compares the bytes of some states, and misses exchanged fields of one type, wider integers, and variants that these
/// states lack.
pub const STATES: u32 = 12;

/// The state of a gateway.
#[derive(Debug, Serialize, Deserialize)]
pub struct Snapshot {
    pub(crate) core: GatewayRecord,
    pub(crate) registry: RegistryRecord,
    pub(crate) drivers: DriversRecord,
    pub(crate) media: Vec<MediaRecord>,
    /// The trunks of each worker.
    pub(crate) trunks: Vec<Vec<TrunkState>>,
    pub(crate) next_offer: u64,
    pub(crate) idempotency_keys: Vec<KeyRecord>,
    #[serde(default)]
    pub(crate) policies: PolicyRecords,
}

/// The state that a session's worker keeps.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MediaRecord {
    /// Maps and sorts of records move it.
    #[serde(with = "compact")]
    pub(crate) state: Box<SessionState>,
    /// The number of the session's own sockets: RTP, then RTCP. Their descriptors follow in this order.
    pub(crate) sockets: u8,
}

/// The last states of sessions that changed since their records, and of trunks.
#[derive(Debug, Serialize, Deserialize)]
pub struct MediaStates {
    pub(crate) media: Vec<MediaRecord>,
    /// The trunks of each worker.
    pub(crate) trunks: Vec<Vec<TrunkState>>,
}

impl MediaStates {
    /// Encodes the states for a process that reads this layout of them besides MessagePack.
    #[inline]
    pub fn encode(&self, layout: Option<u32>) -> Vec<u8> {
        if layout == Some(STATES) { self.encode_postcard() } else { encode(self) }
    }

    #[inline(never)]
    fn encode_postcard(&self) -> Vec<u8> {
        let (encoded, reference) = begin(STATES_MAGIC, STATES);
        instant::relative_to(reference, || self.write(encoded))
    }

    /// Adds the states in Postcard.
    fn write(&self, encoded: Vec<u8>) -> Vec<u8> {
        // Their sockets came with the records.
        let states: Vec<&SessionState> = self.media.iter().map(|record| &*record.state).collect();
        postcard::to_extend(&(states, &self.trunks), encoded)
            .expect("a vector takes all bytes, and all times are within years")
    }

    /// Reads states in either encoding.
    #[inline]
    pub fn decode(encoded: &[u8]) -> Result<MediaStates, SnapshotError> {
        match encoded.starts_with(STATES_MAGIC) {
            true => MediaStates::decode_postcard(encoded),
            false => decode(encoded, None),
        }
    }

    #[inline(never)]
    fn decode_postcard(encoded: &[u8]) -> Result<MediaStates, SnapshotError> {
        let (reference, rest) = read_head(encoded, STATES_MAGIC, STATES, None)?;
        let read = instant::relative_to(reference, || postcard::take_from_bytes(rest));
        let ((states, trunks), rest): ((Vec<Box<SessionState>>, _), _) =
            read.map_err(|error| SnapshotError::malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(SnapshotError::malformed("bytes follow its end"));
        }
        let record = |state| MediaRecord { state, sockets: 0 };
        Ok(MediaStates { media: states.into_iter().map(record).collect(), trunks })
    }
}

/// Records that changed since the last batch.
#[derive(Debug, Serialize, Deserialize)]
pub struct RecordBatch {
    /// 1 for the first batch of a follower.
    pub(crate) number: u64,
    /// The batches up to this one contain all records.
    pub(crate) whole: bool,
    /// The gateway decides nothing any more. States that change yet follow apart.
    pub(crate) last: bool,
    pub(crate) ended: Vec<SessionId>,
    pub(crate) dissolved: Vec<RoomId>,
    /// Contains changed rooms and sessions only. Without nodes, those of the last batch still hold.
    pub(crate) changed: Snapshot,
    /// Records of ended sessions, each once, oldest first.
    #[serde(default)]
    pub(crate) history: Vec<EndedSession>,
    /// Ratings of sessions, each once, oldest first.
    #[serde(default)]
    pub(crate) ratings: Vec<SessionRating>,
    /// Documents that changed since the last batch.
    #[serde(default)]
    pub(crate) kept: Option<KeptPart>,
    /// Operators' operations in force, if they changed since the last batch: earlier versions have no other documents.
    #[serde(default)]
    pub(crate) operations: Option<Operations>,
    /// The alerts that are being sent, as `operations`.
    #[serde(default)]
    pub(crate) alerts: Option<AlertsRecord>,
    /// A part of the forecasts of an owner of an earlier version.
    #[serde(default)]
    pub(crate) forecasts: Option<ForecastPart>,
    /// Changes of an owner of an earlier version since its last batch.
    #[serde(default)]
    pub(crate) changes: Vec<ChangeRecord>,
    /// The certificates that clients see, if they changed since the last batch.
    #[serde(default)]
    pub certificates: Option<CertificatesRecord>,
    /// The newest batch that the follower had acknowledged when the copies in this one were made; 0: none.
    #[serde(default)]
    pub(crate) echo: u64,
    /// The number of the standby in the grant of indices.
    #[serde(skip)]
    pub(crate) standby: u64,
    /// The copies in this batch.
    #[serde(skip)]
    pub(crate) copies: Vec<CopyNumber>,
}

impl RecordBatch {
    /// All records.
    pub(crate) fn whole(snapshot: Snapshot) -> RecordBatch {
        RecordBatch {
            number: 1,
            whole: true,
            last: true,
            ended: Vec::new(),
            dissolved: Vec::new(),
            changed: snapshot,
            history: Vec::new(),
            ratings: Vec::new(),
            kept: None,
            operations: None,
            alerts: None,
            forecasts: None,
            changes: Vec::new(),
            certificates: None,
            echo: 0,
            standby: 0,
            copies: Vec::new(),
        }
    }

    /// The number of the batch, which counts from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The batches up to this one contain all records.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Packets are forwarded after this batch.
    pub fn precedes_packets(&mut self) {
        self.last = false;
    }

    /// Encodes the batch.
    #[inline]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a batch. Times in a batch of another machine count from its arrival.
    #[inline]
    pub fn decode(encoded: &[u8], arrived: Option<Instant>) -> Result<RecordBatch, SnapshotError> {
        decode(encoded, arrived)
    }

    /// The parts of the batch that its acknowledgement acknowledges.
    pub fn take_sent(&mut self) -> SentBatch {
        let copies = std::mem::take(&mut self.copies);
        SentBatch { follower: self.standby, number: self.number, copies }
    }

    /// The sessions to which descriptors belong, in their order.
    #[cfg(any(test, feature = "samples"))]
    pub fn with_sockets(&self) -> Vec<SessionId> {
        self.changed.with_sockets()
    }

    /// The states of policies in the records of sessions.
    #[cfg(any(test, feature = "samples"))]
    pub fn policy_states(&self) -> Vec<String> {
        let states = self.changed.core.sessions.iter().map(|session| {
            let text = format!("{session:?}");
            text[text.find("memory:").expect("a record has states of policies")..].to_owned()
        });
        states.collect()
    }

    /// The number of sessions with a record or a state.
    #[cfg(any(test, feature = "samples"))]
    pub fn sessions(&self) -> usize {
        self.changed.core.sessions.len().max(self.changed.media.len())
    }
}

impl Snapshot {
    /// Sessions without sockets get other ports, and are opened again at nodes that know the old ones.
    pub(crate) fn lose_ports(&mut self) {
        let with_sockets = self.media.iter().filter(|record| record.sockets > 0);
        let kept: BTreeSet<SessionId> = with_sockets.map(|record| record.state.session).collect();
        self.drivers.lose_ports(|session| kept.contains(&session));
        let lost = self.media.iter_mut().filter(|record| record.sockets == 0);
        let lost = lost.map(|record| (record.state.session, &mut *record.state));
        let mut lost: BTreeMap<SessionId, &mut SessionState> = lost.collect();
        for session in &mut self.core.sessions {
            let Some(state) = lost.get_mut(&session.id) else { continue };
            let lost = state.legs.extract_if(.., |(_, leg)| leg.port().is_some());
            let lost: Vec<_> = lost.map(|(hop, _)| hop).collect();
            session.legs.iter_mut().for_each(|leg| leg.open &= !lost.contains(&leg.hop));
        }
    }

    /// Gives sessions at workers these sockets, RTP before RTCP, and returns all in the order of the sessions.
    fn take_ports(
        &mut self,
        mut take: impl FnMut(SessionId, (u16, Option<u16>)) -> Vec<OwnedFd>,
    ) -> Vec<OwnedFd> {
        let entries = self.registry.sessions.iter();
        let numbers = entries.filter_map(|entry| Some((entry.session, entry.ports?)));
        let numbers: BTreeMap<SessionId, (u16, Option<u16>)> = numbers.collect();
        let mut descriptors = Vec::new();
        for MediaRecord { state, sockets } in &mut self.media {
            let numbers = numbers.get(&state.session);
            let own = numbers.map_or_else(Vec::new, |numbers| take(state.session, *numbers));
            *sockets = own.len() as u8;
            descriptors.extend(own);
        }
        descriptors
    }

    /// With another id in the first state of a session at a worker.
    #[cfg(any(test, feature = "samples"))]
    pub fn with_stray_session(mut self, id: SessionId) -> Snapshot {
        self.media[0].state.session = id;
        self
    }

    /// The sessions to which descriptors belong, in their order.
    #[cfg(any(test, feature = "samples"))]
    pub fn with_sockets(&self) -> Vec<SessionId> {
        let with_sockets = self.media.iter().filter(|record| record.sockets > 0);
        with_sockets.map(|record| record.state.session).collect()
    }

    /// Leaves out the hops that rooms have left since they were recorded.
    #[cfg(any(test, feature = "samples"))]
    pub fn without_left_hops(mut self) -> Snapshot {
        let now = Instant::now();
        for room in &mut self.core.rooms {
            room.leaving = room.leaving.filter(|(_, until)| now < *until);
        }
        self
    }
}

/// Encodes records of policies.
#[inline]
pub fn encode_policies(records: &PolicyRecords) -> Vec<u8> {
    encode(records)
}

/// Reads records of policies of another process of this machine.
#[inline]
pub fn decode_policies(encoded: &[u8]) -> Result<PolicyRecords, SnapshotError> {
    decode(encoded, None)
}

pub(crate) fn encode(state: &impl Serialize) -> Vec<u8> {
    let (mut encoded, reference) = begin(MAGIC, FORMAT);
    let mut serializer = rmp_serde::Serializer::new(&mut encoded).with_struct_map();
    instant::relative_to(reference, || state.serialize(&mut serializer))
        .expect("a vector takes all bytes, and all times are within years");
    encoded
}

/// The head of an encoding, and the instant from which the times in the rest count.
fn begin(magic: &[u8; 8], format: u32) -> (Vec<u8>, Instant) {
    let reference = SharedInstant::read();
    let mut encoded = magic.to_vec();
    encoded.extend(format.to_be_bytes());
    encoded.extend(reference.nanos.to_be_bytes());
    (encoded, reference.instant)
}

/// Reads the head of an encoding in the known format: the instant from which the times in the rest count, and the rest.
fn read_head<'a>(
    encoded: &'a [u8],
    magic: &[u8; 8],
    known: u32,
    arrived: Option<Instant>,
) -> Result<(Instant, &'a [u8]), SnapshotError> {
    let no_head = || SnapshotError::malformed("it does not begin as a state of a gateway");
    let rest = encoded.strip_prefix(magic).ok_or_else(no_head)?;
    let (format, rest) = rest.split_first_chunk().ok_or_else(no_head)?;
    match u32::from_be_bytes(*format) {
        found if found > known => return Err(SnapshotError::Newer { found, known }),
        found if found < known => {
            return Err(SnapshotError::malformed("it has an older format"));
        }
        _ => {}
    }
    let (nanos, rest) = rest.split_first_chunk().ok_or_else(no_head)?;
    let reference =
        arrived.or_else(|| SharedInstant::read().instant_at(u64::from_be_bytes(*nanos)));
    let reference = reference.ok_or_else(|| SnapshotError::malformed("its time is no time"))?;
    Ok((reference, rest))
}

/// Reads a state. `arrived`: the instant from which its times count; without it, they count on the clock of this machine.
pub(crate) fn decode<T: DeserializeOwned>(
    encoded: &[u8],
    arrived: Option<Instant>,
) -> Result<T, SnapshotError> {
    let (reference, rest) = read_head(encoded, MAGIC, FORMAT, arrived)?;
    instant::relative_to(reference, || rmp_serde::from_slice(rest))
        .map_err(|error| SnapshotError::Malformed(error.to_string()))
}

/// Each packet changes the state of its session, so it is encoded often: without names of fields.
mod compact {
    use evenkeel_dataplane::worker::SessionState;
    use serde::Deserialize;
    use serde::de::{Deserializer, Error as _};
    use serde::ser::{Error as _, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        state: &SessionState,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let bytes = rmp_serde::to_vec(state).map_err(S::Error::custom)?;
        serializer.serialize_bytes(&bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Box<SessionState>, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        rmp_serde::from_slice(bytes).map_err(D::Error::custom)
    }
}

/// One moment on the clock that all processes of the machine share.
#[derive(Clone, Copy)]
struct SharedInstant {
    instant: Instant,
    /// Nanoseconds of CLOCK_MONOTONIC.
    nanos: u64,
}

impl SharedInstant {
    /// Reads the clock twice, since an [`Instant`] does not tell its value. Of several attempts the one without an
    /// interruption counts.
    fn read() -> SharedInstant {
        let attempt = || {
            let before = Instant::now();
            let time =
                clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every system has this clock");
            let took = before.elapsed();
            let nanos = Duration::from(time).as_nanos() as u64;
            (took, SharedInstant { instant: before + took / 2, nanos })
        };
        let best = (0..5).map(|_| attempt()).min_by_key(|(took, _)| *took);
        best.map(|(_, shared)| shared).expect("there were attempts")
    }

    fn instant_at(self, nanos: u64) -> Option<Instant> {
        let distance = Duration::from_nanos(nanos.abs_diff(self.nanos));
        match nanos < self.nanos {
            true => self.instant.checked_sub(distance),
            false => self.instant.checked_add(distance),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotApplied {
    #[error(
        "batch {found} came, batch {next} is the next: the records must be sent from the beginning"
    )]
    Gap { found: u64, next: u64 },
}

/// The records that batches brought so far.
#[derive(Clone, Debug, Default)]
pub struct Replica {
    number: u64,
    whole: bool,
    last: bool,
    /// Nodes, regions, memos and numbers.
    common: Option<GatewayRecord>,
    rooms: BTreeMap<RoomId, RoomRecord>,
    sessions: BTreeMap<SessionId, (SessionRecord, Arc<MediaDescription>)>,
    interner: RequestInterner,
    entries: BTreeMap<SessionId, EntryRecord>,
    states: BTreeMap<SessionId, MediaRecord>,
    /// Without sessions.
    registry: Option<RegistryRecord>,
    drivers: DriversReplica,
    trunks: Vec<Vec<TrunkState>>,
    next_offer: u64,
    idempotency_keys: KeyReplica,
    /// Not taken yet.
    policies: PolicyRecords,
    /// Not taken yet.
    history: Vec<EndedSession>,
    /// Not taken yet.
    ratings: Vec<SessionRating>,
    /// Not taken yet.
    kept: Vec<KeptPart>,
    /// The owner sends no documents but operations and alerts.
    is_of_earlier_version: bool,
    forecasts: ForecastParts,
    /// Sessions of the last batch with sockets: descriptors follow in this order.
    with_sockets: Vec<SessionId>,
    ports: ReservedPorts,
    /// Tells whether the indices of SRTP in the states hold.
    proof: CopyProof,
    /// The [suspended time](suspended) at the last batch, during which the proof's clock stood still and the owner's did not.
    suspended: Duration,
}

/// Difference of two [suspended times](suspended) that shows a suspension. A shorter one is within the margin of [`CopyProof`], and
/// the clocks are not read at once.
const SUSPENSION_MIN: Duration = Duration::from_millis(20);

/// For how long this machine was suspended since it started, which an [`Instant`] does not count (clock_gettime(2)).
fn suspended() -> Duration {
    let read = |clock| clock_gettime(clock).map_or(Duration::ZERO, Duration::from);
    let attempt = || {
        let with_suspensions = read(ClockId::CLOCK_BOOTTIME);
        with_suspensions.saturating_sub(read(ClockId::CLOCK_MONOTONIC))
    };
    // An interruption between both makes it less.
    (0..3).map(|_| attempt()).max().unwrap_or_default()
}

impl Replica {
    /// A replica without records.
    pub fn new() -> Replica {
        Replica::default()
    }

    /// The records of a gateway that binds its sessions' own ports to this address, which moves here with them.
    pub fn with_ports_at(at: Option<IpAddr>) -> Replica {
        Replica { ports: ReservedPorts::new(at), ..Replica::default() }
    }

    /// The number of the last batch; 0 before the first one.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Takes the next batch. The first batch of a follower replaces all records.
    ///
    /// # Errors
    /// If a batch is missing. Nothing has changed then.
    pub fn apply(&mut self, batch: RecordBatch) -> Result<(), NotApplied> {
        let (whole, last) = (batch.whole, batch.last);
        let RecordBatch { number: found, ended, dissolved, changed, .. } = batch;
        let next = self.number + 1;
        if found == 1 {
            let ports = std::mem::take(&mut self.ports);
            *self = Replica { ports, ..Replica::default() };
        } else if found != next {
            return Err(NotApplied::Gap { found, next });
        }
        let was_whole = std::mem::replace(&mut self.whole, whole);
        (self.number, self.last) = (found, last);
        for id in ended {
            self.sessions.remove(&id);
            self.entries.remove(&id);
            self.states.remove(&id);
            self.drivers.forget(id);
            self.ports.forget(id);
            self.idempotency_keys.end_session(id);
        }
        for id in dissolved {
            self.rooms.remove(&id);
        }
        self.is_of_earlier_version |= found == 1 && batch.kept.is_none();
        self.kept.extend(batch.kept);
        self.kept.extend(KeyRecord::kept(&changed.idempotency_keys));
        if self.is_of_earlier_version {
            let operations = batch.operations.map(|it| KeptPart::of_rows([Encoded::new("", &it)]));
            let alerts = batch.alerts.map(|it| KeptPart::of_rows([Encoded::new("", &it)]));
            self.kept.extend(operations.into_iter().chain(alerts));
        }
        batch.forecasts.into_iter().for_each(|part| self.forecasts.add(part));
        self.kept.extend(ChangeRecord::kept(&batch.changes));
        let Snapshot {
            core,
            registry,
            drivers,
            media,
            trunks,
            next_offer,
            idempotency_keys,
            policies,
        } = changed;
        self.policies.extend(policies);
        self.history.extend(batch.history);
        self.ratings.extend(batch.ratings);
        self.drivers.apply(drivers, core.sessions.iter().map(|session| session.id));
        self.take_core(core);
        let mut registry = registry;
        for entry in std::mem::take(&mut registry.sessions) {
            if let Some(numbers) = entry.ports {
                self.ports.reserve(entry.session, registry.ports_at, numbers);
            }
            self.entries.insert(entry.session, entry);
        }
        if whole && !was_whole {
            // Sessions that ended while no batch came.
            self.ports.retain(|session| self.entries.contains_key(&session));
        }
        self.registry = Some(registry);
        // An earlier copy of a session with sockets may come before the one with its descriptors.
        let with_sockets = media.iter().filter(|record| record.sockets > 0);
        self.with_sockets = with_sockets.map(|record| record.state.session).collect();
        if self.was_suspended() {
            self.proof = CopyProof::default();
        }
        self.suspended = suspended();
        let now = Instant::now();
        let received = self.proof.receive(found, batch.echo, now).then_some(now);
        for mut record in media {
            record.state.received = received;
            self.states.insert(record.state.session, record);
        }
        (self.trunks, self.next_offer) = (trunks, next_offer);
        self.idempotency_keys.extend(idempotency_keys);
        Ok(())
    }

    /// The machine was suspended since the last batch: the owner may have sent beyond its limits meanwhile.
    fn was_suspended(&self) -> bool {
        suspended().abs_diff(self.suspended) >= SUSPENSION_MIN
    }

    fn take_core(&mut self, core: GatewayRecord) {
        let GatewayRecord { rooms, sessions, media, .. } = core;
        self.rooms.extend(rooms.into_iter().map(|room| (room.id, room)));
        let shared: Vec<Arc<MediaDescription>> =
            media.into_iter().map(|media| self.interner.media.share(media)).collect();
        for mut session in sessions {
            if let Some(media) = shared.get(session.media as usize) {
                session.labels = self.interner.labels.share(session.labels);
                self.sessions.insert(session.id, (session, Arc::clone(media)));
            }
        }
        let mut before = self.common.take();
        let slo = before.as_mut().and_then(|before| before.slo.take());
        let slo = SloRecord::merged(slo, core.slo);
        let before = before.filter(|_| core.nodes.is_empty());
        let (rooms, sessions, media) = Default::default();
        let core = GatewayRecord { rooms, sessions, media, slo, ..core };
        self.common = Some(match before {
            Some(before) => core.with_nodes_of(before),
            None => core,
        });
    }

    /// The state of a gateway with these records. A session is left out as long as a part of it is missing. `None`
    /// before the first batch.
    pub fn snapshot(mut self) -> Option<Snapshot> {
        if self.was_suspended() {
            self.proof = CopyProof::default();
        }
        let Replica { mut rooms, drivers, trunks, .. } = self;
        let (mut core, registry) = (self.common?, self.registry?);
        let now = Instant::now();
        let (mut entries, mut states) = (ById::new(self.entries), ById::new(self.states));
        let count = self.sessions.len();
        core.sessions = Vec::with_capacity(count);
        let (mut of_sessions, mut media_records) =
            (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut places: BTreeMap<*const MediaDescription, u32> = BTreeMap::new();
        for (id, (mut session, media)) in self.sessions {
            let (entry, mut state) = (entries.take(id), states.take(id));
            let Some(mut entry) = entry.filter(|_| rooms.contains_key(&session.room)) else {
                continue;
            };
            match &mut state {
                Some(MediaRecord { state, .. }) => {
                    if self.last {
                        state.copied = false;
                    }
                    let holds_until = |received| self.proof.holds_until(received);
                    state.holds_until = state.received.and_then(holds_until);
                    state.legs.retain(|(hop, _)| session.legs.iter().any(|leg| leg.hop == *hop));
                    let has_leg = |hop| state.legs.iter().any(|(at, _)| *at == hop);
                    session.legs.iter_mut().for_each(|leg| leg.open &= has_leg(leg.hop));
                    let heard = state.last_heard();
                    session.last_heard =
                        heard.map_or(session.last_heard, |at| at.max(session.last_heard));
                    entry.totals = state.totals(now).unwrap_or(entry.totals);
                }
                None => session.legs.iter_mut().for_each(|leg| leg.open = false),
            }
            let next = places.len() as u32;
            session.media = *places.entry(Arc::as_ptr(&media)).or_insert_with(|| {
                core.media.push(media);
                next
            });
            core.sessions.push(session);
            of_sessions.push(entry);
            media_records.extend(state);
        }
        let mut inhabited: Vec<RoomId> = core.sessions.iter().map(|it| it.room).collect();
        inhabited.sort_unstable();
        rooms.retain(|id, _| inhabited.binary_search(id).is_ok());
        core.rooms = rooms.into_values().collect();
        let places: BTreeMap<SessionId, usize> =
            self.with_sockets.iter().copied().zip(0..).collect();
        let place = |record: &MediaRecord| places.get(&record.state.session).copied();
        media_records.sort_by_key(|record| place(record).unwrap_or(places.len()));
        Some(Snapshot {
            drivers: drivers.record(),
            registry: registry.with_sessions(of_sessions),
            media: media_records,
            trunks,
            next_offer: self.next_offer,
            idempotency_keys: self.idempotency_keys.records(),
            policies: self.policies,
            core,
        })
    }

    /// The state of a gateway with these records, and the sockets of its sessions. A session has none if its ports are
    /// not free here.
    pub fn snapshot_with_ports(mut self) -> Option<(Snapshot, Vec<OwnedFd>)> {
        let mut ports = std::mem::take(&mut self.ports);
        let at = self.registry.as_ref()?.ports_at;
        let mut snapshot = self.snapshot()?;
        let descriptors = snapshot.take_ports(|session, numbers| {
            ports.reserve(session, at, numbers);
            ports.take(session)
        });
        Some((snapshot, descriptors))
    }

    /// The number of sessions.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Returns whether all records have come.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Sessions have ports that are to be bound here: a clone reserves none.
    pub fn has_ports(&self) -> bool {
        self.ports.binds() && self.entries.values().any(|entry| entry.ports.is_some())
    }

    /// Something is to be taken: records of policies or of ended sessions, ratings, or documents.
    pub fn has_news(&self) -> bool {
        !self.policies.is_empty()
            || !self.history.is_empty()
            || !self.ratings.is_empty()
            || !self.kept.is_empty()
            || self.forecasts.is_whole()
    }

    pub(crate) fn keys(&self) -> Vec<KeyRecord> {
        self.idempotency_keys.records()
    }

    /// Takes the records of policies that changed, for [`Handle::restore_policies`](crate::Handle::restore_policies).
    pub fn take_policies(&mut self) -> PolicyRecords {
        std::mem::take(&mut self.policies)
    }

    /// Takes the records of ended sessions that came, for [`Handle::copy_history`](crate::Handle::copy_history).
    pub fn take_history(&mut self) -> Vec<EndedSession> {
        std::mem::take(&mut self.history)
    }

    /// Takes the ratings that came, for [`Handle::copy_history`](crate::Handle::copy_history).
    pub fn take_ratings(&mut self) -> Vec<SessionRating> {
        std::mem::take(&mut self.ratings)
    }

    /// Takes the documents that changed, for [`Handle::copy_kept`](crate::Handle::copy_kept).
    pub fn take_kept(&mut self) -> Vec<KeptPart> {
        std::mem::take(&mut self.kept)
    }

    /// Takes the forecasts of an owner of an earlier version, once all parts came.
    pub fn take_forecasts(&mut self) -> Option<EarlierForecasts> {
        self.forecasts.take_whole()
    }

    /// The secret of the URLs of the owner's sessions.
    pub fn url_secret(&self) -> Option<SessionUrlSecret> {
        self.registry.as_ref()?.url_secret
    }

    /// The bit rate that all sessions need, kbit/s.
    pub fn need_kbps(&self) -> u64 {
        self.sessions.values().map(|(session, media)| session.need_kbps(media)).sum()
    }

    /// Tries to bind the sessions' own ports that were not free here. Returns the lowest of those that are not free yet.
    pub fn taken_port(&mut self) -> Option<u16> {
        let at = self.registry.as_ref()?.ports_at;
        let entries = self.entries.values();
        let ports = entries.filter_map(|entry| Some((entry.session, entry.ports?)));
        let taken = ports.filter(|(session, numbers)| !self.ports.reserve(*session, at, *numbers));
        taken.map(|(_, (rtp, _))| rtp).min()
    }
}

/// Parts of sessions, taken in the order of the sessions.
struct ById<T>(Peekable<btree_map::IntoIter<SessionId, T>>);

impl<T> ById<T> {
    fn new(parts: BTreeMap<SessionId, T>) -> ById<T> {
        ById(parts.into_iter().peekable())
    }

    /// Drops the parts of sessions before this one.
    fn take(&mut self, session: SessionId) -> Option<T> {
        while self.0.next_if(|(id, _)| *id < session).is_some() {}
        self.0.next_if(|(id, _)| *id == session).map(|(_, part)| part)
    }
}

#[cfg(test)]
pub(crate) mod tests;
