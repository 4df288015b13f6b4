//! Where clients come in.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use super::check::Check;
use super::raw;

/// A listener's place in [`Settings`](super::Settings) is one byte in a session.
pub(super) const LISTENS_MAX: usize = 64;

/// `[[listen]]`.
#[derive(Clone, PartialEq, Debug)]
pub struct Listen {
    /// The local address. Port 0: the system chooses one.
    pub address: SocketAddr,
    /// What is spoken there.
    pub ingress: Ingress,
    /// The address that clients are told, behind NAT and where `address` is that of every interface; port 0: the port
    /// listened on. Default: none, they are told `address`.
    pub advertise: Option<SocketAddr>,
}

/// What is spoken on a listener.
#[derive(Clone, PartialEq, Debug)]
pub enum Ingress {
    /// RTP over UDP.
    Udp {
        /// How clients may prove that they may send; at least one.
        identities: Vec<Identity>,
        /// The scenario of sessions that a first packet opens; there exactly where `identities` holds `Open`.
        open: Option<Arc<str>>,
        /// Where RTCP comes in.
        rtcp: Rtcp,
    },
    /// RTP over QUIC.
    Quic {
        /// The certificate. Default: none, one is made.
        certificate: Option<Certificate>,
    },
}

/// How a client of a UDP listener proves that it may send.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// By the address and port that the API named.
    Declared,
    /// By the address that the API named; the port is learned once, from the first packet: whoever can forge that
    /// address within this moment gets the session.
    DeclaredIp,
    /// By the session's ufrag and password (ICE-lite, RFC 8445).
    Stun,
    /// Not at all: the first packet opens a session. For trusted networks.
    Open,
}

/// Where RTCP comes in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rtcp {
    /// With RTP alone (RFC 5761).
    Mux,
    /// With RTP, and for sessions that asked so on this port; 0: the system chooses one.
    Own(u16),
}

/// PEM files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certificate {
    /// The chain, leaf first.
    pub chain: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A listener with what is still to be checked against other files.
pub(super) struct Checked {
    pub(super) listen: Listen,
    pub(super) span: Range<usize>,
    pub(super) scenario: Option<Spanned<String>>,
}

pub(super) fn check(raw: &Spanned<raw::Listen>, check: &mut Check) -> Option<Checked> {
    let (span, raw) = (raw.span(), raw.get_ref());
    let expected = "an address and port such as `0.0.0.0:5004` or `[::]:5004`";
    let (written, address, ingress) = match (&raw.udp, &raw.quic) {
        (Some(udp), None) => {
            let address = check.parse(udp, expected)?;
            (udp.span(), address, self::udp(raw, address, check))
        }
        (None, Some(quic)) => {
            let address = check.parse(quic, expected)?;
            (quic.span(), address, self::quic(raw, check))
        }
        (None, None) => {
            check.refuse(span, "neither `udp` nor `quic`", "one of them, with an address");
            return None;
        }
        (Some(_), Some(quic)) => {
            check.refuse(quic.span(), "`quic` beside `udp`", "a `[[listen]]` of its own for each");
            return None;
        }
    };
    let advertise = raw.advertise.as_ref().and_then(|raw| advertise(raw, check));
    let listen = Listen { address, ingress, advertise };
    if raw.advertise.is_none() && listen.address.ip().is_unspecified() && listen.is_told() {
        let found = format!("`{address}`, where no client can send");
        check.refuse(written.clone(), found, "`advertise` beside it: the address clients are told");
    }
    Some(Checked { listen, span: written, scenario: raw.scenario.clone() })
}

fn udp(raw: &raw::Listen, address: SocketAddr, check: &mut Check) -> Ingress {
    for key in [&raw.certificate, &raw.key].into_iter().flatten() {
        check.refuse(key.span(), "a certificate for `udp`", "`certificate` and `key` with `quic`");
    }
    let mut identities = vec![Identity::Declared, Identity::Stun];
    if let Some(written) = &raw.identity {
        identities = written.get_ref().iter().map(|word| *word.get_ref()).collect();
        identities.sort();
        identities.dedup();
        if identities.is_empty() {
            let expected = "at least one of `declared`, `declared-ip`, `stun`, `open`";
            check.refuse(written.span(), "no identity", expected);
        }
    }
    let open = identities.contains(&Identity::Open);
    match (&raw.scenario, &raw.identity) {
        (None, Some(written)) if open => {
            let expected = "`scenario` to be set beside it: what a first packet opens";
            check.refuse(written.span(), "`open` without a scenario", expected);
        }
        (Some(scenario), _) if !open => {
            let expected = "`scenario` only where `identity` holds `open`";
            check.refuse(scenario.span(), "a scenario for no `open`", expected).help =
                Some("elsewhere the offer names its scenario".to_owned());
        }
        _ => {}
    }
    let scenario = raw.scenario.as_ref().map(|name| check.name(name));
    Ingress::Udp { identities, open: scenario.filter(|_| open), rtcp: rtcp(raw, address, check) }
}

