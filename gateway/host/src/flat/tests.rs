use super::*;
use crate::store::bindings::evenkeel::policy::types::Frame;

/// The arguments of a placement, written into a buffer of this size at address 64.
fn written(size: usize) -> Option<Vec<u8>> {
    let mut buffer = vec![0xff; size];
    let mut to = ArgumentWriter::new(&mut buffer, 64);
    let labels = [Label { key: "é", value: "" }];
    let frame = Frame { ids: &[1, 1 << 40], cells: &[2, 3, 4] };
    to.take(32, 8)?;
    to.labels(0, &labels)?;
    to.frame(8, &frame)?;
    to.word(24, 5)?;
    Some(buffer)
}

#[test]
fn arguments_are_written_whole_or_not_at_all() {
    // The record, a label, two bytes of its key, two identifiers on a multiple of eight, three cells.
    let size = 32 + 16 + 2 + 6 + 16 + 12;
    assert!((0..size).all(|size| written(size).is_none()));
    let buffer = written(size).unwrap();
    let word = |at: usize| u32::from_le_bytes(*buffer[at..].first_chunk().unwrap());
    assert_eq!([word(0), word(4)], [64 + 32, 1], "the list of labels");
    assert_eq!([word(32), word(36), word(40), word(44)], [64 + 48, 2, 64 + 50, 0], "a label");
    assert_eq!([word(8), word(12), word(16), word(20)], [64 + 56, 2, 64 + 72, 3], "the frame");
    assert_eq!(word(24), 5);
    assert_eq!(&buffer[48..50], "é".as_bytes());
    assert_eq!(&buffer[56..72], [1_u64.to_le_bytes(), (1_u64 << 40).to_le_bytes()].concat());
    assert_eq!(&buffer[72..], [2_u32, 3, 4].map(u32::to_le_bytes).concat());
}
