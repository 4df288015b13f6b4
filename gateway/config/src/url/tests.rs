use super::*;

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
        assert_eq!(text.parse::<Url>(), Err(NoUrl), "{text}");
    }
}
