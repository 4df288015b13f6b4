//! Requests of any bytes, from strangers and from clients with a token.

use std::sync::Mutex;

use evenkeel_config::token::TokenKeys;
use evenkeel_fuzz::Corpus;
use evenkeel_process::lock;
use serde_json::{Value, json};

use super::*;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// The answer of the API about its only session.
const SESSION: &str = r#"{
    "id": "s17", "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    "ice": {"ufrag": "gate", "client_ufrag": "EsAw"},
    "webrtc": {
        "answer": "v=0\r\n",
        "ice": {"ufrag": "gate", "password": "a22characterpassword22", "addresses": ["192.0.2.1:5004"]}
    }
}"#;

const PUBLISH: &str = include_str!("../../../../tests/fuzz/corpus/whip_request/publish");
const VIEW: &str = include_str!("../../../../tests/fuzz/corpus/whip_request/view");
const EXPIRED: &str = include_str!("../../../../tests/fuzz/corpus/whip_request/expired");
const RESTART: &str = include_str!("../../../../tests/fuzz/corpus/whip_request/restart");
const END: &str = include_str!("../../../../tests/fuzz/corpus/whip_request/end");

/// Requests that reached the API: method and body.
type AskedRequests = Arc<Mutex<Vec<(Method, Bytes)>>>;

/// An API that opens, shows and ends one session.
fn api(asked: &AskedRequests) -> Router {
    let asked = Arc::clone(asked);
    Router::new().fallback(move |method: Method, body: Bytes| {
        let status = match method {
            Method::POST => StatusCode::CREATED,
            Method::DELETE => StatusCode::NO_CONTENT,
            _ => StatusCode::OK,
        };
        lock(&asked).push((method, body));
        async move { (status, SESSION) }
    })
}

/// Reads `METHOD PATH`, headers, an empty line and the body. `None` for those that HTTP excludes.
fn request(input: &[u8]) -> Option<Request> {
    let end = input.windows(2).position(|two| two == b"\n\n").unwrap_or(input.len());
    let mut lines = input[..end].split(|byte| *byte == b'\n');
    let body = input.get(end + 2..).unwrap_or_default();
    let mut request = Request::new(Body::from(body.to_vec()));
    let mut words = lines.next()?.split(|byte| *byte == b' ');
    *request.method_mut() = Method::from_bytes(words.next()?).ok()?;
    *request.uri_mut() = Uri::try_from(words.next()?).ok()?;
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
        request.headers_mut().append(name, value);
    }
    request.extensions_mut().insert(Arc::new(TcpPlace::of_a_stranger()));
    Some(request)
}

/// The token of a request.
fn token(request: &str) -> &str {
    let (_, rest) = request.split_once("Bearer ").unwrap();
    rest.lines().next().unwrap()
}

/// The last segment of a session's path.
fn segment(request: &str) -> &str {
    let (_, path) = request.lines().next().unwrap().rsplit_once('/').unwrap();
    path
}

#[test]
fn fuzz_whip_request() {
    let asked = AskedRequests::default();
    let settings = WebrtcSettings {
        listen: ([127, 0, 0, 1], 0).into(),
        certificate: None,
        host: None,
        token_keys: TokenKeys::read(SECRET).unwrap(),
        origins: vec!["https://live.example.org".into()],
        ice_servers: Vec::new(),
    };
    let urls = Arc::new(SessionUrls::default());
    // The secret of the URLs in the corpus.
    urls.resume(serde_json::from_value(json!(vec![7; 32])).unwrap());
    let secrets = ClientSecrets::of(None, Some(&settings));
    let router = router(api(&asked), urls, &settings, secrets, None, Arc::default(), None);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let status = |input: &[u8]| {
        let service = TowerToHyperService::new(router.clone());
        let response = runtime.block_on(service.call(request(input)?));
        Some(response.unwrap_or_else(|never| match never {}).status())
    };
    let seeds = [(PUBLISH, 201), (VIEW, 201), (END, 200), (EXPIRED, 401), (RESTART, 200)];
    for (seed, expected) in seeds {
        assert_eq!(status(seed.as_bytes()).map(|status| status.as_u16()), Some(expected), "{seed}");
    }
    Corpus::of("whip_request").check(|input| {
        lock(&asked).clear();
        let Some(status) = status(input) else { return };
        assert!(!status.is_server_error(), "{status}");
        let has = |part: &str| input.windows(part.len()).any(|bytes| bytes == part.as_bytes());
        for (method, body) in lock(&asked).drain(..) {
            // An expired token still ends the session that it opened.
            let is_signed = [PUBLISH, VIEW, EXPIRED].iter().any(|seed| has(token(seed)));
            assert!(is_signed, "{method} without a token");
            if method == Method::DELETE || method == Method::PUT {
                assert!(has(segment(END)), "{method} of the session of another client");
            } else if method == Method::POST {
                let offer: Value = serde_json::from_slice(&body).unwrap();
                assert_eq!([&offer["scenario"], &offer["room"]], ["live", "stage"]);
                let direction = &offer["webrtc"]["direction"];
                let right = if direction == "publish" { PUBLISH } else { VIEW };
                assert!(has(token(right)), "{direction} by the token of another direction");
            }
        }
    });
}

#[test]
fn other_group_is_not_shown_to_clients() {
    let body = json!({"error": {
        "code": "conflict", "message": "`stage` is a room of group `west`: offer it to gateway `west-2`",
        "field": "room", "group": "west", "gateway": "west-2", "api": "10.0.0.9:7000",
    }});
    let shown = refused(StatusCode::CONFLICT, body.to_string().as_bytes()).body();
    let shown = String::from_utf8(shown).unwrap();
    assert!(!shown.contains("west") && !shown.contains("10.0.0.9"), "{shown}");
    assert!(shown.contains("conflict") && shown.contains("request_id"), "{shown}");
}
