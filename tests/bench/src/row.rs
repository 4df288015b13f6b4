//! The parameters of one line of the report: rate, direction and legs.

use evenkeel_media::srtp::SrtpProfile;
use serde::{Serialize, Serializer};

/// The transport of media in and out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub(crate) enum Path {
    /// RTP over UDP on both sides.
    #[serde(rename = "udp-udp")]
    UdpUdp,
    /// From a client by RTP over QUIC.
    #[serde(rename = "roq-udp")]
    RoqUdp,
    /// To a client by RTP over QUIC.
    #[serde(rename = "udp-roq")]
    UdpRoq,
}

/// The way in which nodes distinguish sessions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Leg {
    /// By address: the relay has a socket per session.
    Port,
    /// By tag: the relay has a socket per node.
    Trunk,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Direction {
    ToNode,
    ToClient,
    /// Half of the packets each.
    Both,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Load {
    /// Packets per second.
    Paced(u32),
    /// The highest rate that one core can offer.
    Saturated,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Sizes {
    /// Recorded lengths of Opus with a variable bit rate.
    Voice,
    /// Recorded lengths of H.264 packets.
    Video,
    /// Bytes of RTP, header included.
    Constant(u16),
}

/// The crypto suite of clients with SRTP that ends at the relay. Keys are those of SDES (RFC 4568).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Suite {
    Gcm,
    CounterMode,
}

impl Suite {
    pub(crate) const ALL: [Suite; 2] = [Suite::Gcm, Suite::CounterMode];

    pub(crate) fn profile(self) -> SrtpProfile {
        match self {
            Suite::Gcm => SrtpProfile::AeadAes128Gcm,
            Suite::CounterMode => SrtpProfile::Aes128CmHmacSha1Tag80,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Row {
    pub(crate) path: Path,
    pub(crate) leg: Leg,
    pub(crate) direction: Direction,
    pub(crate) load: Load,
    pub(crate) destinations: usize,
    pub(crate) sessions: usize,
    pub(crate) sizes: Sizes,
    /// `None`: clients send plain RTP, as nodes do in every row.
    pub(crate) srtp: Option<Suite>,
}

impl Row {
    /// The row from which each axis is varied: voice, to six nodes, 1,000 sessions, 50,000 packets a second.
    pub(crate) const fn base(leg: Leg) -> Row {
        Row {
            path: Path::UdpUdp,
            leg,
            direction: Direction::ToNode,
            load: Load::Paced(50_000),
            destinations: 6,
            sessions: 1_000,
            sizes: Sizes::Voice,
            srtp: None,
        }
    }

    /// The title that `--rows` matches, such as `trunk to_node voice 6 nodes 1000 sessions 50k`.
    pub(crate) fn title(&self) -> String {
        let word = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let (leg, direction) = (serde_json::json!(self.leg), serde_json::json!(self.direction));
        let path = match self.path {
            Path::UdpUdp => String::new(),
            path => format!("{} ", word(serde_json::json!(path))),
        };
        let nodes = if self.destinations == 1 { "node" } else { "nodes" };
        let sessions = if self.sessions == 1 { "session" } else { "sessions" };
        let srtp = self.srtp.map(|suite| format!(" srtp {}", suite.profile().name()));
        format!(
            "{path}{} {} {} {} {nodes} {} {sessions} {}{}",
            word(leg),
            word(direction),
            self.sizes,
            self.destinations,
            self.sessions,
            self.load,
            srtp.unwrap_or_default()
        )
    }
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Load::Paced(rate) if rate % 1_000 == 0 => write!(f, "{}k", rate / 1_000),
            Load::Paced(rate) => write!(f, "{rate}"),
            Load::Saturated => f.write_str("saturated"),
        }
    }
}

impl std::fmt::Display for Sizes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Sizes::Voice => f.write_str("voice"),
            Sizes::Video => f.write_str("video"),
            Sizes::Constant(bytes) => write!(f, "{bytes}"),
        }
    }
}

impl Serialize for Load {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Sizes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Suite {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.profile().name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn title_says_all_that_a_row_is() {
        assert_eq!(Row::base(Leg::Trunk).title(), "trunk to_node voice 6 nodes 1000 sessions 50k");
        let row = Row {
            path: Path::RoqUdp,
            direction: Direction::Both,
            load: Load::Saturated,
            destinations: 1,
            sessions: 1,
            sizes: Sizes::Constant(160),
            ..Row::base(Leg::Port)
        };
        assert_eq!(row.title(), "roq-udp port both 160 1 node 1 session saturated");
        let row = Row { srtp: Some(Suite::Gcm), ..Row::base(Leg::Port) };
        let title = "port to_node voice 6 nodes 1000 sessions 50k srtp AEAD_AES_128_GCM";
        assert_eq!(row.title(), title);
    }
}
