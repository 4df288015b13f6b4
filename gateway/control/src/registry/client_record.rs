//! The identification of a client in a record.

use std::net::{IpAddr, SocketAddr};

use evenkeel_dataplane::flows::{FlowEntry, FlowKey, Home};
use evenkeel_dataplane::worker::ClientAddressing;
use serde::{Deserialize, Serialize};

use super::ice::IceSecret;

/// An address with its scope.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct ScopedAddress(
    #[serde(with = "evenkeel_dataplane::address")] pub(super) SocketAddr,
);

/// The identification of a client.
#[derive(Clone, Serialize, Deserialize)]
pub(super) enum ClientRecord {
    Declared {
        listener: u8,
        address: ScopedAddress,
        rtcp: Option<ScopedAddress>,
    },
    DeclaredIp {
        listener: u8,
        ip: IpAddr,
    },
    Stun {
        ufrag: Box<str>,
        password: Box<str>,
        /// Before the last restart of ICE.
        #[serde(default)]
        earlier: Option<IceSecret>,
    },
    Quic {
        flow_to_gateway: u64,
        flow_from_gateway: u64,
    },
}

pub(super) type FlowPair = (FlowKey, FlowEntry);

/// Omits the credentials, to keep them out of logs.
impl std::fmt::Debug for ClientRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientRecord").finish_non_exhaustive()
    }
}

impl ClientRecord {
    /// The client's addresses and flow-table keys. `None` if its ufrag is too long.
    pub(super) fn keys(self, home: Home) -> Option<(ClientAddressing, FlowPair, Option<FlowPair>)> {
        let plain = |client, key| Some((client, (key, FlowEntry::of(home)), None));
        match self {
            ClientRecord::Declared { listener, address: ScopedAddress(address), rtcp } => {
                let rtcp = rtcp.map(|ScopedAddress(rtcp)| rtcp);
                let pair = |address| (FlowKey::Udp { listener, address }, FlowEntry::of(home));
                let client =
                    ClientAddressing::Declared { listener, address, rtcp: rtcp.unwrap_or(address) };
                Some((client, pair(address), rtcp.map(pair)))
            }
            ClientRecord::DeclaredIp { listener, ip } => plain(
                ClientAddressing::DeclaredIp { listener },
                FlowKey::DeclaredIp { listener, ip },
            ),
            ClientRecord::Stun { ufrag, password, earlier } => {
                let earlier = match earlier {
                    Some(earlier) => Some(earlier.pair(home)?),
                    None => None,
                };
                let pair = IceSecret { ufrag, password }.pair(home)?;
                Some((ClientAddressing::Stun, pair, earlier))
            }
            ClientRecord::Quic { flow_to_gateway, flow_from_gateway } => {
                plain(ClientAddressing::Quic { flow_from_gateway }, FlowKey::Roq(flow_to_gateway))
            }
        }
    }
}
