use std::net::SocketAddr;

use evenkeel_config::AdvertisedAddress;

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
