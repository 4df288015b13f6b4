use std::sync::Arc;

use evenkeel_fuzz::Corpus;

use super::*;
use crate::flows::{FlowEntry, FlowKey, Flows};

const FLOW: u64 = 77;
const HOME: Home = Home { worker: 0, slot: 5, generation: 2 };

fn hub() -> Hub {
    let flows = Flows::new(1);
    flows.insert(FlowKey::Roq(FLOW), FlowEntry::of(HOME)).unwrap();
    Hub::new(Arc::new(flows), Arc::default(), Vec::new())
}

fn settings() -> Vec<u8> {
    let mut settings = Settings::default();
    settings.enable_webtransport(1);
    let mut bytes = Vec::new();
    settings.encode(&mut bytes);
    // Without the type of the stream.
    bytes.split_off(1)
}

/// Frames that arrive in pieces of `piece` bytes.
fn read_frames(bytes: &[u8], piece: usize) -> (Vec<ReadFrame>, Result<bool, Http3Error>) {
    let (mut reader, mut frames) = (FrameReader::default(), Vec::new());
    for mut input in bytes.chunks(piece) {
        loop {
            match reader.next(&mut input) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    (frames, Ok(reader.is_between_frames()))
}

#[test]
fn fuzz_http3() {
    let hub = hub();
    let request = connect_frame(&format!("/roq?token={FLOW}"));
    let admitted = |request: &[u8]| match admit(request, &hub, Instant::now()) {
        Ok(Ok(SessionPurpose::Media { home, flow })) => Some((home, flow.number())),
        _ => None,
    };
    assert_eq!(admitted(&request), Some((HOME, FLOW)));
    let grease = &[0x21, 3, 1, 2, 3][..];
    let both = [&settings()[..], grease, &request, &[0x00, 1, 7]].concat();
    Corpus::of("http3").with(request).with(both).check(|bytes| {
        let whole = read_frames(bytes, bytes.len().max(1));
        for piece in [1, 7] {
            assert_eq!(read_frames(bytes, piece), whole, "in pieces of {piece}");
        }
        for frame in &whole.0 {
            assert!(frame.bytes.len() <= bytes.len());
            match frame.kind {
                Frame::HEADERS => {
                    if let Some(opened) = admitted(&frame.bytes) {
                        assert_eq!(opened, (HOME, FLOW), "no other token opens it");
                    }
                }
                Frame::SETTINGS => _ = read_settings(&frame.bytes),
                _ => assert_eq!(frame.bytes, [], "it is skipped"),
            }
        }
    });
}

/// A request to open a session.
pub(in crate::quic) fn connect_frame(path: &str) -> Vec<u8> {
    // A request of `web-transport-proto` has a `Url`. The crate `url` is no dependency here.
    let fields = [(0x50_u8, "127.0.0.1"), (0x51, path)].map(|(name, value)| {
        assert!(value.len() < 127);
        [&[name, value.len() as u8], value.as_bytes()].concat()
    });
    // CONNECT and `https` have entries in the static table, `:protocol` has none.
    let protocol = [&[0x27, 2][..], b":protocol", &[12], b"webtransport"].concat();
    let section = [&[0, 0, 0xcf, 0xd7][..], &fields.concat(), &protocol].concat();
    let mut bytes = Vec::new();
    Frame::HEADERS.encode(&mut bytes);
    web_transport_proto::VarInt::from_u32(section.len() as u32).encode(&mut bytes);
    [bytes, section].concat()
}
