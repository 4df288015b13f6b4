//! Reads, rewrites, repairs and measures RTP: bytes and numbers in and out, without sessions or
//! I/O.
//!
//! Parsers work in place on `&[u8]`; writers use `&mut [u8]` or a `Vec` of the caller. An invalid
//! packet is an error, never a panic. Time and random numbers are arguments.
//!
//! In the order of a packet: [`demux`] classifies a datagram, [`stun`] authenticates its sender,
//! [`srtp`] decrypts it, [`numbering`] gives it the numbers of its room, [`rtp`] and [`rtcp`] parse
//! it, [`key_frame`] and [`frames`] look into video, [`roq`] and [`trunk`] carry it, [`continuity`] hides a change
//! of sender from the receiver, also in a [`retransmission`], [`merge`] deduplicates two copies of a
//! stream, [`rtp::Reception`], [`loss`] and [`quality`] measure reception, [`probe`] a path before there is media.
//! [`repair`] restores lost packets, [`estimate`] tells the rate that a path can carry, [`pacer`] sends at it, [`policing`] finds a sender that
//! exceeds one, [`layers`] passes one layer of simulcast.
//! [`fingerprint`] checks the certificate of a DTLS handshake.

mod bytes;
pub mod continuity;
pub mod demux;
pub mod estimate;
pub mod fingerprint;
pub mod frames;
pub mod key_frame;
pub mod layers;
pub mod loss;
pub mod merge;
pub mod numbering;
pub mod pacer;
pub mod policing;
pub mod probe;
pub mod quality;
pub mod repair;
pub mod retransmission;
pub mod roq;
pub mod rtcp;
pub mod rtp;
pub mod srtp;
pub mod stun;
pub mod trunk;

#[cfg(test)]
mod tests;
