use super::*;

const HEADERS: &[u8] = &[0x01, 3, b'a', b'b', b'c'];
const DATA: &[u8] = &[0x00, 4, 1, 2, 3, 4];
/// A reserved type with an encoding of two bytes (RFC 9114, section 7.2.8).
const UNKNOWN: &[u8] = &[0x40, 0x21, 2, 9, 9];

fn read_in_pieces(bytes: &[u8], size: usize) -> (Vec<ReadFrame>, FrameReader) {
    let (mut reader, mut frames) = (FrameReader::default(), Vec::new());
    for mut piece in bytes.chunks(size) {
        while let Some(frame) = reader.next(&mut piece).unwrap() {
            frames.push(frame);
        }
        assert!(piece.is_empty());
    }
    (frames, reader)
}

#[test]
fn frames_are_read_from_pieces_of_any_size() {
    let bytes = [HEADERS, DATA, UNKNOWN, HEADERS].concat();
    let held = || ReadFrame { kind: Frame::HEADERS, bytes: HEADERS.to_vec() };
    let skipped = |kind| ReadFrame { kind, bytes: Vec::new() };
    let expected = [held(), skipped(Frame::DATA), skipped(Frame(VarInt::from_u32(0x21))), held()];
    for size in 1..=bytes.len() {
        let (frames, reader) = read_in_pieces(&bytes, size);
        assert_eq!(frames, expected, "pieces of {size} bytes");
        assert!(reader.is_between_frames());
    }
}

#[test]
fn stream_may_not_end_within_a_frame() {
    for whole in [HEADERS, DATA, UNKNOWN] {
        for cut in 1..whole.len() {
            let (_, reader) = read_in_pieces(&whole[..cut], whole.len());
            assert!(!reader.is_between_frames(), "{cut} bytes of {whole:?}");
        }
    }
}

#[test]
fn held_frame_has_a_limit() {
    let header = |kind: Frame, length: u64| {
        let mut bytes = Vec::new();
        kind.encode(&mut bytes);
        VarInt::from_u64(length).unwrap().encode(&mut bytes);
        bytes
    };
    let next = |bytes: &[u8]| FrameReader::default().next(&mut &*bytes);
    assert_eq!(next(&header(Frame::HEADERS, FRAME_MAX)), Ok(None));
    assert_eq!(next(&header(Frame::HEADERS, FRAME_MAX + 1)), Err(Http3Error::ExcessiveLoad));
    assert_eq!(next(&header(Frame::SETTINGS, FRAME_MAX + 1)), Err(Http3Error::ExcessiveLoad));
    // Others are skipped, whatever their length.
    assert!(next(&header(Frame::DATA, (1 << 62) - 1)).unwrap().is_some());
}
