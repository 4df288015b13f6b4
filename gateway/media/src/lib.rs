//! Reads, rewrites, repairs and measures RTP: bytes and numbers in and out, no session, no I/O.
//!
//! Everything parses in place from `&[u8]` and writes into `&mut [u8]` or a `Vec` the caller keeps;
//! a bad packet is a reason, never a panic. Absent on purpose: sockets, clocks, random numbers
//! (they are arguments), sessions, nodes, policy.
//!
//! Read it in the order a packet does: [`demux`] tells what a datagram is, [`stun`] proves who sent
//! it, [`rtp`] and [`rtcp`] read it, [`roq`] and [`trunk`] carry it, [`continuity`] keeps its
//! receiver from noticing a change of sender, [`merge`] makes one stream of two copies, [`statistics`] and [`quality`] say how it fared.

pub mod continuity;
pub mod demux;
pub mod merge;
pub mod quality;
pub mod roq;
pub mod rtcp;
pub mod rtp;
pub mod statistics;
pub mod stun;
pub mod trunk;
pub mod varint;
