//! Names the segment of a session's path that impairs its media: the device of a sender, an uplink, the leg between
//! gateway and node, the node, this gateway or the downlink.
//!
//! Each measurement covers a segment and those before it. The gateway measures packets from a client (its uplink) and from
//! the node (the senders' uplinks, the leg, the node). Receiver reports cover the rest: the node's the uplink and the way
//! to the node, the client's everything up to the client. Loss or jitter of a segment is the difference to the segments
//! before it. Loss impairs a session if it is at least 3 % and above 1 % with a certainty of 95 %; jitter from 22 ms.
//!
//! Counts of packets are compared over the same two slots of time, which end a slot before the comparison, because
//! reports on the sessions of a room come one after another. Receiver reports cover another time, so the lower one of the
//! last two is compared with the worst value before it in the last twelve slots. Jitter is the lowest of the last three slots.
//!
//! Probes are lost or delayed on the leg and not in the node, which tells these two apart. Loss and jitter while the
//! gateway was late or dropped packets are its own, as is a stall of a quarter of the time. The device of a sender is named if no
//! packet is lost and video frames become much rarer although nothing limits the bit rate, requested key frames do not come, or
//! its voice never had any sound. A device that sends less than two thirds of its usual frames over a good path is asked for less.
//!
//! A round trip covers both directions, so one of a client does not tell its uplink from its downlink: the segment is
//! unknown.

// Tests start their virtual clock at the current time.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod advice;
mod device;
mod load;
mod loss;
mod own;
mod path;
mod reports;
mod timing;
mod uplinks;

pub use advice::{Advisor, FLOOR_R_CENTI, SessionQuality, VideoState};
pub use load::{DeviceLoad, DeviceSlot};
pub use own::{OwnFault, OwnFaults};
pub use path::{ImpairmentChange, PathContext, ProbedLeg, SessionPath, StandingImpairment};
pub use uplinks::{HeardUplinks, RoomUplinks, SenderUplink};
