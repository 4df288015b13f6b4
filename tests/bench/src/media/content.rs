//! The content of packets, by which receivers recognise them.

use evenkeel_lab::TestHeader;

use super::row::Medium;

/// Bytes before the test header, by which a codec would recognise the content.
const PREFIX: usize = 1;
/// A frame of 20 ms of CELT alone (RFC 6716, section 3.1), which has no redundancy of its own.
const OPUS: u8 = 31 << 3;
/// The payload descriptor of VP8 (RFC 7741, section 4.2) in the first packet of a frame, and in the others. No key frame follows.
const VP8_BEGINS: u8 = 0x10;
const VP8_CONTINUES: u8 = 0;

/// The content that a sender sends under this number.
pub(super) fn write(medium: Medium, session: u64, number: usize) -> Vec<u8> {
    let begins = number.is_multiple_of(medium.packets_per_frame());
    write_part(medium, session, number, begins, medium.payload_length())
}

/// Content of this length. `begins`: it is the first of its frame.
pub(super) fn write_part(
    medium: Medium,
    session: u64,
    number: usize,
    begins: bool,
    length: usize,
) -> Vec<u8> {
    let (prefix, stream) = match medium {
        Medium::Voice => (OPUS, 0),
        Medium::Video if begins => (VP8_BEGINS, 1),
        Medium::Video => (VP8_CONTINUES, 1),
    };
    let mut content = vec![prefix];
    TestHeader { session, number: number as u64, sent_ns: 0, node: 0, stream }.write(&mut content);
    let fill = (content.len()..length).map(|at| (number * 31 + at * 7) as u8);
    content.extend(fill);
    content
}

/// The test header in the content of a packet.
pub(super) fn test_header_of(content: &[u8]) -> Option<TestHeader> {
    TestHeader::read(content.get(PREFIX..)?)
}

/// The number in the content of a packet.
pub(super) fn number_of(content: &[u8]) -> Option<usize> {
    usize::try_from(test_header_of(content)?.number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_has_its_number_and_its_length() {
        for medium in [Medium::Voice, Medium::Video] {
            let [one, other] = [12, 13].map(|number| write(medium, 5, number));
            assert_eq!([&one, &other].map(|content| number_of(content)), [Some(12), Some(13)]);
            assert_eq!(one.len(), medium.payload_length());
            assert!(one[1..] != other[1..] && one != write(medium, 6, 12));
        }
        assert_eq!(number_of(&[]), None);
    }
}
