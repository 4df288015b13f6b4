use super::*;

fn found(text: &str) -> Vec<&str> {
    addresses(text, SearchContext::Text).into_iter().map(|range| &text[range]).collect()
}

#[test]
fn addresses_are_found_alone_and_within_words() {
    for (text, expected) in [
        ("10.0.0.1", &["10.0.0.1"][..]),
        ("10.0.0.1:5004", &["10.0.0.1:5004"]),
        ("2001:db8::17", &["2001:db8::17"]),
        ("[2001:db8::17]:443", &["[2001:db8::17]:443"]),
        ("[2001:db8::17]", &["[2001:db8::17]"]),
        ("fe80::1%eth0", &["fe80::1%eth0"]),
        ("::1", &["::1"]),
        ("::ffff:10.0.0.1", &["::ffff:10.0.0.1"]),
        ("media1:5004", &["media1:5004"]),
        ("media-1.example.org:443", &["media-1.example.org:443"]),
        ("ip-10-0-0-1", &["10-0-0-1"]),
        ("ip_10_0_0_1.eu", &["10_0_0_1"]),
        ("udp/192.168.7.9:4000,192.168.7.10", &["192.168.7.9:4000", "192.168.7.10"]),
        ("client 10.0.0.1 came", &["10.0.0.1"]),
        ("10.0.0.0/8", &["10.0.0.0"]),
        ("rtp://10.0.0.1:5004/a", &["10.0.0.1:5004"]),
        ("x=2001:db8::17;y", &["2001:db8::17"]),
        ("00:1b:44:11:3a:b7", &["00:1b:44:11:3a:b7"]),
        ("büro:80", &["büro:80"]),
    ] {
        assert_eq!(found(text), expected, "{text}");
    }
}

#[test]
fn other_text_has_no_address() {
    for text in [
        "east-a1",
        "phone",
        "12:30:45",
        "opus/48000/2",
        "1.2.3",
        "256.0.0.1",
        "1-2-3",
        "::",
        "",
        "a1:99999",
        "a1:",
        ":80",
        "v0.1.0",
        "10.0-0.1",
        "türkis",
    ] {
        assert_eq!(found(text), <[&str; 0]>::default(), "{text}");
    }
}

#[test]
fn binary_data_is_matched_strictly() {
    let found = |text| addresses(text, SearchContext::Binary).len();
    assert_eq!(found("\u{1}10.0.0.1\u{0}"), 1);
    assert_eq!((found("a:1"), found("10-0-0-1")), (0, 0));
}