fn rtcp(raw: &raw::Listen, address: SocketAddr, check: &mut Check) -> Rtcp {
    let Some(written) = &raw.rtcp else {
        // RFC 3550, 11: RTCP on the next higher port.
        return match address.port() {
            0 => Rtcp::Own(0),
            port => port.checked_add(1).map_or(Rtcp::Mux, Rtcp::Own),
        };
    };
    match written.get_ref() {
        toml::Value::String(word) if word == "mux" => return Rtcp::Mux,
        toml::Value::Integer(port) => {
            if let Ok(port) = u16::try_from(*port) {
                return Rtcp::Own(port);
            }
        }
        _ => {}
    }
    check.refuse(written.span(), written.get_ref().to_string(), "a port from 0 to 65535, or `mux`");
    Rtcp::Mux
}

fn quic(raw: &raw::Listen, check: &mut Check) -> Ingress {
    let unfit = [
        ("identity", raw.identity.as_ref().map(Spanned::span)),
        ("scenario", raw.scenario.as_ref().map(Spanned::span)),
        ("rtcp", raw.rtcp.as_ref().map(Spanned::span)),
    ];
    for (key, span) in unfit {
        if let Some(span) = span {
            let found = format!("`{key}` for `quic`");
            check.refuse(span, found, format!("`{key}` with `udp` only")).help =
                Some("over QUIC the flow identifier is the proof, and carries RTCP too".to_owned());
        }
    }
    let certificate = match (&raw.certificate, &raw.key) {
        (None, None) => None,
        (Some(chain), Some(key)) => {
            for path in [chain, key] {
                if let Err(error) = std::fs::metadata(check.path(path.get_ref())) {
                    let found = format!("`{}`: {error}", path.get_ref());
                    check.refuse(path.span(), found, "a PEM file");
                }
            }
            let (chain, key) = (check.path(chain.get_ref()), check.path(key.get_ref()));
            Some(Certificate { chain, key })
        }
        (Some(alone), None) => {
            check.refuse(alone.span(), "`certificate` without `key`", "both, or neither");
            None
        }
        (None, Some(alone)) => {
            check.refuse(alone.span(), "`key` without `certificate`", "both, or neither");
            None
        }
    };
    Ingress::Quic { certificate }
}

fn advertise(raw: &Spanned<String>, check: &mut Check) -> Option<SocketAddr> {
    if let Ok(ip) = raw.get_ref().parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, 0));
    }
    check.parse(raw, "an address such as `203.0.113.7`, with a port if it differs")
}

impl Listen {
    /// Whether clients are told of it; who opens a session by its first packet knows where to send.
    fn is_told(&self) -> bool {
        match &self.ingress {
            Ingress::Udp { identities, .. } => identities[..] != [Identity::Open],
            Ingress::Quic { .. } => true,
        }
    }

    /// The addresses its sockets take: RTP's, and that of RTCP on its own port.
    pub fn sockets(&self) -> impl Iterator<Item = SocketAddr> {
        let rtcp = match self.ingress {
            Ingress::Udp { rtcp: Rtcp::Own(port), .. } => {
                Some(SocketAddr::new(self.address.ip(), port))
            }
            Ingress::Udp { rtcp: Rtcp::Mux, .. } | Ingress::Quic { .. } => None,
        };
        std::iter::once(self.address).chain(rtcp)
    }
}

/// A second endpoint for QUIC: there is one, for clients of all kinds.
pub(super) fn quic_once(checked: &[Checked], check: &mut Check) {
    let is_quic = |checked: &&Checked| matches!(checked.listen.ingress, Ingress::Quic { .. });
    let mut endpoints = checked.iter().filter(is_quic);
    let Some(first) = endpoints.next() else { return };
    for later in endpoints {
        let help =
            format!("the first is at {}; on `[::]` it takes IPv4 too", check.place(&first.span));
        check.refuse(later.span.clone(), "`quic` a second time", "one listener for QUIC").help =
            Some(help);
    }
}

/// Two listeners that want the same port of the same address.
pub(super) fn overlaps(checked: &[Checked], check: &mut Check) {
    for (index, later) in checked.iter().enumerate() {
        let rival = checked[..index].iter().find_map(|earlier| {
            let taken: Vec<_> = earlier.listen.sockets().collect();
            let wanted = later.listen.sockets().find(|a| taken.iter().any(|b| same(*a, *b)))?;
            Some((wanted, earlier.span.clone()))
        });
        if let Some((wanted, first)) = rival {
            let first = check.place(&first);
            let found = format!("{wanted} a second time");
            let help =
                format!("it is taken at {first}; RTCP takes the next port unless `rtcp` says");
            check.refuse(later.span.clone(), found, "an address of its own").help = Some(help);
        }
    }
}

fn same(a: SocketAddr, b: SocketAddr) -> bool {
    let any = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && a.is_ipv4() == b.is_ipv4() && (any || a.ip() == b.ip())
}
