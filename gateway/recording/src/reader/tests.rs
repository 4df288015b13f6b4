use evenkeel_fuzz::Corpus;

use super::*;
use crate::record::{Chunk, records};
use crate::wire::framed;

const RECORDING: &[u8] = include_bytes!("../../tests/formats/1.ekr");

/// Payloads of the frames of [`RECORDING`].
fn payloads() -> Vec<Vec<u8>> {
    let (mut rest, mut payloads) = (&RECORDING[MAGIC.len() + 2..], Vec::new());
    while let Ok((_, payload, after)) = read_frame(rest) {
        payloads.push(payload);
        rest = after;
    }
    payloads
}

/// Reads a recording to its end.
fn read(bytes: &[u8]) {
    let Ok(mut reader) = RecordingReader::open(bytes) else { return };
    let _ = reader.by_ref().count();
    if let Some(lost) = reader.lost() {
        assert_eq!(lost.at + lost.bytes, bytes.len(), "{lost}");
    }
}

#[test]
fn fuzz_recording() {
    Corpus::of("recording").with(RECORDING).check(read);
}

/// Frames with a valid checksum, as a forger writes them.
#[test]
fn fuzz_recording_chunk() {
    let corpus = payloads().into_iter().fold(Corpus::of("recording_chunk"), Corpus::with);
    corpus.check(|payload| {
        read(&[&RECORDING[..MAGIC.len() + 2], &framed(FrameKind::Header, payload)].concat());
        let Ok(first) = records(&framed(FrameKind::Records, payload)) else { return };
        let mut chunk = Chunk::default();
        first.iter().for_each(|record| chunk.push(record).expect("states are copied, not larger"));
        assert_eq!(records(&chunk.close()).as_ref(), Ok(&first));
    });
}
