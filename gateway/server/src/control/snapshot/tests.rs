use evenkeel_core::SessionId;

use super::*;
use crate::control::{Batch, Replica};

/// Bytes of a session's records in core and registry.
const SESSION_MAX: usize = 1_024;

impl Snapshot {
    /// With the worker's state of the first session under this id.
    pub(crate) fn with_stray_session(mut self, id: SessionId) -> Snapshot {
        self.media[0].state.session = id;
        self
    }
}

impl Snapshot {
    /// The sessions to which descriptors belong, in their order.
    pub(crate) fn with_sockets(&self) -> Vec<SessionId> {
        let with_sockets = self.media.iter().filter(|record| record.sockets > 0);
        with_sockets.map(|record| record.state.session).collect()
    }
}

fn fixture(name: &str) -> Batch {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/snapshots");
    let encoded = std::fs::read(format!("{folder}/{name}")).unwrap();
    decode(&encoded, None).unwrap()
}

fn snapshot(name: &str) -> Snapshot {
    let mut replica = Replica::new();
    replica.apply(fixture(name)).unwrap();
    replica.snapshot().unwrap()
}

#[test]
fn snapshots_of_all_versions_load() {
    for version in ["v1", "v2"] {
        let of = snapshot(version);
        let entries = of.registry.sessions.iter();
        let ids: Vec<SessionId> = entries.map(|session| session.session).collect();
        let in_core: Vec<SessionId> = of.core.sessions.iter().map(|session| session.id).collect();
        assert_eq!(ids, in_core);
        assert_eq!(ids.len(), 6);
        assert_eq!(of.media.len(), ids.len());
        assert_eq!(of.idempotency_keys.len(), 1);
    }
}

#[test]
fn encoding_returns_the_same_state() {
    let v1 = fixture("v1");
    let again: Batch = decode(&encode(&v1), None).unwrap();
    // Times shift by the precision of a reading of the clock.
    let text = |batch: &Batch| {
        let text = format!("{batch:?}");
        let without_times = text
            .split("Instant {")
            .map(|part| part.split_once('}').map_or(part, |(_, rest)| rest).to_owned());
        without_times.collect::<Vec<_>>()
    };
    assert_eq!(text(&again)[1..], text(&v1)[1..]);
}

#[test]
fn session_takes_at_most_a_kibibyte() {
    let v1 = snapshot("v1");
    let size = |part: &dyn Fn(&mut rmp_serde::Serializer<&mut Vec<u8>, _>)| {
        let mut bytes = Vec::new();
        part(&mut rmp_serde::Serializer::new(&mut bytes).with_struct_map());
        bytes.len()
    };
    let now = Instant::now();
    for (core, registry) in v1.core.sessions.iter().zip(&v1.registry.sessions) {
        let bytes = instant::relative_to(now, || {
            size(&|to| core.serialize(to).unwrap()) + size(&|to| registry.serialize(to).unwrap())
        });
        assert!(bytes <= SESSION_MAX, "{} takes {bytes} bytes", core.id);
    }
}

#[test]
fn garbage_and_newer_formats_are_refused() {
    let refused = |bytes: &[u8]| decode::<Batch>(bytes, None).unwrap_err().to_string();
    let cut = "the state cannot be read: it does not begin as a state of a gateway";
    assert_eq!(refused(b""), cut);
    assert_eq!(refused(b"evenkeel"), cut);
    assert_eq!(refused(b"another file of some length"), cut);
    let newer = [&MAGIC[..], &[0, 0, 0, 9], &[0; 8], b"what comes then is unknown"].concat();
    assert_eq!(refused(&newer), "the state has format 9, this version reads formats up to 2");
    let garbage = [&MAGIC[..], &[0, 0, 0, 1], &[0; 8], &[0xc1; 64]].concat();
    assert!(refused(&garbage).starts_with("the state cannot be read: "));
}
