//! The state of a gateway, for the process that continues its sessions.
//!
//! The encoding begins with a format version and the time, on the clock that all processes of the machine share, from
//! which the times in the state count. The state is MessagePack with the names of the fields: a version may add fields
//! with defaults and ignores fields that it does not know.
//!
//! The last states of an upgrade are encoded while packets wait: in Postcard if both processes have the same layout of
//! them ([`STATES`]), which takes half of the time.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use evenkeel_core::GatewayRecord;
use evenkeel_dataplane::worker::{HandedOut, SessionState, TrunkState};
use evenkeel_drivers::DriversRecord;
use evenkeel_media::instant;
use evenkeel_model::{RoomId, SessionId};
use nix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::KeyRecord;
use crate::messages::{NotSuspended, SnapshotError};
use crate::registry::record::RegistryRecord;

/// The first bytes of an encoded snapshot.
const MAGIC: &[u8; 8] = b"evenkeel";

/// The format that this version writes.
const FORMAT: u32 = 2;

/// The first bytes of last states in Postcard.
const STATES_MAGIC: &[u8; 8] = b"evkstate";

/// The layout of last states in Postcard, which names neither fields nor types. It changes with any of them: a test
/// compares the bytes of some states, and misses exchanged fields of one type, wider integers, and variants that these
/// states lack.
pub const STATES: u32 = 1;

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
}

