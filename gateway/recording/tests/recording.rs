//! Tests that recordings round-trip, and that damaged and forged ones are refused.
#![expect(clippy::unwrap_used, reason = "tests")]

mod world;

use std::sync::Arc;

use evenkeel_model::{PluginFault, PluginState, PolicyQuestion, RevisionAnswer};
use evenkeel_recording::{
    Chunk, ChunkFull, FORMAT, ReadError, RecordedCall, RecordedRevision, RecordingEntry,
    RecordingReader, Redactor, head, records, tail,
};

use crate::world::{call, header, tick_of, world};

/// Writes a recording with this number of records per chunk.
fn written(all: &[RecordingEntry], chunk_of: usize) -> Vec<u8> {
    let mut bytes = head(&header());
    for some in all.chunks(chunk_of) {
        let mut chunk = Chunk::default();
        some.iter().for_each(|record| chunk.push(record).unwrap());
        bytes.extend(chunk.close());
    }
    bytes.extend(tail());
    bytes
}

fn calls(records: &[RecordingEntry]) -> impl Iterator<Item = &RecordedCall> {
    records.iter().filter_map(|record| match record {
        RecordingEntry::Call(call) => Some(&**call),
        RecordingEntry::Decided(_) | RecordingEntry::Missed(_) => None,
    })
}

#[test]
fn questions_answers_and_faults_round_trip() {
    let all = world();
    for chunk_of in [1, 7, 1_000] {
        let bytes = written(&all, chunk_of);
        let mut reader = RecordingReader::open(&bytes).unwrap();
        assert_eq!(reader.header(), &header());
        let read: Vec<RecordingEntry> = reader.by_ref().collect();
        assert_eq!(read, all);
        assert_eq!(reader.lost(), None);
    }
}

#[test]
fn documents_of_a_revision_round_trip() {
    for redacted in [false, true] {
        let mut call = tick_of(1);
        let documents = vec![("devices".into(), [1; 32]), ("tenants".into(), [7; 32])];
        let revision = RecordedRevision::clone(&call.revision);
        call.revision = Arc::new(RecordedRevision { documents, redacted, ..revision });
        let all = [RecordingEntry::Call(Box::new(call))];
        let bytes = written(&all, 1);
        let read: Vec<_> = RecordingReader::open(&bytes).unwrap().collect();
        assert_eq!(read, all);
    }
}

#[test]
fn recording_of_format_1_is_readable() {
    let bytes = include_bytes!("formats/1.ekr");
    let mut reader = RecordingReader::open(bytes).unwrap();
    assert_eq!(reader.header(), &header());
    assert_eq!(reader.by_ref().collect::<Vec<_>>(), world());
    assert_eq!(reader.lost(), None);
}

#[test]
fn newer_format_and_other_files_are_refused() {
    let mut bytes = written(&world(), 100);
    bytes[8..10].copy_from_slice(&(FORMAT + 1).to_le_bytes());
    let refused = RecordingReader::open(&bytes).err().unwrap();
    assert_eq!(refused, ReadError::Newer { found: FORMAT + 1, read: FORMAT });
    assert!(refused.to_string().contains("format 2, but this version reads up to 1"), "{refused}");
    for none in [&b""[..], b"\x89EKR", b"\0asm\x01\0\0\0", b"{\"calls\": []}"] {
        assert_eq!(RecordingReader::open(none).err(), Some(ReadError::NotARecording));
    }
    let as_text = b"\x89EKR\n\x1a\n\x01\x00 and so on";
    assert_eq!(RecordingReader::open(as_text).err(), Some(ReadError::Mangled));
}

#[test]
fn truncated_file_is_read_to_its_last_whole_chunk() {
    let all = world();
    let bytes = written(&all, 5);
    let whole_chunks = all.len().div_ceil(5);
    let begins = head(&header()).len();
    let mut most = 0;
    for length in begins..bytes.len() {
        let mut reader = RecordingReader::open(&bytes[..length]).unwrap();
        let read: Vec<RecordingEntry> = reader.by_ref().collect();
        let lost = reader.lost().unwrap();
        assert_eq!(lost.at + lost.bytes, length);
        assert_eq!(read.len(), (lost.chunks * 5).min(all.len()));
        assert_eq!(read, all[..read.len()]);
        most = most.max(lost.chunks);
    }
    assert_eq!(most, whole_chunks, "complete except for the end frame");
    for length in 0..begins {
        assert!(RecordingReader::open(&bytes[..length]).is_err());
    }
}

#[test]
fn flipped_bit_loses_its_chunk_and_the_rest() {
    let all = world();
    let bytes = written(&all, 5);
    let begins = head(&header()).len();
    for at in begins..bytes.len() {
        let mut broken = bytes.clone();
        broken[at] ^= 1 << (at % 8);
        let mut reader = RecordingReader::open(&broken).unwrap();
        let read: Vec<RecordingEntry> = reader.by_ref().collect();
        let lost = reader.lost().unwrap_or_else(|| panic!("byte {at} was changed"));
        assert!(lost.at <= at, "{lost}, but byte {at} was changed");
        assert_eq!(read.len(), (lost.chunks * 5).min(all.len()));
        assert_eq!(read, all[..read.len()]);
    }
}

