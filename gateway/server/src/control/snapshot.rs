//! The state of a gateway, for the process that continues its sessions.
//!
//! The encoding begins with a format version and the time, on the clock that all processes of the machine share, from
//! which the times in the state count. The state is MessagePack with the names of the fields: a version may add fields
//! with defaults and ignores fields that it does not know.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use evenkeel_core::{GatewayRecord, SessionId};
use evenkeel_dataplane::worker::{SessionState, TrunkState};
use evenkeel_media::instant;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::driver::DriversRecord;
use super::registry::RegistryRecord;
use super::suspension::WORKERS_WITHIN;
use crate::api::KeyRecord;

/// The first bytes of an encoded snapshot.
const MAGIC: &[u8; 8] = b"evenkeel";

/// The format that this version writes.
const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Snapshot {
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
    pub(super) state: SessionState,
    /// The number of the session's own sockets: RTP, then RTCP. Their descriptors follow in this order.
    pub(super) sockets: u8,
}

/// The result of a restore.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Restored {
    pub(crate) sessions: usize,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum NotSuspended {
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
pub(crate) enum NotRestored {
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
    Core(#[from] evenkeel_core::NotRestored),
    #[error("packet worker {number} did not take its sessions within {within:?}")]
    Worker { number: usize, within: Duration },
    #[error("the gateway did not answer")]
    Unavailable,
}

impl NotRestored {
    pub(super) fn by_worker(number: usize) -> NotRestored {
        NotRestored::Worker { number, within: WORKERS_WITHIN }
    }

    pub(super) fn malformed(reason: impl Into<String>) -> NotRestored {
        NotRestored::Malformed(reason.into())
    }
}

impl Snapshot {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let reference = Shared::read();
        let mut encoded = MAGIC.to_vec();
        encoded.extend(FORMAT.to_be_bytes());
        encoded.extend(reference.nanos.to_be_bytes());
        let mut serializer = rmp_serde::Serializer::new(&mut encoded).with_struct_map();
        instant::relative_to(reference.instant, || self.serialize(&mut serializer))
            .expect("a vector takes all bytes, and all times are within years");
        encoded
    }

    pub(crate) fn decode(encoded: &[u8]) -> Result<Snapshot, NotRestored> {
        let no_head = || NotRestored::malformed("it does not begin as a state of a gateway");
        let rest = encoded.strip_prefix(MAGIC).ok_or_else(no_head)?;
        let (format, rest) = rest.split_first_chunk().ok_or_else(no_head)?;
        let found = u32::from_be_bytes(*format);
        if found > FORMAT {
            return Err(NotRestored::Newer { found, known: FORMAT });
        }
        let (nanos, rest) = rest.split_first_chunk().ok_or_else(no_head)?;
        let reference = Shared::read().instant_at(u64::from_be_bytes(*nanos));
        let reference = reference.ok_or_else(|| NotRestored::malformed("its time is no time"))?;
        instant::relative_to(reference, || rmp_serde::from_slice(rest))
            .map_err(|error| NotRestored::Malformed(error.to_string()))
    }
}

/// One moment on the clock that all processes of the machine share.
#[derive(Clone, Copy)]
struct Shared {
    instant: Instant,
    /// Nanoseconds of CLOCK_MONOTONIC.
    nanos: u64,
}

impl Shared {
    /// Reads the clock twice, since an [`Instant`] does not tell its value. Of several attempts the one without an
    /// interruption counts.
    fn read() -> Shared {
        let attempt = || {
            let before = Instant::now();
            let time =
                clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every system has this clock");
            let took = before.elapsed();
            let nanos = Duration::from(time).as_nanos() as u64;
            (took, Shared { instant: before + took / 2, nanos })
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
