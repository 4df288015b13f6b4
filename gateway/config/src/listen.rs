//! `[[listen]]`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use toml::Spanned;

use super::check::ConfigCheck;

/// Maximum listeners, since a session stores its listener in one byte.
pub(super) const LISTENS_MAX: usize = 64;

/// Maximum addresses of a listener: a client is told those of its carrier and one of another.
const ADVERTISED_MAX: usize = 16;

const ADVERTISED: &str = "an address such as `203.0.113.7`, with a port if it differs";

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct ListenTable {
    udp: Option<Spanned<String>>,
    quic: Option<Spanned<String>>,
    identity: Option<Spanned<Vec<Spanned<ListenIdentity>>>>,
    scenario: Option<Spanned<String>>,
    rtcp: Option<Spanned<toml::Value>>,
    advertise: Option<Spanned<AdvertiseValue>>,
    certificate: Option<Spanned<String>>,
    key: Option<Spanned<String>>,
}

/// One address, or those of several carriers.
enum AdvertiseValue {
    One(String),
    List(Vec<Spanned<AdvertiseTable>>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with `address` and `carrier`")]
struct AdvertiseTable {
    address: Spanned<String>,
    carrier: Option<Spanned<String>>,
}

impl<'de> Deserialize<'de> for AdvertiseValue {
    fn deserialize<D: Deserializer<'de>>(raw: D) -> Result<AdvertiseValue, D::Error> {
        struct AddressOrList;
        impl<'de> Visitor<'de> for AddressOrList {
            type Value = AdvertiseValue;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an address, or a list of tables with `address` and `carrier`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<AdvertiseValue, E> {
                Ok(AdvertiseValue::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<AdvertiseValue, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(AdvertiseValue::List)
            }
        }
        raw.deserialize_any(AddressOrList)
    }
}

/// `[[listen]]`: a socket for clients.
#[derive(Clone, PartialEq, Debug)]
pub struct ListenSettings {
    /// Port 0: chosen by the system.
    pub address: SocketAddr,
    /// The protocol, with its settings.
    pub ingress: ListenIngress,
    /// The addresses that clients are told, behind NAT or for a wildcard `address`, the default first. Empty: `address`.
    pub advertise: Vec<AdvertisedAddress>,
}

/// An address that clients are told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdvertisedAddress {
    /// Port 0: the port listened on.
    pub address: SocketAddr,
    /// The carrier of the network with the address, if it is named.
    pub carrier: Option<Arc<str>>,
}

/// The protocol of a listener.
#[derive(Clone, PartialEq, Debug)]
pub enum ListenIngress {
    /// RTP in UDP.
    Udp {
        /// Accepted identities; at least one.
        identities: Vec<ListenIdentity>,
        /// The scenario of sessions opened by a first packet; set if and only if `identities` contains `Open`.
        open: Option<Arc<str>>,
        /// The port of RTCP, for sessions that ask for it; 0: chosen by the system. `None`: RTCP uses the RTP port only
        /// (RFC 5761).
        rtcp: Option<u16>,
    },
    /// RTP over QUIC.
    Quic {
        /// Default: a self-signed certificate.
        certificate: Option<CertificateFiles>,
    },
}

/// A client's proof to a UDP listener that it may send.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ListenIdentity {
    /// The address and port of the offer.
    Declared,
    /// The address of the offer; the port is learned once, from the first packet. A sender that can forge this address
    /// until then takes the session.
    DeclaredIp,
    /// The session's ufrag and password (ICE-lite, RFC 8445).
    Stun,
    /// None: the first packet opens a session. For trusted networks.
    Open,
}

/// Files of a certificate, read at the start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateFiles {
    /// PEM, leaf first.
    pub chain: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

/// A listener with the spans needed to check it against other files.
pub(super) struct CheckedListener {
    pub(super) listen: ListenSettings,
    pub(super) span: Range<usize>,
    pub(super) scenario: Option<Spanned<String>>,
}

