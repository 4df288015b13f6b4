//! The state of a gateway, for the process that continues its sessions.
//!
//! The encoding begins with a format version and the time, on the clock that all processes of the machine share, from
//! which the times in the state count. The state is MessagePack with the names of the fields: a version may add fields
//! with defaults and ignores fields that it does not know.
//!
//! The last states of an upgrade are encoded while packets wait: in Postcard if both processes have the same layout of
//! them ([`STATES`]), which takes half of the time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use evenkeel_core::GatewayRecord;
use evenkeel_dataplane::worker::{SessionState, TrunkState};
use evenkeel_drivers::DriversRecord;
use evenkeel_media::instant;
use evenkeel_model::SessionId;
use nix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::registry::RegistryRecord;
use super::suspension::WORKERS_WITHIN;
use crate::KeyRecord;

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

#[derive(Debug, Serialize, Deserialize)]
pub struct Snapshot {
    pub(super) core: GatewayRecord,
    pub(super) registry: RegistryRecord,
    pub(super) drivers: DriversRecord,
    pub(super) media: Vec<MediaRecord>,
    /// The trunks of each worker.
    pub(super) trunks: Vec<Vec<TrunkState>>,
    pub(super) next_offer: u64,
    pub(super) idempotency_keys: Vec<KeyRecord>,
}

/// The state that a session's worker keeps.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MediaRecord {
    /// Maps and sorts of records move it.
    #[serde(with = "compact")]
    pub(super) state: Box<SessionState>,
    /// The number of the session's own sockets: RTP, then RTCP. Their descriptors follow in this order.
    pub(super) sockets: u8,
}

/// The last states of sessions that changed since their records, and of trunks.
#[derive(Debug, Serialize, Deserialize)]
pub struct MediaStates {
    pub(super) media: Vec<MediaRecord>,
    /// The trunks of each worker.
    pub(super) trunks: Vec<Vec<TrunkState>>,
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

/// The result of a restore.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restored {
    pub sessions: usize,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotSuspended {
    #[error("offers are still being answered; try again in a few seconds")]
    Busy,
    #[error("the first policies are still being compiled; try again when the gateway is ready")]
    Starting,
    #[error("the gateway is shutting down")]
    Draining,
    #[error("another hand-over is under way")]
    UnderWay,
    #[error("packet worker {number} did not hand out its sessions within {within:?}")]
    Worker { number: usize, within: Duration },
    #[error("a session's own port cannot be duplicated: {reason}; leave half of `LimitNOFILE`")]
    Port { reason: Box<str> },
    #[error("the gateway did not answer")]
    Unavailable,
}

impl NotSuspended {
    pub(super) fn by_worker(number: usize) -> NotSuspended {
        NotSuspended::Worker { number, within: WORKERS_WITHIN }
    }

    pub(super) fn by_port(error: &io::Error) -> NotSuspended {
        NotSuspended::Port { reason: error.to_string().into() }
    }
}

#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("the state has format {found}, this version reads formats up to {known}")]
    Newer { found: u32, known: u32 },
    #[error("the state cannot be read: {0}")]
    Malformed(String),
    #[error("found {found} packet workers, here are {here}: `workers` in [limits] must stay")]
    Workers { found: usize, here: usize },
    #[error("sessions use the listener {address}, which the configuration does not have any more")]
    NoListener { address: SocketAddr },
    #[error("sessions use QUIC, and the configuration has no listener for it any more")]
    NoQuic,
    #[error("no descriptor or local port is left for {session}")]
    NoPorts { session: SessionId },
    #[error(transparent)]
    Core(#[from] evenkeel_core::RestoreError),
    #[error("packet worker {number} did not take its sessions within {within:?}")]
    Worker { number: usize, within: Duration },
    #[error("the gateway did not answer")]
    Unavailable,
}

impl SnapshotError {
    pub(super) fn by_worker(number: usize) -> SnapshotError {
        SnapshotError::Worker { number, within: WORKERS_WITHIN }
    }

    pub(super) fn malformed(reason: impl Into<String>) -> SnapshotError {
        SnapshotError::Malformed(reason.into())
    }
}

impl Snapshot {
    /// Gives sessions at workers these sockets, RTP before RTCP, and returns all in the order of the sessions.
    pub(super) fn take_ports(
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
    pub(super) fn lose_ports(&mut self) {
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

pub(super) fn encode(state: &impl Serialize) -> Vec<u8> {
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
pub(super) fn decode<T: DeserializeOwned + From<Snapshot>>(
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

    pub(super) fn serialize<S: Serializer>(
        state: &SessionState,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let bytes = rmp_serde::to_vec(state).map_err(ser::Error::custom)?;
        serializer.serialize_bytes(&bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
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
