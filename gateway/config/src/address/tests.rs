use super::*;

fn judged(address: &str) -> Result<(), InvalidHostAddress> {
    check(address.parse().unwrap())
}

#[test]
fn addresses_of_no_single_host_are_refused() {
    for (address, reason) in [
        ("0.0.0.0:4000", InvalidHostAddress::Unspecified),
        ("[::]:4000", InvalidHostAddress::Unspecified),
        ("[::ffff:0.0.0.0]:4000", InvalidHostAddress::Unspecified),
        ("224.0.0.1:4000", InvalidHostAddress::Multicast),
        ("239.255.255.255:4000", InvalidHostAddress::Multicast),
        ("[::ffff:224.0.0.1]:4000", InvalidHostAddress::Multicast),
        ("[ff02::1]:4000", InvalidHostAddress::Multicast),
        ("255.255.255.255:4000", InvalidHostAddress::Broadcast),
        ("[::ffff:255.255.255.255]:4000", InvalidHostAddress::Broadcast),
        ("192.0.2.1:0", InvalidHostAddress::NoPort),
        ("[2001:db8::1]:0", InvalidHostAddress::NoPort),
        ("[fe80::1]:4000", InvalidHostAddress::NoScope),
    ] {
        assert_eq!(judged(address), Err(reason), "{address}");
    }
}

#[test]
fn addresses_of_hosts_are_accepted() {
    for address in [
        "192.0.2.1:4000",
        "127.0.0.1:1",
        "223.255.255.255:65535",
        "[2001:db8::1]:4000",
        "[::ffff:192.0.2.1]:4000",
        "[::1]:4000",
        "[fe80::1%2]:4000",
    ] {
        assert_eq!(judged(address), Ok(()), "{address}");
    }
    assert_eq!(check_ip("fe80::1".parse().unwrap()), Ok(()), "the scope comes with a packet");
}

#[test]
fn error_names_address_reason_and_correct_form() {
    let error = checked("224.0.0.1:4000".parse().unwrap()).unwrap_err();
    for part in ["`224.0.0.1:4000`", "a multicast address", "expected", "`192.0.2.1:4000`"] {
        assert!(error.contains(part), "{part} in: {error}");
    }
}

#[test]
fn network_contains_its_addresses_only() {
    for (network, inside, outside) in [
        ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
        ("10.1.2.3/32", "10.1.2.3", "10.1.2.2"),
        ("172.16.0.0/12", "172.31.255.255", "172.32.0.0"),
        ("10.0.0.0/8", "::ffff:10.0.0.1", "::ffff:11.0.0.1"),
        ("0.0.0.0/0", "203.0.113.7", "::1"),
        ("fc00::/7", "fdff::1", "fe00::1"),
        ("::/0", "2001:db8::1", "192.0.2.1"),
        ("2001:db8::1/128", "2001:db8::1", "2001:db8::2"),
    ] {
        let parsed: NetworkPrefix = network.parse().unwrap();
        assert_eq!(parsed.to_string(), network);
        assert!(parsed.contains(inside.parse().unwrap()), "{inside} in {network}");
        assert!(!parsed.contains(outside.parse().unwrap()), "{outside} in {network}");
    }
}

#[test]
fn invalid_network_is_refused() {
    let mapped = "::ffff:10.0.0.0/104";
    for text in
        ["10.0.0.0", "10.0.0.0/33", "::/129", "10.0.0.1/8", mapped, "a/8", "10.0.0.0/", "/8", ""]
    {
        assert_eq!(text.parse::<NetworkPrefix>(), Err(InvalidNetwork), "{text}");
    }
}

#[test]
fn public_and_loopback_addresses_are_not_private() {
    let private = |ip: &str| {
        let ip = ip.parse().unwrap();
        NetworkPrefix::private().iter().any(|network| network.contains(ip))
    };
    for ip in ["10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fd00::1"] {
        assert!(private(ip), "{ip}");
    }
    for ip in ["203.0.113.7", "127.0.0.1", "169.254.169.254", "::1", "2001:db8::1", "fe80::1"] {
        assert!(!private(ip), "{ip}");
    }
}

#[test]
fn url_is_split() {
    let url: Url = "https://media.example:8443/open?a=b".parse().unwrap();
    assert!(url.is_https());
    assert_eq!((url.host(), url.port()), ("media.example", 8_443));
    assert_eq!((url.authority(), url.path()), ("media.example:8443", "/open?a=b"));
    assert_eq!(url.to_string(), "https://media.example:8443/open?a=b");
    let url: Url = "http://[::1]:9".parse().unwrap();
    assert_eq!((url.host(), url.port(), url.path()), ("::1", 9, "/"));
    let port = |text: &str| text.parse::<Url>().unwrap().port();
    assert_eq!((port("http://a"), port("https://a/"), port("http://[::1]")), (80, 443, 80));
}

#[test]
fn only_http_to_another_host_is_clear_text() {
    for (url, clear) in [
        ("http://media.example/", true),
        ("http://10.0.0.9:8080/", true),
        ("https://media.example/", false),
        ("http://127.0.0.1:8080/", false),
        ("http://[::1]:8080/", false),
        ("http://localhost:8080/", false),
    ] {
        assert_eq!(url.parse::<Url>().unwrap().crosses_in_clear_text(), clear, "{url}");
    }
}

#[test]
fn invalid_url_is_refused() {
    for text in [
        "media.example:80",
        "ftp://a",
        "http://",
        "http:///path",
        "http://a:0",
        "http://a:",
        "http://a:port",
        "http://[::1",
        "http://[1.2.3.4]",
        "http://a b",
        "http://a/\r\nX: y",
        "http://user@a",
    ] {
        assert_eq!(text.parse::<Url>(), Err(InvalidUrl), "{text}");
    }
}
