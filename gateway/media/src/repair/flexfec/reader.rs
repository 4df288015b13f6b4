//! The recovery of lost packets of a stream.

use super::{FlexfecError, PACKET_BYTES_MAX, ParityPayload, SPAN_MAX, add, places};
use crate::rtp::{HEADER_LEN, RtpHeader, sequence_ahead};

/// Packets that are kept: more than two masks name.
const WINDOW: u16 = 256;

/// Parity packets that wait for packets that they cover.
const WAITING_MAX: usize = 64;

/// Bytes of the sum in a parity packet.
const SUM_BYTES_MAX: usize = PACKET_BYTES_MAX - HEADER_LEN;

/// A packet that came, or was recovered.
#[derive(Clone, Copy, Debug)]
struct ReceivedPacket {
    sequence: u16,
    /// 0: it is too long to be kept.
    length: u16,
    is_recovered: bool,
}

/// A parity packet of which several covered packets are lost.
#[derive(Debug)]
struct WaitingParity {
    base: u16,
    mask: u128,
    /// The packets of the mask that are lost.
    lost: u128,
    fields: [u8; 8],
    length: usize,
    data: [u8; SUM_BYTES_MAX],
}

/// Recovers lost packets of one stream from parity packets. Allocates once.
#[derive(Debug)]
pub struct ParityReader {
    ssrc: u32,
    /// `None` before the first packet.
    highest: Option<u16>,
    /// Numbers below the highest one that are followed: those before the first packet count as received.
    followed: u16,
    /// Packets, each at the place of its sequence number.
    packets: Box<[Option<ReceivedPacket>]>,
    data: Box<[[u8; PACKET_BYTES_MAX]]>,
    waiting: Vec<WaitingParity>,
}

impl ParityReader {
    /// Bytes that a reader allocates.
    pub const BYTES: usize = WINDOW as usize
        * (PACKET_BYTES_MAX + size_of::<Option<ReceivedPacket>>())
        + WAITING_MAX * size_of::<WaitingParity>();

    /// Follows a stream from its next packet on.
    pub fn new(ssrc: u32) -> ParityReader {
        ParityReader {
            ssrc,
            highest: None,
            followed: 0,
            packets: vec![None; WINDOW.into()].into(),
            data: vec![[0; PACKET_BYTES_MAX]; WINDOW.into()].into(),
            waiting: Vec::with_capacity(WAITING_MAX),
        }
    }

    /// Handles a packet of the stream. Returns false if it was recovered before.
    pub fn receive(&mut self, sequence: u16, packet: &[u8]) -> bool {
        self.advance(sequence);
        if let Some(known) = self.find(sequence) {
            return !known.is_recovered;
        }
        let place = place(sequence);
        let is_short = packet.len() <= PACKET_BYTES_MAX;
        let length = if is_short { packet.len() } else { 0 };
        self.data[place][..length].copy_from_slice(&packet[..length]);
        let length = length as u16;
        self.packets[place] = Some(ReceivedPacket { sequence, length, is_recovered: false });
        self.note_found(sequence);
        true
    }

    /// Handles a parity packet. Packets that it gives come from [`recover`](ParityReader::recover).
    ///
    /// # Errors
    /// Fails if it is too long, or far from the packets of the stream.
    pub fn receive_parity(&mut self, payload: &ParityPayload<'_>) -> Result<(), FlexfecError> {
        let ParityPayload { base, mask, fields, data, .. } = *payload;
        let Some(highest) = self.highest else { return Ok(()) };
        let is_near = sequence_ahead(base, highest) > -WINDOW.cast_signed()
            && sequence_ahead(payload.last(), highest) <= SPAN_MAX.cast_signed();
        if !is_near {
            return Err(FlexfecError::Base);
        }
        let mut sum = [0; SUM_BYTES_MAX];
        sum.get_mut(..data.len()).ok_or(FlexfecError::Length)?.copy_from_slice(data);
        let mut lost = 0_u128;
        for at in places(mask) {
            let sequence = base.wrapping_add(at);
            let is_followed = sequence_ahead(sequence, highest) > 0
                || highest.wrapping_sub(sequence) < self.followed;
            match self.find(sequence) {
                Some(kept) if kept.length > 0 => {}
                None if is_followed => lost |= 1 << at,
                // Its bytes are unknown.
                _ => return Ok(()),
            }
        }
        if lost == 0 {
            return Ok(());
        }
        if self.waiting.len() == WAITING_MAX {
            let behind = |parity: &WaitingParity| sequence_ahead(highest, parity.base);
            let oldest = (0..WAITING_MAX).max_by_key(|at| behind(&self.waiting[*at]));
            self.waiting.swap_remove(oldest.unwrap_or(0));
        }
        let length = data.len();
        self.waiting.push(WaitingParity { base, mask, lost, fields, length, data: sum });
        Ok(())
    }

