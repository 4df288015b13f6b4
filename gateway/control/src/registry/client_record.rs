//! The identification of a client in a record, and the ICE credentials of sessions (RFC 8839, section 5.4).

use std::net::{IpAddr, SocketAddr};

use evenkeel_dataplane::flows::{FlowEntry, FlowKey, Home, Ufrag};
use evenkeel_dataplane::worker::ClientAddressing;
use serde::{Deserialize, Serialize};

/// ICE characters for ufrags and passwords (RFC 8839, 5.4); 64, so that six random bits choose one.
const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// 48 random bits distinguish sessions. A guessed ufrag is useless without the password.
const UFRAG_LENGTH: usize = 8;

/// 144 random bits; RFC 8445, 5.3 requires 128.
const PASSWORD_LENGTH: usize = 24;

/// The gateway's credentials of a session. No `Debug`: the password is secret.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct IceSecret {
    pub(super) ufrag: Box<str>,
    pub(super) password: Box<str>,
}

impl IceSecret {
    pub(super) fn draw(random: &mut dyn FnMut(&mut [u8])) -> IceSecret {
        let mut text = |length| {
            let mut bytes = vec![0; length];
            random(&mut bytes);
            bytes.into_iter().map(|byte| char::from(ICE_CHARS[usize::from(byte & 63)])).collect()
        };
        IceSecret { ufrag: text(UFRAG_LENGTH), password: text(PASSWORD_LENGTH) }
    }

    /// The key and the entry in the flow table. `None` if the ufrag is too long.
    pub(super) fn pair(&self, home: Home) -> Option<FlowPair> {
        let key = FlowKey::Ufrag(Ufrag::new(self.ufrag.as_bytes())?);
        let password = Some(self.password.as_bytes().into());
        Some((key, FlowEntry { password, ..FlowEntry::of(home) }))
    }
}

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
