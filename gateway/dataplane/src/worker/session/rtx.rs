//! Retransmissions in streams of their own (RFC 4588) to and from a client that negotiated `rtx` for a stream with `nack`.
//!
//! **To the client**, if the answer announced an SSRC for them (`a=ssrc-group:FID`): a NACK is answered with the packet as the client got it,
//! under this SSRC, with the next number of it, and with a transport-wide number of its own. SRTP counts the indices of the SSRC
//! ([`evenkeel_media::srtp`]), so it alone owns the numbers: they are leased, and go on at another process, like those of any stream.
//! Retransmissions of nodes get numbers of the same sequence. Other clients get the same bytes again ([`super::repair`]).
//!
//! **From the client**, a retransmission that the gateway asked for ends here: the nodes get the packet in it, under its own number. Others pass as
//! they are: those that a node asked for, and padding, which probes the path.
//!
//! Reports about these streams end here, too. Few packets are in them, so that one that is lost would be a high share; and nodes do not
//! get, or do not send, all numbers.
//!
//! No record contains this state.

use evenkeel_media::repair::missing::{MissingPackets, RetransmittedPacket};
use evenkeel_media::retransmission::{self, PacketNumbers};
use evenkeel_media::rtcp::rewrite;
use evenkeel_media::rtp::RtpHeader;
use evenkeel_model::{DropReason, MediaDescription, PayloadType, RepairKind, StreamKind};

use super::feedback::remember;
use super::srtp::SrtpEnds;

/// A payload type and that of its retransmissions, by the room's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct RepeatedType {
    original: u8,
    retransmission: u8,
}

impl RepeatedType {
    /// Returns the pairs that the client negotiated, if the gateway can read and write their packets.
    fn of(media: &MediaDescription) -> Vec<RepeatedType> {
        let streams =
            media.streams.iter().filter(|it| it.feedback.nack && media.srtp.is_readable());
        let repeated = streams.flat_map(|stream| {
            let types = &stream.payload_types;
            let repeats = types.iter().filter(|it| it.repair() == Some(RepairKind::Retransmission));
            repeats.filter_map(move |repeat| {
                let is_original =
                    |it: &&PayloadType| Some(it.number) == repeat.repairs && !it.is_repair();
                let original = types.iter().find(is_original)?.number;
                Some(RepeatedType { original, retransmission: repeat.number })
            })
        });
        repeated.collect()
    }
}

/// A packet that is sent to the client again.
#[derive(Clone, Copy, Debug)]
pub(super) struct DuePacket {
    pub(super) kind: StreamKind,
    pub(super) ssrc: u32,
    pub(super) sequence: u16,
    pub(super) copies: u32,
    /// It was not sent again before.
    pub(super) is_first: bool,
}

/// The retransmissions of one client.
#[derive(Debug)]
pub(super) struct ClientRtx {
    types: Vec<RepeatedType>,
    /// The client's SSRCs of retransmissions of which some ended here.
    sources: Vec<u32>,
    /// Packets to the client that its last NACKs asked for.
    pub(super) due: Vec<DuePacket>,
    packet: Vec<u8>,
}

impl ClientRtx {
    /// Follows the description of the client's media.
    pub(super) fn follow(rtx: &mut Option<Box<ClientRtx>>, media: &MediaDescription) {
        let types = RepeatedType::of(media);
        if types.is_empty() {
            *rtx = None;
        } else if let Some(rtx) = rtx {
            rtx.types = types;
        } else {
            let (sources, due, packet) = Default::default();
            *rtx = Some(Box::new(ClientRtx { types, sources, due, packet }));
        }
    }

    /// Returns payload type and SSRC of retransmissions of this packet to the client.
    fn stream_for(&self, original: &RtpHeader, srtp: &SrtpEnds) -> Option<(u8, u32)> {
        let repeated = self.types.iter().find(|it| it.original == original.payload_type)?;
        Some((repeated.retransmission, srtp.retransmissions_of(original.ssrc)?))
    }

    /// Returns whether a packet to the client, before encryption, is sent again in a stream of its own.
    pub(super) fn repeats(&self, packet: &[u8], srtp: &SrtpEnds) -> bool {
        let header = RtpHeader::parse(packet);
        header.is_ok_and(|header| self.stream_for(&header, srtp).is_some())
    }

    /// Returns the next retransmission of this packet to the client, before encryption. `None` if a later offer ended its stream.
    pub(super) fn repeat(&mut self, packet: &[u8], srtp: &SrtpEnds) -> Option<&[u8]> {
        let header = RtpHeader::parse(packet).ok()?;
        let (payload_type, ssrc) = self.stream_for(&header, srtp)?;
        let numbers = PacketNumbers { payload_type, ssrc, sequence: srtp.next_number(ssrc) };
        retransmission::write(&header, packet, numbers, &mut self.packet);
        Some(&self.packet)
    }

    /// Returns whether this is the payload type of retransmissions of which the gateway reads the packets.
    pub(super) fn reads(&self, payload_type: u8) -> bool {
        self.types.iter().any(|it| it.retransmission == payload_type)
    }

    /// Handles a retransmission of the client. Returns the packet in it, in a buffer that [`reuse`](ClientRtx::reuse) takes, if that was asked for.
    /// `None` if the retransmission itself is to follow. Fails if nothing is.
    pub(super) fn restore(
        &mut self,
        header: &RtpHeader,
        packet: &[u8],
        missing: &mut MissingPackets,
    ) -> Result<Option<Vec<u8>>, DropReason> {
        let repeated = self.types.iter().find(|it| it.retransmission == header.payload_type);
        let Some(&RepeatedType { original, .. }) = repeated else { return Ok(None) };
        if header.payload_len() == 0 {
            return Ok(None);
        }
        let sequence = retransmission::original_sequence(header, packet);
        let sequence = sequence.ok_or(DropReason::Malformed)?;
        let found = missing.receive_retransmission(sequence, Some(original));
        if found != RetransmittedPacket::Unasked {
            remember(&mut self.sources, header.ssrc);
        }
        match found {
            RetransmittedPacket::Missing(ssrc) => {
                let mut restored = std::mem::take(&mut self.packet);
                retransmission::restore(header, packet, original, ssrc, &mut restored);
                Ok(Some(restored))
            }
            RetransmittedPacket::Repeated => Err(DropReason::Duplicate),
            RetransmittedPacket::Unasked => Ok(None),
            RetransmittedPacket::Unknown => Err(DropReason::Stale),
        }
    }

    /// Takes the buffer of a packet that was sent.
    pub(super) fn reuse(&mut self, buffer: Vec<u8>) {
        self.packet = buffer;
    }

    /// Removes a node's reports about retransmissions of the client of which some ended here. Returns whether anything is left.
    pub(super) fn retain_reports(&self, compound: &mut Vec<u8>) -> bool {
        let length = rewrite::retain_reports(compound, |ssrc| !self.sources.contains(&ssrc));
        compound.truncate(length);
        length > 0
    }
}