    /// Recovers the next packet. `None` if there is none. Recovered packets count as received.
    ///
    /// # Errors
    /// Fails if a parity packet does not fit the packets that it covers. It is removed.
    pub fn recover(&mut self) -> Option<Result<&[u8], FlexfecError>> {
        let index = self.waiting.iter().position(|parity| parity.lost.is_power_of_two())?;
        let parity = self.waiting.swap_remove(index);
        let sequence = parity.base.wrapping_add(parity.lost.trailing_zeros() as u16);
        self.advance(sequence);
        Some(match self.add_up(&parity, sequence) {
            Ok(length) => {
                let kept = ReceivedPacket { sequence, length: length as u16, is_recovered: true };
                self.packets[place(sequence)] = Some(kept);
                self.note_found(sequence);
                Ok(&self.data[place(sequence)][..length])
            }
            Err(error) => Err(error),
        })
    }

    /// Writes the lost packet of a parity packet, of which all others are kept, to its place. Returns its length.
    fn add_up(&mut self, parity: &WaitingParity, sequence: u16) -> Result<usize, FlexfecError> {
        let WaitingParity { base, mask, lost, mut fields, length, mut data } = *parity;
        let sum = &mut data[..length];
        for at in places(mask & !lost) {
            let sequence = base.wrapping_add(at);
            let kept = self.find(sequence).ok_or(FlexfecError::Base)?;
            let packet = &self.data[place(sequence)][..usize::from(kept.length)];
            add(packet, &mut fields, sum)?;
        }
        let [h0, h1, l0, l1, t0, t1, t2, t3] = fields;
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let rest = sum.get(..length).ok_or(FlexfecError::Length)?;
        // No other number in the window has this place.
        let packet = &mut self.data[place(sequence)][..HEADER_LEN + length];
        let [s0, s1] = sequence.to_be_bytes();
        let [c0, c1, c2, c3] = self.ssrc.to_be_bytes();
        let header = [0x80 | h0 & 0x3f, h1, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3];
        packet[..HEADER_LEN].copy_from_slice(&header);
        packet[HEADER_LEN..].copy_from_slice(rest);
        RtpHeader::parse(packet).map_err(|_| FlexfecError::Packet)?;
        Ok(packet.len())
    }

    /// Returns a packet that came, or was recovered.
    fn find(&self, sequence: u16) -> Option<ReceivedPacket> {
        self.packets[place(sequence)].filter(|kept| kept.sequence == sequence)
    }

    /// Makes this number the highest one, unless another one is.
    fn advance(&mut self, sequence: u16) {
        let highest = *self.highest.get_or_insert(sequence);
        let ahead = sequence_ahead(sequence, highest);
        if ahead.unsigned_abs() >= WINDOW {
            // The stream began anew, or paused.
            (self.highest, self.followed) = (Some(sequence), 0);
            self.packets.fill(None);
            self.waiting.clear();
        } else if ahead > 0 {
            for skipped in 0..ahead.unsigned_abs() {
                self.packets[place(sequence.wrapping_sub(skipped))] = None;
            }
            self.highest = Some(sequence);
            self.followed = (self.followed + ahead.unsigned_abs()).min(WINDOW);
            let oldest = -WINDOW.cast_signed();
            self.waiting.retain(|parity| sequence_ahead(parity.base, sequence) > oldest);
        }
    }

    /// A lost packet is no longer lost.
    fn note_found(&mut self, sequence: u16) {
        for parity in &mut self.waiting {
            let at = sequence.wrapping_sub(parity.base);
            if at < SPAN_MAX {
                parity.lost &= !(1 << at);
            }
        }
        self.waiting.retain(|parity| parity.lost != 0);
    }
}

fn place(sequence: u16) -> usize {
    usize::from(sequence % WINDOW)
}
