//! A reader of FlexFEC-03 (draft-ietf-payload-flexible-fec-scheme-03, section 4.2) that shares no code with the gateway, so that it can judge the
//! gateway.

use std::collections::BTreeMap;

/// Bytes of a fixed RTP header.
const RTP_HEADER: usize = 12;
/// Bytes before the mask.
const FIXED: usize = 18;
/// Bytes of the parts of a mask.
const MASK_PARTS: [usize; 3] = [2, 4, 8];
/// Bytes of a sum before the data: flags, payload type, length and timestamp.
const HEAD: usize = 8;
/// Numbers after which a packet is of no use.
const KEPT: u16 = 256;

/// A parity packet that does not give a packet yet.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Parity {
    /// The numbers of the packets in the sum.
    numbers: Vec<u16>,
    sum: Vec<u8>,
}

/// A packet that parity gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RecoveredPacket {
    pub(super) sequence: u16,
    pub(super) payload: Vec<u8>,
}

/// The packets of a stream, and its parity.
#[derive(Default)]
pub(super) struct ParityDecoder {
    /// What each packet adds to a sum, by its number.
    known: BTreeMap<u16, Vec<u8>>,
    pending: Vec<Parity>,
}

impl Parity {
    /// `None` if the payload is malformed.
    fn read(payload: &[u8]) -> Option<Parity> {
        let mut sum = payload.get(..HEAD)?.to_vec();
        // The first two bits are no part of the sum.
        sum[0] &= 0x3f;
        let base = u16::from_be_bytes([*payload.get(FIXED - 2)?, *payload.get(FIXED - 1)?]);
        let (mut numbers, mut place, mut at) = (Vec::new(), 0, FIXED);
        for length in MASK_PARTS {
            let part = payload.get(at..at + length)?;
            for bit in 1..8 * length {
                if part[bit / 8] & (0x80 >> (bit % 8)) != 0 {
                    numbers.push(base.wrapping_add(place));
                }
                place += 1;
            }
            at += length;
            if part[0] & 0x80 != 0 {
                sum.extend_from_slice(&payload[at..]);
                return Some(Parity { numbers, sum });
            }
        }
        None
    }
}

/// What a packet adds to a sum.
fn summand(packet: &[u8]) -> Vec<u8> {
    let length = (packet.len() - RTP_HEADER) as u16;
    let mut summand = packet[..2].to_vec();
    summand[0] &= 0x3f;
    summand.extend_from_slice(&length.to_be_bytes());
    summand.extend_from_slice(&packet[4..8]);
    summand.extend_from_slice(&packet[RTP_HEADER..]);
    summand
}

impl ParityDecoder {
    /// Notes a packet with at least a fixed header.
    pub(super) fn note_packet(&mut self, sequence: u16, packet: &[u8]) {
        self.known.insert(sequence, summand(packet));
        let is_near =
            |number: u16| number.wrapping_sub(sequence).min(sequence.wrapping_sub(number)) < KEPT;
        self.known.retain(|number, _| is_near(*number));
        self.pending.retain(|parity| parity.numbers.iter().all(|number| is_near(*number)));
    }

    /// Notes the payload of a parity packet. Returns false if it is malformed.
    pub(super) fn note_parity(&mut self, payload: &[u8]) -> bool {
        let parity = Parity::read(payload).filter(|parity| !parity.numbers.is_empty());
        let is_sound = parity.is_some();
        self.pending.extend(parity);
        is_sound
    }

