//! Connection IDs (RFC 9000, 5.1), which tell the process that issued them to those with its identity.

use std::sync::Arc;
use std::time::Duration;

use quinn_proto::{ConnectionId, ConnectionIdGenerator, HashedConnectionIdGenerator, InvalidCid};
use ring::hkdf;

pub(super) const ID_LENGTH: usize = 8;

/// Numbers of processes, after which they begin again.
const PROCESSES: usize = 1 << u8::BITS;

/// The keys by the number of the process.
#[derive(Clone)]
pub(super) struct ConnectionIdKeys(Arc<[u64; PROCESSES]>);

impl ConnectionIdKeys {
    pub(super) fn of(identity: &hkdf::Prk) -> ConnectionIdKeys {
        let info: [&[u8]; 1] = [b"connection ids"];
        let mut bytes = [0; PROCESSES * size_of::<u64>()];
        let filled = identity.expand(&info, KeysLength).and_then(|keys| keys.fill(&mut bytes));
        filled.expect("HKDF gives 255 times the length of a hash");
        let (keys, _) = bytes.as_chunks::<{ size_of::<u64>() }>();
        let key = |process: usize| u64::from_be_bytes(keys[process]);
        ConnectionIdKeys(Arc::new(std::array::from_fn(key)))
    }

    /// Issues and recognises the IDs of one process.
    pub(super) fn of_process(&self, process: u8) -> HashedConnectionIdGenerator {
        HashedConnectionIdGenerator::from_key(self.0[usize::from(process)])
    }

    /// Issues IDs of one process, and recognises those of all: a stateless reset ends the connections of any process that has died.
    pub(super) fn generator(&self, process: u8) -> Box<dyn ConnectionIdGenerator> {
        Box::new(ConnectionIds { own: self.of_process(process), all: self.clone() })
    }
}

struct KeysLength;

impl hkdf::KeyType for KeysLength {
    fn len(&self) -> usize {
        PROCESSES * size_of::<u64>()
    }
}

struct ConnectionIds {
    own: HashedConnectionIdGenerator,
    all: ConnectionIdKeys,
}

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        self.own.generate_cid()
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        let is_of = |key: &u64| HashedConnectionIdGenerator::from_key(*key).validate(id).is_ok();
        if self.all.0.iter().any(is_of) { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        ID_LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