pub(super) fn check(
    raw: &Spanned<ListenTable>,
    check: &mut ConfigCheck,
) -> Option<CheckedListener> {
    let (span, raw) = (raw.span(), raw.get_ref());
    let expected = "an address and port such as `0.0.0.0:5004` or `[::]:5004`";
    let (written, address, ingress) = match (&raw.udp, &raw.quic) {
        (Some(udp), None) => {
            let address = check.address(udp, expected)?;
            (udp.span(), address, self::udp(raw, address, check))
        }
        (None, Some(quic)) => {
            let address = check.address(quic, expected)?;
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
    let advertise = raw.advertise.as_ref().map_or_else(Vec::new, |raw| advertise(raw, check));
    let listen = ListenSettings { address, ingress, advertise };
    if raw.advertise.is_none() && listen.address.ip().is_unspecified() && listen.is_announced() {
        let found = format!("`{address}` without `advertise`");
        check.refuse(written.clone(), found, "`advertise`, the address that clients send to");
    }
    Some(CheckedListener { listen, span: written, scenario: raw.scenario.clone() })
}

fn udp(raw: &ListenTable, address: SocketAddr, check: &mut ConfigCheck) -> ListenIngress {
    for key in [&raw.certificate, &raw.key].into_iter().flatten() {
        let expected = "`certificate` and `key` with `quic` only";
        check.refuse(key.span(), "a certificate with `udp`", expected);
    }
    let mut identities = vec![ListenIdentity::Declared, ListenIdentity::Stun];
    if let Some(written) = &raw.identity {
        identities = written.get_ref().iter().map(|word| *word.get_ref()).collect();
        identities.sort();
        identities.dedup();
        if identities.is_empty() {
            let expected = "at least one of `declared`, `declared-ip`, `stun`, `open`";
            check.refuse(written.span(), "no identity", expected);
        }
    }
    let open = identities.contains(&ListenIdentity::Open);
    match (&raw.scenario, &raw.identity) {
        (None, Some(written)) if open => {
            let expected = "`scenario`, in which a first packet opens a session";
            check.refuse(written.span(), "identity `open` without `scenario`", expected);
        }
        (Some(scenario), _) if !open => {
            let expected = "`scenario` with identity `open` only";
            check.refuse(scenario.span(), "`scenario` without identity `open`", expected).help =
                Some("elsewhere the offer names its scenario".to_owned());
        }
        _ => {}
    }
    let scenario = raw.scenario.as_ref().map(|name| check.name(name));
    ListenIngress::Udp {
        identities,
        open: scenario.filter(|_| open),
        rtcp: rtcp(raw, address, check),
    }
}

fn rtcp(raw: &ListenTable, address: SocketAddr, check: &mut ConfigCheck) -> Option<u16> {
    let Some(written) = &raw.rtcp else {
        // RTCP uses the next higher port (RFC 3550, section 11).
        return match address.port() {
            0 => Some(0),
            port => port.checked_add(1),
        };
    };
    if written.get_ref().as_str() == Some("mux") {
        return None;
    }
    let port = written.get_ref().as_integer().and_then(|port| u16::try_from(port).ok());
    if port.is_none() {
        let found = written.get_ref().to_string();
        check.refuse(written.span(), found, "a port from 0 to 65535, or `mux`");
    }
    port
}

fn quic(raw: &ListenTable, check: &mut ConfigCheck) -> ListenIngress {
    let unfit = [
        ("identity", raw.identity.as_ref().map(Spanned::span)),
        ("scenario", raw.scenario.as_ref().map(Spanned::span)),
        ("rtcp", raw.rtcp.as_ref().map(Spanned::span)),
    ];
    for (key, span) in unfit {
        if let Some(span) = span {
            let found = format!("`{key}` with `quic`");
            check.refuse(span, found, format!("`{key}` with `udp` only")).help =
                Some("over QUIC the flow identifier is the proof, and carries RTCP too".to_owned());
        }
    }
    let certificate = certificate(&raw.certificate, &raw.key, check);
    ListenIngress::Quic { certificate }
}

/// The files `certificate` and `key`.
pub(super) fn certificate(
    chain: &Option<Spanned<String>>,
    key: &Option<Spanned<String>>,
    check: &mut ConfigCheck,
) -> Option<CertificateFiles> {
    match (chain, key) {
        (None, None) => None,
        (Some(chain), Some(key)) => {
            for path in [chain, key] {
                let found = match std::fs::metadata(check.path(path.get_ref())) {
                    Ok(facts) if facts.is_file() => continue,
                    Ok(_) => format!("`{}`, which is not a regular file", path.get_ref()),
                    Err(error) => format!("`{}`: {error}", path.get_ref()),
                };
                check.refuse(path.span(), found, "a PEM file");
            }
            check.warn_of_readers(key);
            let (chain, key) = (check.path(chain.get_ref()), check.path(key.get_ref()));
            Some(CertificateFiles { chain, key })
        }
        (Some(alone), None) => {
            check.refuse(alone.span(), "`certificate` without `key`", "both, or neither");
            None
        }
        (None, Some(alone)) => {
            check.refuse(alone.span(), "`key` without `certificate`", "both, or neither");
            None
        }
    }
}

fn advertise(raw: &Spanned<AdvertiseValue>, check: &mut ConfigCheck) -> Vec<AdvertisedAddress> {
    let list = match raw.get_ref() {
        AdvertiseValue::One(text) => {
            let address = advertised_address(&Spanned::new(raw.span(), text.clone()), check);
            let address = address.map(|address| AdvertisedAddress { address, carrier: None });
            return address.into_iter().collect();
        }
        AdvertiseValue::List(list) => list,
    };
    if list.is_empty() {
        check.refuse(raw.span(), "no address", "at least one table with `address`");
    }
    check.at_most(list, ADVERTISED_MAX, "addresses");
    let mut all: Vec<AdvertisedAddress> = Vec::new();
    for entry in list {
        let AdvertiseTable { address, carrier } = entry.get_ref();
        let name = carrier.as_ref().map(|name| self::carrier(name, check));
        let Some(address) = advertised_address(address, check) else { continue };
        let is_rival = |earlier: &AdvertisedAddress| {
            earlier.carrier == name && earlier.address.is_ipv4() == address.is_ipv4()
        };
        if all.iter().any(is_rival) {
            let version = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            let (span, found) = match (carrier, &name) {
                (Some(written), Some(name)) => {
                    (written.span(), format!("carrier `{name}` a second time for {version}"))
                }
                _ => (entry.span(), format!("a second address of {version} without `carrier`")),
            };
            let expected =
                "one address of IPv4, one of IPv6, or both for each carrier, and for all others";
            check.refuse(span, found, expected);
        }
        // Clients of an unknown carrier are told the first ones.
        let place = match name {
            None => all.iter().take_while(|earlier| earlier.carrier.is_none()).count(),
            Some(_) => all.len(),
        };
        all.insert(place, AdvertisedAddress { address, carrier: name });
    }
    all
}

/// The name of a carrier.
pub(super) fn carrier(raw: &Spanned<String>, check: &mut ConfigCheck) -> Arc<str> {
    let name = check.name(raw);
    // An empty name was refused.
    if !name.is_empty() && !name.contains(char::is_alphabetic) {
        check.refuse_text(raw, "a name with a letter");
    }
    if *name == *"other" {
        check.refuse_text(raw, "another name: in metrics `other` sums up carriers without one");
    }
    name
}

fn advertised_address(raw: &Spanned<String>, check: &mut ConfigCheck) -> Option<SocketAddr> {
    if let Ok(ip) = raw.get_ref().parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, 0));
    }
    check.address(raw, ADVERTISED)
}

