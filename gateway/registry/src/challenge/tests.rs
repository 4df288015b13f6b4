use evenkeel_fuzz::Corpus;

use super::*;

#[test]
fn challenge_has_scheme_and_parameters() {
    let text = "Bearer realm=\"https://auth.example/token\", service=registry.example ,\
                scope = \"repository:voice/my-route:pull,push\"";
    let challenge = Challenge::parse(text).unwrap();
    assert_eq!(challenge.scheme, "bearer");
    assert_eq!(challenge.get("realm"), Some("https://auth.example/token"));
    assert_eq!(challenge.get("service"), Some("registry.example"));
    assert_eq!(challenge.get("scope"), Some("repository:voice/my-route:pull,push"));
    assert_eq!(challenge.get("error"), None);
    let quoted = Challenge::parse("BASIC Realm=\"a \\\"b\\\" c\"").unwrap();
    assert_eq!((&*quoted.scheme, quoted.get("realm")), ("basic", Some("a \"b\" c")));
}

#[test]
fn only_the_first_challenge_is_read() {
    let challenge = Challenge::parse("Basic realm=\"a\", Bearer realm=\"b\"").unwrap();
    assert_eq!((&*challenge.scheme, challenge.get("realm")), ("basic", Some("a")));
    assert_eq!(Challenge::parse("Negotiate").unwrap().get("realm"), None);
}

#[test]
fn broken_challenge_is_none() {
    for text in ["", "  ", "Bearer realm=\"open", "\"a\" b=c", "Ba/sic a=b"] {
        assert_eq!(Challenge::parse(text), None, "{text}");
    }
}

#[test]
fn fuzz_challenge() {
    let seed = "Bearer realm=\"https://a.example/t\",service=b, scope=\"c:\\\"d\"";
    Corpus::of("challenge").with(seed).check(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let Some(challenge) = Challenge::parse(text) else { return };
        assert!(!challenge.scheme.is_empty());
        let lengths = challenge.parameters.iter().map(|(key, value)| key.len() + value.len());
        assert!(lengths.sum::<usize>() <= text.len());
    });
}
