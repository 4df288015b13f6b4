//! Sockets that a process gets from the one that it replaces.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use evenkeel_dataplane::quic;
use evenkeel_policies::PolicyRecords;
use serde::{Deserialize, Serialize};

/// The use of an inherited descriptor. Addresses are those of the configuration, where the port may be 0.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SocketName {
    /// UDP socket of a listener for media packets.
    Rtp {
        /// Address of the listener.
        address: SocketAddr,
        /// Index of the worker that reads the socket.
        worker: usize,
    },
    /// UDP socket of a listener for RTCP.
    Rtcp {
        /// Address of the listener.
        address: SocketAddr,
        /// Index of the worker that reads the socket.
        worker: usize,
    },
    /// UDP socket of a QUIC listener.
    Quic {
        /// Address of the listener.
        address: SocketAddr,
    },
    /// Connected UDP socket of a trunk to a node.
    Trunk {
        /// Name of the node.
        node: Arc<str>,
        /// Address of the node.
        address: SocketAddr,
        /// Index of the worker that uses the socket.
        worker: usize,
    },
    /// UDP, for beats of a group.
    Beats {
        /// Address that receives the beats.
        address: SocketAddr,
    },
    /// TCP, for the records of a group.
    Link {
        /// Address that accepts the connections.
        address: SocketAddr,
    },
    /// Unix socket of the API.
    ApiUnix {
        /// Path of the socket.
        path: PathBuf,
    },
    /// TCP socket of the API.
    ApiTcp {
        /// Address of the API.
        address: SocketAddr,
    },
    /// The socket of the process that holds these addresses of the group.
    Addresses {
        /// Addresses of the group, as text.
        addresses: Vec<String>,
    },
    /// A pipe to process 1 of the container, which takes the number of each next process.
    Init,
}

/// Duplicates of a gateway's sockets, for the process that replaces it.
pub type NamedSockets = Vec<(SocketName, OwnedFd)>;

/// Descriptors and policies of the process that this one replaces; none for a process that replaces no other.
#[derive(Default, Debug)]
pub struct Inherited {
    sockets: BTreeMap<SocketName, VecDeque<OwnedFd>>,
    quic: Option<quic::EndpointIdentity>,
    policies: PolicyRecords,
}

impl Inherited {
    /// Collects descriptors by use; descriptors of the same use keep their order.
    pub fn of(
        sockets: impl IntoIterator<Item = (SocketName, OwnedFd)>,
        quic: Option<quic::EndpointIdentity>,
        policies: PolicyRecords,
    ) -> Inherited {
        let mut inherited = Inherited { sockets: BTreeMap::new(), quic, policies };
        for (name, socket) in sockets {
            inherited.sockets.entry(name).or_default().push_back(socket);
        }
        inherited
    }

    /// The certificate and the keys of the QUIC endpoint.
    pub fn take_quic_identity(&mut self) -> Option<quic::EndpointIdentity> {
        self.quic.take()
    }

    /// The records of policies.
    pub fn take_policies(&mut self) -> PolicyRecords {
        std::mem::take(&mut self.policies)
    }

    /// Takes a descriptor of this use. Listeners with port 0 may have the same name, and keep their order.
    pub fn take(&mut self, name: &SocketName) -> Option<OwnedFd> {
        self.sockets.get_mut(name)?.pop_front()
    }

    /// The descriptors that were not taken.
    pub fn remaining(&self) -> impl Iterator<Item = &SocketName> {
        self.sockets.iter().filter(|(_, sockets)| !sockets.is_empty()).map(|(name, _)| name)
    }
}
