use super::*;
use crate::tests::{FRAGMENTS, Gateway};
use crate::{CANDIDATES_MAX, SECTIONS_MAX};

fn parse(text: &str) -> Result<Option<IceCredentials>, SdpError> {
    SdpFragment::new(text.as_bytes())?.credentials()
}

#[test]
fn credentials_of_both_levels_are_read() {
    let [rfc_8840, whip] = FRAGMENTS.map(|text| parse(text).unwrap());
    assert_eq!(rfc_8840, Some(IceCredentials::new("8hhY", "asd88fgpdd777uzjYhagZg").unwrap()));
    let credentials = IceCredentials::new("EsAw", "P2uYro0UCOQ4zxjKXaWCBui1").unwrap();
    assert_eq!(whip, Some(credentials), "of the m-line");
    assert_eq!(parse("a=end-of-candidates\r\n"), Ok(None));
    assert_eq!(parse(""), Ok(None));
}

#[test]
fn malformed_fragments_are_refused() {
    let without_password = FRAGMENTS[0].replace("a=ice-pwd:asd88fgpdd777uzjYhagZg\r\n", "");
    assert_eq!(parse(&without_password), Err(SdpError::IceCredentials));
    let short = FRAGMENTS[0].replace("8hhY", "8hh");
    assert_eq!(parse(&short), Err(SdpError::IceCredentials));
    let error = parse("candidate:1 1 UDP 1 192.0.2.1 9 typ host").unwrap_err().to_string();
    assert!(error.contains("line 2") && error.contains("line 1 is"), "{error}");
    let many = "m=audio 9 RTP/AVP 0\r\n".repeat(SECTIONS_MAX + 1);
    assert_eq!(
        parse(&many),
        Err(SdpError::TooMany { found: SECTIONS_MAX + 1, of: "m-lines", max: SECTIONS_MAX })
    );
    assert_eq!(parse(&"m=audio 9 RTP/AVP 0\r\n".repeat(SECTIONS_MAX)), Ok(None));
    let long = "a=x\r\n".repeat(SDP_BYTES_MAX / 5 + 1);
    assert_eq!(parse(&long), Err(SdpError::TooLong { bytes: long.len() }));
}

#[test]
fn candidates_are_bounded() {
    let candidates = |count| "a=candidate:1 1 UDP 1 192.0.2.1 9 typ host\r\n".repeat(count);
    let sections = |first, second| {
        format!("{}m=audio 9 RTP/AVP 0\r\n{}", candidates(first), candidates(second))
    };
    assert_eq!(parse(&sections(1, CANDIDATES_MAX - 1)), Ok(None));
    let error = parse(&sections(1, CANDIDATES_MAX)).unwrap_err();
    assert_eq!(
        error,
        SdpError::TooMany {
            found: CANDIDATES_MAX + 1,
            of: "lines a=candidate",
            max: CANDIDATES_MAX
        }
    );
    assert_eq!(error.to_string(), "the SDP has 257 lines a=candidate, at most 256 are allowed");
}

#[test]
fn restart_fragment_has_new_credentials() {
    let gateway = Gateway::new();
    let restart =
        |text: &str| SdpFragment::new(text.as_bytes())?.restart(&gateway.ice, &gateway.addresses);
    let text = restart(FRAGMENTS[1]).unwrap();
    assert_eq!(parse(text.as_str()), Ok(Some(gateway.ice.clone())));
    let lines: Vec<&str> = text.as_str().lines().collect();
    assert_eq!(
        lines,
        [
            "a=ice-lite",
            "a=ice-options:trickle ice2",
            "a=ice-ufrag:gate",
            "a=ice-pwd:a22characterpassword22",
            "a=group:BUNDLE 0 1",
            "m=audio 9 UDP/TLS/RTP/SAVPF 111",
            "a=mid:0",
            "a=candidate:1 1 udp 2130706431 192.0.2.1 5000 typ host",
            "a=candidate:2 1 udp 2130706175 2001:db8::1 5000 typ host",
            "a=end-of-candidates",
        ]
    );
    // Without m-line and group.
    let text = restart("a=ice-ufrag:8hhY\r\na=ice-pwd:asd88fgpdd777uzjYhagZg\r\n").unwrap();
    assert!(!text.as_str().contains("m=") && !text.as_str().contains("a=group"));
    assert!(matches!(restart("nonsense"), Err(SdpError::Grammar(_))));
}
