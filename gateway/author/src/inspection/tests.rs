use evenkeel_fuzz::Corpus;
use evenkeel_guests::module::Module;
use evenkeel_host::{SecretKey, TrustedKeys, UnsignedPlugins, shipped, sign};
use evenkeel_model::Hook;

use super::*;
use crate::conformance::tests::{behaving, guest};

fn shipped_plugin(name: &str) -> &'static [u8] {
    shipped().iter().find(|plugin| plugin.name == name).unwrap().bytes
}

#[test]
fn plugin_shows_all_requests() {
    let inspection = Inspection::of(shipped_plugin("admit-capacity"));
    assert_eq!(inspection.refused(), None);
    let json = inspection.json();
    assert_eq!((&json["name"], &json["hooks"]), (&json!("admit-capacity"), &json!(["admission"])));
    assert_eq!(json["node_metrics"][0], json!({"number": 35, "name": "load", "unit": "permille"}));
    assert_eq!((&json["form"], &json["signed"]), (&json!("module"), &json!(false)));
    assert_eq!(json["digest"].as_str().unwrap().len(), 64);
    assert_eq!(json["revision"].as_str().unwrap().len(), 12);
    let cap = json["settings"].as_array().unwrap().iter().find(|setting| setting["name"] == "cap");
    assert_eq!((&cap.unwrap()["unit"], &cap.unwrap()["minimum"]), (&json!("kbit/s"), &json!(16)));
    let text = inspection.to_string();
    for word in [
        "admission",
        "load (permille)",
        "evenkeel:policy/diag@0.1.1: log, note",
        "kbit/s",
        "1 has-capacity",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
    assert!(!text.contains("flat_"), "exports are shown once: {text}");
}

#[test]
fn declared_documents_are_shown() {
    let data = json!({"tenants": {"type": "object", "required": ["acme"]}});
    let plugin = Module::honest(Hook::Routing).manifest_key("data", data.clone()).build();
    let inspection = Inspection::of(&plugin);
    assert_eq!((inspection.refused(), &inspection.json()["data"]), (None, &data));
    let text = inspection.to_string();
    assert!(text.contains("data       tenants") && !text.contains("revision"), "{text}");
}

#[test]
fn refused_plugin_shows_its_readable_part() {
    let whole = shipped_plugin("degrade-ladder");
    let half = Inspection::of(&whole[..whole.len() / 2]);
    assert_eq!(half.refused().unwrap().code(), "not-wasm");
    assert!(half.to_string().contains("incomplete"));
    assert_eq!(half.json()["imports"][0], "evenkeel:policy/diag@0.1.1#log");
    let text = Inspection::of(b"a letter");
    assert_eq!(text.refused().unwrap().code(), "not-wasm");
    assert_eq!((&text.json()["signed"], &text.json()["signer"]), (&json!(false), &Value::Null));
    assert!(text.to_string().contains("signature  unknown"), "{text}");
    assert!(text.to_string().starts_with("no readable manifest\n  file       8 bytes"));
}

#[test]
fn plugin_that_does_not_start_is_refused() {
    let endless = guest("scenario", &behaving("loop-in-init"));
    let inspection = Inspection::of(&endless.bytes);
    let said = "`init` did not return within 250 ms; is there an endless loop?";
    assert_eq!(inspection.json()["refused"], said);
}

#[test]
fn output_has_no_control_characters() {
    let mut inspection = Inspection::of(b"");
    inspection.manifest = json!({"name": "red \u{1b}[31m", "version": "1\n2"});
    assert!(inspection.to_string().starts_with("red \u{fffd}[31m 1\u{fffd}2 "));
}

#[test]
fn unknown_numbers_are_shown() {
    let mut inspection = Inspection::of(b"");
    inspection.manifest = json!({"name": "new", "subject_metrics": [1, 9999], "ops": [77]});
    let text = inspection.to_string();
    assert!(text.contains("loss-up (ppm), metric 9999, unknown to this gateway"), "{text}");
    assert_eq!(inspection.json()["ops"], json!([{"number": 77, "name": null}]));
}

#[test]
fn signature_names_its_key() {
    let plugin = shipped_plugin("scenario-call");
    let key = SecretKey::generate();
    let signed = Inspection::of(&sign(plugin, &key).unwrap());
    let public = key.public().to_string();
    assert_eq!((signed.refused(), signed.signer()), (None, Some(key.public())));
    let json = signed.json();
    assert_eq!((&json["signed"], &json["signer"]), (&json!(true), &json!(public)));
    assert_eq!((&json["refused"], &json["code"]), (&Value::Null, &Value::Null));
    assert!(signed.to_string().contains(&format!("  signature  by {public}\n")), "{signed}");
    let unsigned = Inspection::of(plugin);
    assert_eq!((unsigned.refused(), unsigned.signer()), (None, None));
    assert!(unsigned.to_string().contains("  signature  none\n"), "{unsigned}");
}

#[test]
fn invalid_signature_is_refused() {
    let mut broken = sign(shipped_plugin("scenario-call"), &SecretKey::generate()).unwrap();
    *broken.last_mut().unwrap() ^= 1;
    let gateway = TrustedKeys::default().judge(&broken, UnsignedPlugins::Allow).unwrap_err();
    let inspection = Inspection::of(&broken);
    assert_eq!(inspection.refused(), Some(&gateway));
    let json = inspection.json();
    assert_eq!((&json["signed"], &json["signer"]), (&json!(false), &Value::Null));
    assert_eq!(
        (&json["code"], &json["refused"]),
        (&json!("signature"), &json!(gateway.to_string()))
    );
    assert_eq!((&json["name"], &json["revision"]), (&json!("scenario-call"), &Value::Null));
    let text = inspection.to_string();
    assert!(text.contains("  signature  one that does not match these bytes"), "{text}");
}

#[test]
fn oversized_manifest_is_not_shown() {
    let with = |bytes: usize| {
        let manifest = json!({"name": "long"}).to_string();
        let manifest = manifest.clone() + &" ".repeat(bytes - manifest.len());
        let name = b"\x11evenkeel:manifest";
        let mut size = manifest.len() + name.len();
        let mut module = b"\0asm\x01\0\0\0\0".to_vec();
        while size >= 128 {
            module.push(size as u8 | 128);
            size >>= 7;
        }
        module.push(size as u8);
        Inspection::of(&[&module, &name[..], manifest.as_bytes()].concat())
    };
    assert_eq!(with(MANIFEST_BYTES_MAX).json()["name"], "long");
    assert_eq!(with(MANIFEST_BYTES_MAX + 1).json()["name"], Value::Null);
}

#[test]
fn large_numbers_have_thousands_separators() {
    assert_eq!([0, 999, 1000, 131_072].map(thousands), ["0", "999", "1,000", "131,072"]);
}

#[test]
fn fuzz_inspection() {
    Corpus::of("plugin").check(|bytes| {
        let inspection = Inspection::outline(bytes);
        let is_plain = |c: char| c == '\n' || !c.is_control();
        assert!(inspection.to_string().chars().all(is_plain), "{inspection}");
        assert!(inspection.json().is_object());
    });
}