    /// The packets that parity gives now, each once. `None` for a sum that is no packet.
    pub(super) fn recover(&mut self) -> Vec<Option<RecoveredPacket>> {
        let mut recovered = Vec::new();
        while let Some((index, missing)) = self.next_solvable() {
            let Parity { numbers, mut sum } = self.pending.remove(index);
            let others = numbers.iter().filter_map(|number| self.known.get(number));
            for (at, byte) in others.flat_map(|other| other.iter().enumerate()) {
                if let Some(sum) = sum.get_mut(at) {
                    *sum ^= byte;
                }
            }
            let length = usize::from(u16::from_be_bytes([sum[2], sum[3]]));
            let payload = sum.get(HEAD..HEAD + length).map(<[u8]>::to_vec);
            sum.truncate(HEAD + length);
            self.known.insert(missing, sum);
            recovered.push(payload.map(|payload| RecoveredPacket { sequence: missing, payload }));
        }
        recovered
    }

    /// Drops parity of known packets. Returns the place of one that lacks a single packet, and its number.
    fn next_solvable(&mut self) -> Option<(usize, u16)> {
        let known = &self.known;
        let lacks = |number: &&u16| !known.contains_key(*number);
        self.pending.retain(|parity| parity.numbers.iter().any(|number| lacks(&number)));
        self.pending.iter().enumerate().find_map(|(index, parity)| {
            let mut missing = parity.numbers.iter().filter(lacks);
            let number = *missing.next()?;
            missing.next().is_none().then_some((index, number))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the draft's fields that the gateway's tests have, by hand: packets 0x1000 and 0x1002.
    const FIRST: [u8; 15] = [0x80, 0x60, 0x10, 0, 0, 0, 0x0b, 0xb8, 1, 2, 3, 4, 0xaa, 0xbb, 0xcc];
    const SECOND: [u8; 14] = [0x80, 0xe0, 0x10, 2, 0, 0, 0x17, 0x70, 1, 2, 3, 4, 0x11, 0x22];
    const PARITY: [u8; 23] = [
        0, 0x80, 0, 1, 0, 0, 0x1c, 0xc8, 1, 0, 0, 0, 1, 2, 3, 4, 0x10, 0, 0xd0, 0, 0xbb, 0x99, 0xcc,
    ];

    #[test]
    fn parity_gives_the_packet_that_is_missing() {
        for (arrived, number, missing, payload) in
            [(&FIRST[..], 0x1000, 0x1002, &SECOND[12..]), (&SECOND, 0x1002, 0x1000, &FIRST[12..])]
        {
            let mut decoder = ParityDecoder::default();
            assert!(decoder.note_parity(&PARITY));
            assert!(decoder.recover().is_empty(), "both are missing");
            decoder.note_packet(number, arrived);
            let expected = RecoveredPacket { sequence: missing, payload: payload.to_vec() };
            assert_eq!(decoder.recover(), [Some(expected)]);
            assert!(decoder.recover().is_empty(), "once");
        }
    }

    #[test]
    fn recovered_packet_completes_other_parity() {
        let mut decoder = ParityDecoder::default();
        // Alone in its sum: the same packet as `FIRST`.
        let alone = [&summand(&FIRST)[..HEAD], &PARITY[8..18], &[0xc0, 0], &FIRST[12..]].concat();
        assert!(decoder.note_parity(&PARITY) && decoder.note_parity(&alone));
        let numbers: Vec<u16> =
            decoder.recover().into_iter().map(|it| it.unwrap().sequence).collect();
        assert_eq!(numbers, [0x1000, 0x1002]);
    }

    #[test]
    fn malformed_parity_is_refused() {
        let mut decoder = ParityDecoder::default();
        assert!(!decoder.note_parity(&PARITY[..19]));
        let endless = [&PARITY[..18], &[0; 14]].concat();
        assert!(!decoder.note_parity(&endless));
        let empty = [&PARITY[..18], &[0x80, 0]].concat();
        assert!(!decoder.note_parity(&empty));
    }

    #[test]
    fn sum_that_is_no_packet_is_told() {
        let mut long = PARITY;
        long[2] = 0x10;
        let mut decoder = ParityDecoder::default();
        decoder.note_packet(0x1000, &FIRST);
        assert!(decoder.note_parity(&long));
        assert!(matches!(&decoder.recover()[..], [None]));
    }
}
