//! Attacks by strangers on the network, in the API and on the host. Each test performs the attack beside a live session
//! and fails without the defence.

mod addresses;
mod api;
mod descriptors;
mod fence;
mod files;
mod flood;
mod icmp;
mod panics;
mod privileges;
mod quic;
mod relay;
mod socket;
mod strangers;
mod stun;
mod trunk;
