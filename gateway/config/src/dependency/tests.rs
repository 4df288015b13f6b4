use std::path::Path;

use super::super::check::source;
use super::*;

#[derive(Deserialize)]
struct Tables {
    dependency: Vec<Spanned<DependencyTable>>,
}

/// The dependency with these keys, and the first error about it.
fn dependency_with(keys: &str) -> (Option<DependencySettings>, Option<String>) {
    let text = format!("[[dependency]]\nname = \"idp\"\n{keys}\n");
    let mut reading = ConfigCheck::new(source(Path::new("evenkeel.toml"), &text), Path::new(""));
    let Tables { dependency } = toml::from_str(&text).unwrap();
    let mut found = check(&dependency, &mut reading);
    (found.pop(), reading.into_invalid().first().map(ToString::to_string))
}

#[test]
fn url_is_asked_every_ten_seconds_by_default() {
    let (found, invalid) = dependency_with("url = \"https://login.example.org/health\"");
    assert_eq!(invalid, None);
    let found = found.unwrap();
    assert_eq!((found.every, found.timeout), (Duration::from_secs(10), Duration::from_secs(2)));
    let DependencyTarget::Http { url, expect_status: None } = found.target else {
        panic!("{found:?}")
    };
    assert_eq!(url.to_string(), "https://login.example.org/health");
}

#[test]
fn tcp_names_host_and_port() {
    let target = |text: &str| dependency_with(&format!("tcp = \"{text}\"")).0.map(|it| it.target);
    let tcp = |host: &str, port| Some(DependencyTarget::Tcp { host: host.into(), port });
    assert_eq!(target("turn.example.org:3478"), tcp("turn.example.org", 3_478));
    assert_eq!(target("[2001:db8::1]:80"), tcp("2001:db8::1", 80));
    for wrong in ["turn.example.org", "[2001:db8::1]", "turn.example.org:3478/x", ""] {
        assert_eq!(target(wrong), None, "{wrong}");
    }
}
