use super::*;

const DIGEST: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

fn read(text: &str) -> Result<PluginReference, InvalidReference> {
    text.parse()
}

#[test]
fn reference_has_host_name_tag_and_digest() {
    let whole = format!("oci://registry.example:5000/voice/my-route:1.2_a@{DIGEST}");
    let reference = read(&whole).unwrap();
    assert_eq!(reference.registry(), "registry.example:5000");
    assert_eq!(reference.name(), "voice/my-route");
    assert_eq!(reference.tag(), Some("1.2_a"));
    assert_eq!(reference.to_string(), whole);
    let digest = reference.digest().unwrap();
    assert_eq!(digest[..3], [0x44, 0x13, 0x6f]);
    let pinned = read("oci://[::1]:5000/a").unwrap().pinned(digest);
    assert_eq!(pinned.to_string(), format!("oci://[::1]:5000/a@{DIGEST}"));
}

#[test]
fn names_and_tags_have_the_grammar_of_the_specification() {
    for name in ["a", "a0/b", "a.b_c__d---e"] {
        assert!(read(&format!("oci://registry.example/{name}")).is_ok(), "{name}");
    }
    for name in ["", "A", "a/", "/a", "a..b", "a___b", "a._b", "-a", "a-", "a%2fb", "../a", "a b"] {
        assert!(read(&format!("oci://registry.example/{name}")).is_err(), "{name}");
    }
    let long = "a".repeat(NAME_MAX + 1);
    assert!(read(&format!("oci://registry.example/{long}")).is_err());
    for tag in ["", ".1", "-1", "1/2", &"1".repeat(TAG_MAX + 1)] {
        assert!(read(&format!("oci://registry.example/a:{tag}")).is_err(), "{tag}");
    }
    for text in ["registry.example/a", "https://registry.example/a", "oci://registry.example"] {
        assert!(read(text).is_err(), "{text}");
    }
    for text in ["oci:///a", "oci://user@registry.example/a", "oci://registry.example/a@sha256:44"]
    {
        assert!(read(text).is_err(), "{text}");
    }
}

#[test]
fn plain_http_is_for_loopback_unless_configured() {
    let url = |host: &str, plain_http| {
        let registry = RegistrySettings { plain_http, ..RegistrySettings::of(host) };
        registry.url().unwrap().to_string()
    };
    assert_eq!(url("127.0.0.1:5000", None), "http://127.0.0.1:5000/");
    assert_eq!(url("localhost:5000", None), "http://localhost:5000/");
    assert_eq!(url("127.0.0.1:5000", Some(false)), "https://127.0.0.1:5000/");
    assert_eq!(url("registry.example", None), "https://registry.example/");
    assert_eq!(url("10.0.0.7:5000", Some(true)), "http://10.0.0.7:5000/");
}

#[test]
fn login_is_for_the_registry_or_the_named_server() {
    let trusts = |host: &str, server: Option<&str>, url: &str| {
        let token_server = server.map(Into::into);
        let registry = RegistrySettings { token_server, ..RegistrySettings::of(host) };
        registry.trusts_token_server(&url.parse().unwrap())
    };
    for (url, is_trusted) in [
        ("https://registry.example/token", true),
        ("https://registry.example:8443/token", true),
        ("https://auth.registry.example/token", false),
        ("https://example/token", false),
        ("https://registry.example.org/token", false),
        ("http://127.0.0.1/token", false),
    ] {
        assert_eq!(trusts("registry.example:5000", None, url), is_trusted, "{url}");
    }
    let server = Some("auth.example");
    assert!(trusts("registry.example", server, "https://auth.example/token"));
    for url in ["https://registry.example/token", "https://auth.example:8443/token"] {
        assert!(!trusts("registry.example", server, url), "{url}");
    }
}
