use super::*;

fn sample() -> TestHeader {
    TestHeader { session: 7, number: 1 << 40, sent_ns: 99, node: 0, stream: 3 }
}

#[test]
fn mark_reads_back_what_was_written() {
    let mut payload = Vec::new();
    sample().write(&mut payload);
    assert_eq!(payload.len(), TestHeader::LENGTH);
    payload.extend_from_slice(b"voice");
    assert_eq!(TestHeader::read(&payload), Some(sample()));
}

#[test]
fn node_stamps_its_number_and_nothing_else() {
    let mut payload = Vec::new();
    sample().write(&mut payload);
    assert!(TestHeader::stamp(&mut payload, 0xa1a2_a3a4));
    assert_eq!(TestHeader::read(&payload), Some(TestHeader { node: 0xa1a2_a3a4, ..sample() }));
}

#[test]
fn payload_without_a_mark_is_left_alone() {
    let mut payload = vec![0x5a; 64];
    assert!(!TestHeader::stamp(&mut payload, 9));
    assert_eq!(payload, vec![0x5a; 64]);
    let mut short = Vec::new();
    sample().write(&mut short);
    short.pop();
    assert_eq!(TestHeader::read(&short), None);
}