impl ListenSettings {
    /// Clients are told the address. A client that opens a session by its first packet knows it already.
    fn is_announced(&self) -> bool {
        match &self.ingress {
            ListenIngress::Udp { identities, .. } => identities[..] != [ListenIdentity::Open],
            ListenIngress::Quic { .. } => true,
        }
    }

    /// The key that names the protocol.
    pub fn protocol(&self) -> &'static str {
        match self.ingress {
            ListenIngress::Udp { .. } => "udp",
            ListenIngress::Quic { .. } => "quic",
        }
    }

    /// The addresses to bind: RTP, and RTCP on its own port.
    pub fn sockets(&self) -> impl Iterator<Item = SocketAddr> {
        let rtcp = match self.ingress {
            ListenIngress::Udp { rtcp, .. } => rtcp,
            ListenIngress::Quic { .. } => None,
        };
        let rtcp = rtcp.map(|port| SocketAddr::new(self.address.ip(), port));
        std::iter::once(self.address).chain(rtcp)
    }
}

/// Refuses a second QUIC listener: one endpoint serves all QUIC clients.
pub(super) fn quic_once(checked: &[CheckedListener], check: &mut ConfigCheck) {
    let is_quic =
        |checked: &&CheckedListener| matches!(checked.listen.ingress, ListenIngress::Quic { .. });
    let mut endpoints = checked.iter().filter(is_quic);
    let Some(first) = endpoints.next() else { return };
    for later in endpoints {
        let help =
            format!("the first is at {}; on `[::]` it takes IPv4 too", check.place(&first.span));
        check.refuse(later.span.clone(), "`quic` a second time", "one listener for QUIC").help =
            Some(help);
    }
}

/// Refuses two listeners on the same address and port.
pub(super) fn overlaps(checked: &[CheckedListener], check: &mut ConfigCheck) {
    for (index, later) in checked.iter().enumerate() {
        let rival = checked[..index].iter().find_map(|earlier| {
            let taken: Vec<_> = earlier.listen.sockets().collect();
            let wanted = later.listen.sockets().find(|a| taken.iter().any(|b| same(*a, *b)))?;
            Some((wanted, earlier.span.clone()))
        });
        if let Some((wanted, first)) = rival {
            let first = check.place(&first);
            let found = format!("{wanted} a second time");
            let help = format!(
                "first used at {first}; RTCP uses the next port unless `rtcp` names another"
            );
            check.refuse(later.span.clone(), found, "a unique address").help = Some(help);
        }
    }
}

fn same(a: SocketAddr, b: SocketAddr) -> bool {
    let any = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && a.is_ipv4() == b.is_ipv4() && (any || a.ip() == b.ip())
}
