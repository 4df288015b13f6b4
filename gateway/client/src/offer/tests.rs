use super::*;
use crate::ApiResponse;

#[test]
fn debug_shows_no_secrets() {
    let text = r#"{"id": "s1", "udp": {"addresses": [], "ufrag": "gate", "password": "hush-pwd"},
        "webrtc": {"answer": "a=ice-pwd:hush-sdp"}}"#;
    let answer: OfferAnswer = serde_json::from_str(text).unwrap();
    let offer = OfferSdp { offer: "a=crypto:1 X inline:hush-key".to_owned() };
    let response = ApiResponse { status: 201, body: text.as_bytes().into() };
    let shown = format!("{answer:?} {offer:?} {response:?}");
    assert!(shown.contains("gate") && shown.contains("201"), "{shown}");
    assert!(!shown.contains("hush"), "{shown}");
}
