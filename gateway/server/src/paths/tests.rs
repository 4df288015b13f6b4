use std::net::SocketAddr;

use evenkeel_config::AdvertisedAddress;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tempfile::{TempDir, tempdir};

use super::*;

fn capacity(limit: u64) -> DescriptorCapacity {
    DescriptorCapacity {
        limit,
        used: 100,
        local_ports: 28_232,
        ports_per_session: 2,
        sessions_max: 10_000,
    }
}

#[test]
fn sessions_leave_the_reserve() {
    assert_eq!(capacity(10_000).sessions(), (10_000 - 512 - 100) / 2);
    assert_eq!(capacity(512).sessions(), (512 - 256 - 100) / 2, "a low limit is halved");
    assert_eq!(capacity(100).sessions(), 0);
    assert_eq!(capacity(u64::MAX).sessions(), 28_232 / 2, "no limit but that of ports");
    let agents_only = DescriptorCapacity { ports_per_session: 0, ..capacity(1_024) };
    assert_eq!(agents_only.sessions(), u64::MAX);
}

#[test]
fn unreachable_limit_is_named_with_its_cause() {
    let short = capacity(4_096);
    assert!(short.is_short());
    assert_eq!(
        short.to_string(),
        "1742 sessions fit: ports_per_session=2 descriptors=4096 used=100 reserved=512 local_ports=28232; \
         `[limits] sessions` is 10000: lower it, or raise `LimitNOFILE` and `net.ipv4.ip_local_port_range`"
    );
    let enough = DescriptorCapacity { sessions_max: 1_742, ..short };
    assert!(!enough.is_short() && !enough.to_string().contains("lower it"));
}

#[test]
fn range_of_local_ports_is_read() {
    assert!((1..=65_536).contains(&local_ports()));
}

fn listener(protocol: &str, address: &str, advertise: &[&str]) -> ListenSettings {
    let advertised = |ip: &&str| {
        let address = SocketAddr::new(ip.parse().unwrap(), 0);
        AdvertisedAddress { address, carrier: None }
    };
    ListenSettings {
        address: address.parse().unwrap(),
        ingress: match protocol {
            "udp" => ListenIngress::Udp { identities: Vec::new(), open: None, rtcp: None },
            _ => ListenIngress::Quic { certificate: None },
        },
        advertise: advertise.iter().map(advertised).collect(),
    }
}

/// The warnings about these listeners on a host with two addresses.
fn unheard(listens: &[ListenSettings]) -> Vec<String> {
    unheard_addresses(listens, &["10.0.0.5", "10.0.0.6"].map(|ip| ip.parse().unwrap()))
}

#[test]
fn address_without_a_socket_is_warned_of() {
    let [one, two] = ["10.0.0.5", "10.0.0.6"];
    for (listens, ip, any) in [
        (vec![listener("udp", "10.0.0.5:5004", &[one, two])], two, "0.0.0.0"),
        (vec![listener("udp", "0.0.0.0:5004", &[one, "2001:db8::9"])], "2001:db8::9", "[::]"),
        (vec![listener("quic", "[2001:db8::5]:1", &["192.0.2.7"])], "192.0.2.7", "[::]"),
        (
            vec![listener("quic", "10.0.0.5:1", &[two]), listener("udp", "0.0.0.0:1", &[two])],
            two,
            "0.0.0.0",
        ),
    ] {
        let warnings = unheard(&listens);
        let [warning] = &warnings[..] else { panic!("{listens:?}: {warnings:?}") };
        let parts = [format!("advertises {ip}, "), format!("listen on {any}, ")];
        assert!(parts.iter().all(|part| warning.contains(part)), "{warning}");
    }
}

#[test]
fn address_with_a_socket_or_a_nat_is_no_warning() {
    let [one, two] = ["10.0.0.5", "10.0.0.6"];
    for listens in [
        vec![listener("udp", "0.0.0.0:5004", &[one, two, "203.0.113.7"])],
        vec![listener("udp", "[::]:5004", &[one, two, "2001:db8::5"])],
        vec![listener("udp", "10.0.0.5:5004", &["203.0.113.7"])],
        vec![listener("udp", "10.0.0.5:1", &[one, two]), listener("udp", "10.0.0.6:1", &[])],
    ] {
        assert_eq!(unheard(&listens), [""; 0], "{listens:?}");
    }
}

/// A folder with a configuration of `[webrtc]` and a certificate of these years, for this host.
pub(crate) fn with_certificate(years: [i32; 2], host: &str) -> TempDir {
    let folder = tempdir().unwrap();
    let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    let [begins, ends] = years.map(|year| date_time_ymd(year, 1, 1));
    (params.not_before, params.not_after) = (begins, ends);
    let key = KeyPair::generate().unwrap();
    let chain = params.self_signed(&key).unwrap().pem();
    let configuration = "[webrtc]\nlisten = \"127.0.0.1:0\"\ncertificate = \"chain.pem\"\nkey = \"key.pem\"\n\
        host = \"live.example.org\"\ntoken_key_file = \"token.secret\"\n";
    for (name, text) in [
        ("chain.pem", &*chain),
        ("key.pem", &*key.serialize_pem()),
        ("token.secret", "0123456789abcdef0123456789abcdef"),
        ("evenkeel.toml", configuration),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn checked(folder: &TempDir) -> Result<Vec<String>, String> {
    let config = Some(folder.path().join("evenkeel.toml"));
    let place = ServePaths { config, ..ServePaths::default() };
    place.check().map_err(|refused| refused.to_string())
}

#[test]
fn check_refuses_a_certificate_that_clients_refuse() {
    let host = "live.example.org";
    let expired = checked(&with_certificate([2025, 2026], host)).unwrap_err();
    assert_eq!(expired, "[webrtc]: the certificate expired on 2026-01-01 00:00 UTC");
    let early = checked(&with_certificate([3025, 3026], host)).unwrap_err();
    assert_eq!(early, "[webrtc]: the certificate is not valid before 3025-01-01 00:00 UTC");
    let other = checked(&with_certificate([2025, 3026], "video.example.org")).unwrap_err();
    assert!(
        other.contains("is for video.example.org, not for the `host` live.example.org"),
        "{other}"
    );
    let (right, key) = (with_certificate([2025, 3026], host), with_certificate([2025, 3026], host));
    let notes = checked(&right).unwrap();
    let ends = "the certificate of [webrtc], for live.example.org, ends on 3026-01-01 00:00 UTC";
    assert!(notes.iter().any(|note| note == ends), "{notes:?}");
    std::fs::copy(key.path().join("key.pem"), right.path().join("key.pem")).unwrap();
    let mixed = checked(&right).unwrap_err();
    assert!(mixed.starts_with("[webrtc]: the key ") && mixed.contains("is not that of"), "{mixed}");
}
