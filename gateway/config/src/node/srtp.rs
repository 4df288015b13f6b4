//! `srtp` of `[[node]]`.

use std::net::SocketAddr;

use evenkeel_model::Srtp;
use serde::Deserialize;
use toml::Spanned;

use crate::check::ConfigCheck;

/// SRTP between the gateway and a node (RFC 3711).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeSrtp {
    /// The gateway encrypts nothing for the node. SRTP of clients that does not end at the gateway passes unread.
    #[default]
    Off,
    /// The gateway encrypts the legs. The driver agrees with the node on keys for each leg (SDES, RFC 4568).
    Sdes,
    /// The node takes only SRTP of clients that passes unread.
    Passthrough,
}

impl NodeSrtp {
    /// The value of the key.
    pub fn name(self) -> &'static str {
        match self {
            NodeSrtp::Off => "off",
            NodeSrtp::Sdes => "sdes",
            NodeSrtp::Passthrough => "passthrough",
        }
    }

    /// Returns whether the node takes sessions of clients with this SRTP.
    pub fn takes(self, client: Srtp) -> bool {
        match self {
            NodeSrtp::Off => true,
            NodeSrtp::Sdes => client.is_readable(),
            NodeSrtp::Passthrough => !client.is_readable(),
        }
    }
}

/// Checks the key of a node with this driver. A driver that `negotiates` sends keys in its messages, which must stay on this host.
pub(super) fn check(
    raw: Option<&Spanned<NodeSrtp>>,
    driver: &str,
    negotiates: bool,
    address: Option<SocketAddr>,
    check: &mut ConfigCheck,
) -> NodeSrtp {
    let Some(raw) = raw else { return NodeSrtp::Off };
    let srtp = *raw.get_ref();
    let is_remote = address.is_some_and(|address| !address.ip().to_canonical().is_loopback());
    if srtp == NodeSrtp::Sdes && !negotiates {
        let found = format!("`srtp = \"sdes\"` with driver `{driver}`");
        let expected = "`srtp = \"sdes\"` with driver `rtpengine` only, which agrees on keys";
        check.refuse(raw.span(), found, expected).help = (driver == "agent").then(|| {
            "`encrypt = true` encrypts the trunk of driver `agent` with all its packets".to_owned()
        });
    } else if srtp == NodeSrtp::Sdes && is_remote {
        let found = "`srtp = \"sdes\"` with `ng` on another host";
        let expected = "`ng` on a loopback address such as `127.0.0.1:2223`";
        check.refuse(raw.span(), found, expected).help = Some(
            "messages of the NG protocol are not encrypted, and they contain the keys; a tunnel that is encrypted may begin at the \
             loopback address"
                .to_owned(),
        );
    }
    srtp
}

#[cfg(test)]
mod tests;