/// The state that a session's worker keeps.
#[derive(Debug, Serialize, Deserialize)]
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
    pub fn encode(&self, layout: Option<u32>) -> Vec<u8> {
        if layout != Some(STATES) {
            return encode(self);
        }
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
    pub fn decode(encoded: &[u8]) -> Result<MediaStates, SnapshotError> {
        if !encoded.starts_with(STATES_MAGIC) {
            return decode(encoded, None);
        }
        let SnapshotHead { format, reference, rest } =
            SnapshotHead::read(encoded, STATES_MAGIC, STATES, None)?;
        if format != STATES {
            return Err(SnapshotError::malformed("its layout is an older one"));
        }
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

impl From<Snapshot> for MediaStates {
    fn from(snapshot: Snapshot) -> MediaStates {
        MediaStates { media: snapshot.media, trunks: snapshot.trunks }
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
}

/// All records.
impl From<Snapshot> for RecordBatch {
    fn from(snapshot: Snapshot) -> RecordBatch {
        let (ended, dissolved) = (Vec::new(), Vec::new());
        RecordBatch { number: 1, whole: true, last: true, ended, dissolved, changed: snapshot }
    }
}

impl RecordBatch {
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

    pub(crate) fn add_keys(&mut self, keys: Vec<KeyRecord>) {
        self.changed.idempotency_keys.extend(keys);
    }

    /// Encodes the batch.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a batch. Times in a batch of another machine count from its arrival.
    pub fn decode(encoded: &[u8], arrived: Option<Instant>) -> Result<RecordBatch, SnapshotError> {
        decode(encoded, arrived)
    }
}

/// The last states of a gateway that stops its packets, as the workers hand them out.
#[derive(Debug)]
pub struct LastStates {
    pub(crate) parts: mpsc::Receiver<HandedOut>,
    /// Of each worker that has handed out its sessions.
    pub(crate) trunks: Vec<Option<Vec<TrunkState>>>,
    pub(crate) until: Instant,
}

/// A part of the last states.
#[derive(Debug)]
pub struct LastStatesPart {
    /// The states.
    pub states: MediaStates,
    /// No part follows.
    pub is_last: bool,
}

impl LastStates {
    pub async fn next(&mut self) -> Result<LastStatesPart, NotSuspended> {
        loop {
            let part = tokio::time::timeout_at(self.until.into(), self.parts.recv()).await;
            match part.ok().flatten() {
                Some(HandedOut::Sessions(sessions)) => {
                    let record = |state| MediaRecord { state: Box::new(state), sockets: 0 };
                    let media = sessions.into_iter().map(record).collect();
                    let states = MediaStates { media, trunks: Vec::new() };
                    return Ok(LastStatesPart { states, is_last: false });
                }
                Some(HandedOut::Trunks { worker, trunks }) => {
                    self.trunks[usize::from(worker)] = Some(trunks);
                    if self.trunks.iter().all(Option::is_some) {
                        let trunks = self.trunks.drain(..).flatten().collect();
                        let states = MediaStates { media: Vec::new(), trunks };
                        return Ok(LastStatesPart { states, is_last: true });
                    }
                }
                None => {
                    let missing = self.trunks.iter().position(Option::is_none);
                    return Err(NotSuspended::Worker(missing.unwrap_or_default()));
                }
            }
        }
    }
}

impl Snapshot {
    /// Gives sessions at workers these sockets, RTP before RTCP, and returns all in the order of the sessions.
    pub(crate) fn take_ports(
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

    /// Sessions without sockets get other ports, and are opened again at nodes that know the old ones.
    pub(crate) fn lose_ports(&mut self) {
        let with_sockets = self.media.iter().filter(|record| record.sockets > 0);
        let kept: BTreeSet<SessionId> = with_sockets.map(|record| record.state.session).collect();
        self.drivers.lose_ports(|session| kept.contains(&session));
        let lost = self.media.iter_mut().filter(|record| record.sockets == 0);
        let lost = lost.map(|record| (record.state.session, &mut *record.state));
        let mut lost: BTreeMap<SessionId, &mut SessionState> =
            lost.filter(|(_, state)| state.has_port_legs()).collect();
        for session in &mut self.core.sessions {
            let Some(state) = lost.get_mut(&session.id) else { continue };
            session.legs.iter_mut().for_each(|leg| leg.open &= !state.has_port_leg(leg.hop));
            state.drop_port_legs();
        }
    }
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

struct SnapshotHead<'a> {
    format: u32,
    reference: Instant,
    rest: &'a [u8],
}

impl SnapshotHead<'_> {
    fn read<'a>(
        encoded: &'a [u8],
        magic: &[u8; 8],
        known: u32,
        arrived: Option<Instant>,
    ) -> Result<SnapshotHead<'a>, SnapshotError> {
        let no_head = || SnapshotError::malformed("it does not begin as a state of a gateway");
        let rest = encoded.strip_prefix(magic).ok_or_else(no_head)?;
        let (format, rest) = rest.split_first_chunk().ok_or_else(no_head)?;
        let format = u32::from_be_bytes(*format);
        if format > known {
            return Err(SnapshotError::Newer { found: format, known });
        }
        let (nanos, rest) = rest.split_first_chunk().ok_or_else(no_head)?;
        let reference =
            arrived.or_else(|| SharedInstant::read().instant_at(u64::from_be_bytes(*nanos)));
        let reference = reference.ok_or_else(|| SnapshotError::malformed("its time is no time"))?;
        Ok(SnapshotHead { format, reference, rest })
    }
}

/// Reads a state. `arrived`: the instant from which its times count; without it, they count on the clock of this machine.
pub(crate) fn decode<T: DeserializeOwned + From<Snapshot>>(
    encoded: &[u8],
    arrived: Option<Instant>,
) -> Result<T, SnapshotError> {
    let SnapshotHead { format, reference, rest } =
        SnapshotHead::read(encoded, MAGIC, FORMAT, arrived)?;
    let read = || match format {
        // The first format had snapshots only.
        ..=1 => rmp_serde::from_slice::<Snapshot>(rest).map(T::from),
        _ => rmp_serde::from_slice(rest),
    };
    instant::relative_to(reference, read)
        .map_err(|error| SnapshotError::Malformed(error.to_string()))
}

/// Each packet changes the state of its session, so it is encoded often: without names of fields.
mod compact {
    use std::fmt;

    use evenkeel_dataplane::worker::SessionState;
    use serde::de::value::MapAccessDeserializer;
    use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
    use serde::ser::{self, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        state: &SessionState,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let bytes = rmp_serde::to_vec(state).map_err(ser::Error::custom)?;
        serializer.serialize_bytes(&bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Box<SessionState>, D::Error> {
        deserializer.deserialize_any(SnapshotState)
    }

    struct SnapshotState;

    impl<'de> Visitor<'de> for SnapshotState {
        type Value = Box<SessionState>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the state of a session")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Box<SessionState>, E> {
            rmp_serde::from_slice(bytes).map_err(E::custom)
        }

        /// The first format has the names of the fields.
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Box<SessionState>, A::Error> {
            Box::deserialize(MapAccessDeserializer::new(map))
        }
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

#[cfg(test)]
mod tests;