#[test]
fn decompression_bomb_is_refused() {
    // 100,000 rows share one state of 4 KiB.
    let mut chunk = Chunk::default();
    let state = PluginState { plugin: "p".into(), schema: 1, bytes: vec![7; 4_096].into() };
    let mut bomb = tick_of(100_000);
    let PolicyQuestion::Tick { sessions, .. } = Arc::make_mut(&mut bomb.question) else { panic!() };
    sessions.iter_mut().for_each(|session| session.state = Some(state.clone()));
    let record = RecordingEntry::Call(Box::new(bomb));
    chunk.push(&record).unwrap();
    let bytes = chunk.close();
    assert!(bytes.len() < 1 << 20);
    let error = records(&bytes).unwrap_err();
    assert!(error.to_string().contains("when decoded"), "{error}");
}

#[test]
fn oversized_call_leaves_the_chunk_unchanged() {
    let small = RecordingEntry::Call(Box::new(tick_of(3)));
    let mut large = tick_of(5_000);
    let PolicyQuestion::Tick { sessions, .. } = Arc::make_mut(&mut large.question) else {
        panic!()
    };
    let mut rng = fastrand::Rng::with_seed(1);
    for session in sessions {
        let bytes = std::iter::repeat_with(|| rng.u8(..)).take(4_096).collect();
        session.state = Some(PluginState { plugin: "p".into(), schema: 1, bytes });
    }
    let large = RecordingEntry::Call(Box::new(large));
    let mut chunk = Chunk::default();
    assert_eq!(chunk.push(&large), Err(ChunkFull));
    assert!(chunk.is_empty());
    chunk.push(&small).unwrap();
    assert_eq!(chunk.push(&large), Err(ChunkFull));
    chunk.push(&small).unwrap();
    assert_eq!(records(&chunk.close()).unwrap(), [small.clone(), small]);
}

#[test]
fn shared_values_are_written_once() {
    let mut chunk = Chunk::default();
    let one = RecordingEntry::Call(Box::new(tick_of(1_000)));
    chunk.push(&one).unwrap();
    let first = chunk.bytes();
    chunk.push(&one).unwrap();
    assert!(chunk.bytes() - first < 1_000 * 20, "{first}, then {}", chunk.bytes());
}

/// A call with addresses in every field, and a call without any.
#[test]
fn addresses_are_removed_and_calls_marked() {
    let mut redactor = Redactor::default();
    let all = world();
    let mut bytes = Vec::new();
    for call in calls(&all) {
        let plain = !format!("{call:?}").contains("192.0.2.");
        let redacted = redactor.call(call.clone());
        assert_eq!(redacted.redacted, !plain, "{call:?}");
        if plain {
            assert_eq!(&redacted, call);
        }
        let mut chunk = Chunk::default();
        chunk.push(&RecordingEntry::Call(Box::new(redacted.clone()))).unwrap();
        bytes.extend(inflate(&chunk.close()));
        // `Debug` of a state prints its bytes as numbers.
        assert!(!format!("{redacted:?}").contains("192.0.2."), "{redacted:?}");
    }
    let left = |needle: &[u8]| bytes.windows(needle.len()).filter(|some| *some == needle).count();
    assert_eq!(left(b"192.0.2."), 0);
    assert!(left(b"address-1") > 0 && left(b"xxxxxxxxx") > 0);
}

#[test]
fn address_has_one_name_throughout() {
    let mut redactor = Redactor::default();
    let name = |redactor: &mut Redactor, text: &str| redactor.redact(text);
    assert_eq!(name(&mut redactor, "192.0.2.1"), Some("address-1".into()));
    assert_eq!(name(&mut redactor, "192.0.2.2, 192.0.2.1"), Some("address-2, address-1".into()));
    assert_eq!(name(&mut redactor, "east-a1"), None);
    assert_eq!(name(&mut redactor, "address-1"), None);
}

#[test]
fn fault_messages_are_redacted() {
    let mut failed = call(PolicyQuestion::Resolve { scenario: "call".into(), labels: [].into() });
    failed.result = Err(PluginFault::Trap("no node at 192.0.2.9:5004".into()));
    let redacted = Redactor::default().call(failed);
    assert_eq!(
        redacted.result,
        Err::<RevisionAnswer, _>(PluginFault::Trap("no node at address-1".into()))
    );
    assert!(redacted.redacted);
}

fn inflate(frame: &[u8]) -> Vec<u8> {
    miniz_oxide::inflate::decompress_to_vec(&frame[13..]).unwrap()
}
