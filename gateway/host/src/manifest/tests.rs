use evenkeel_fuzz::Corpus;
use serde_json::json;

use super::*;
use crate::limits::DEFAULTS_BYTES_MAX;
use crate::plugin_file::PluginFile;
use crate::refusal::tests::assert_is_message;

fn manifest() -> Value {
    json!({
        "name": "nearest", "version": "1.2.0", "contract": "0.1.0", "hooks": ["routing"],
        "settings": {"type": "object"}, "state_schema": 2, "subject_metrics": [13, 9_999],
        "node_metrics": [32, 35], "ops": [1, 77], "reasons": [{"number": 1, "name": "nearest"}]
    })
}

fn read(manifest: &Value) -> Result<Manifest, PluginRefusal> {
    Manifest::read(manifest.to_string().as_bytes())
}

#[test]
fn unknown_numbers_are_ignored() {
    let manifest = read(&manifest()).unwrap();
    assert_eq!(manifest.subject_metrics, [Metric::Sessions]);
    assert_eq!(manifest.node_metrics, [Metric::Delay, Metric::Load]);
    assert_eq!(manifest.ops, [Op::Cap]);
    assert_eq!(manifest.state_schema, 2);
}

#[test]
fn unknown_hook_is_ignored_if_one_remains() {
    let mut value = manifest();
    value["hooks"] = json!(["recording", "routing"]);
    assert_eq!(read(&value).unwrap().hooks, [Hook::Routing]);
    value["hooks"] = json!(["recording"]);
    assert!(
        matches!(read(&value), Err(PluginRefusal::Manifest { field, .. }) if &*field == "hooks")
    );
}

#[test]
fn other_contract_is_refused_with_both_versions() {
    let mut value = manifest();
    value["contract"] = json!("0.1.7");
    assert!(read(&value).is_ok());
    for other in ["0.2.0", "1.1.0", "0", "", "0.1.", "0.1.x", "0.1.65536"] {
        value["contract"] = json!(other);
        assert_eq!(
            read(&value),
            Err(PluginRefusal::Contract { found: other.into(), spoken: "0.1.1" })
        );
    }
}

#[test]
fn reason_is_own_or_shared() {
    let mut value = manifest();
    let named = read(&value).unwrap();
    assert_eq!(named.reason(1), Some("nearest"));
    assert_eq!(named.reason(65_537), Some("loss"));
    assert_eq!((named.reason(0), named.reason(2)), (None, None));
    for (number, own) in [(0, false), (1, true), (65_535, true), (65_536, false)] {
        value["reasons"] = json!([{"number": number, "name": "own"}]);
        assert_eq!(read(&value).is_ok(), own, "{number}");
    }
}

/// The error: field, expected, found.
fn refused(value: &Value) -> [Box<str>; 3] {
    match read(value) {
        Err(PluginRefusal::Manifest { field, expected, found }) => [field, expected, found],
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_are_one_word() {
    let mut value = manifest();
    let bad = ["", "Nearest", "a/b", "a b", "\u{1b}[31m", "näher", &"a".repeat(65)];
    for bad in bad {
        value["name"] = json!(bad);
        assert_eq!(&*refused(&value)[0], "name", "{bad}");
    }
    value["name"] = json!("a".repeat(64));
    assert!(read(&value).is_ok());
    for bad in bad {
        value["reasons"] = json!([{"number": 1, "name": bad}]);
        assert_eq!(&*refused(&value)[0], "reasons", "{bad}");
    }
    let long = "a".repeat(64);
    value["reasons"] = json!([{"number": 1, "name": long}]);
    assert_eq!(read(&value).unwrap().reason(1), Some(&*long));
}

#[test]
fn version_is_short_and_printable() {
    let mut value = manifest();
    for bad in ["1\n2", "\u{1b}]0;mine\u{7}", "1.0.0\u{7f}", "1.0.0 β", &"1".repeat(65)] {
        value["version"] = json!(bad);
        let [field, expected, found] = refused(&value);
        assert_eq!((&*field, &*found), ("version", &*format!("{bad:?}")));
        assert_eq!(&*expected, "64 printable ASCII characters at most");
    }
    for good in ["", "1.0.0-rc.1+build 5~", &"1".repeat(64)] {
        value["version"] = json!(good);
        assert_eq!(&*read(&value).unwrap().version, good);
    }
}

#[test]
fn manifest_size_is_bounded() {
    let text = manifest().to_string();
    let of =
        |bytes: usize| Manifest::read((text.clone() + &" ".repeat(bytes - text.len())).as_bytes());
    assert!(of(MANIFEST_BYTES_MAX).is_ok());
    let said = of(MANIFEST_BYTES_MAX + 1).unwrap_err().to_string();
    let right =
        "the plugin's manifest: `(whole)` should be 262144 bytes at most, found 262145 bytes";
    assert_eq!(said, right);
}

#[test]
fn reasons_are_bounded_and_have_distinct_numbers() {
    let mut value = manifest();
    let reason = |number: usize| json!({"number": number, "name": format!("reason-{number}")});
    value["reasons"] = (1..=REASONS_MAX).rev().map(reason).collect();
    let manifest = read(&value).unwrap();
    for number in [1, 2, 100, 255, 256] {
        assert_eq!(manifest.reason(number), Some(&*format!("reason-{number}")));
    }
    assert_eq!((manifest.reason(0), manifest.reason(257)), (None, None));
    value["reasons"] = (1..=REASONS_MAX + 1).map(reason).collect();
    let right = ["reasons", "a list of 256 at most", "257 of them"];
    assert_eq!(refused(&value), right.map(Box::from));
    value["reasons"] = json!([reason(7), reason(3), {"number": 7, "name": "other"}]);
    let right = ["reasons", "reasons with a number each", "7 \"reason-7\" and \"other\""];
    assert_eq!(refused(&value), right.map(Box::from));
}

#[test]
fn shared_reasons_have_names() {
    let manifest = read(&manifest()).unwrap();
    for common in CommonReason::ALL {
        assert_eq!(manifest.reason(common as u32), Some(common.key()));
    }
    assert!(manifest.reasons.is_sorted_by(|(one, _), (next, _)| one < next));
}

#[test]
fn manifest_error_is_one_bounded_line() {
    let mut value = manifest();
    value["name"] = json!("\u{9b}".repeat(100_000));
    assert!(refused(&value)[2].len() <= LINE_BYTES_MAX);
    value = manifest();
    value["hooks"] = json!(["x".repeat(100_000)]);
    assert_eq!(refused(&value)[2].len(), LINE_BYTES_MAX);
    value = manifest();
    value["settings"]["\u{1b}[31m"] = json!(1);
    assert_eq!(&*refused(&value)[0], "settings. [31m");
    value = manifest();
    value["contract"] = json!(format!("\n{}", "9".repeat(100_000)));
    let Err(PluginRefusal::Contract { found, .. }) = read(&value) else { panic!("it is another") };
    assert_eq!((found.len(), &found[..2]), (64, " 9"));
    value["contract"] = json!(format!("0.1.{}", "0".repeat(100_000)));
    assert!(matches!(read(&value), Err(PluginRefusal::Contract { .. })));
}

#[test]
fn fuzz_manifest() {
    let shipped =
        crate::shipped().iter().filter_map(|plugin| PluginFile::parse(plugin.bytes).manifest);
    let corpus = Corpus::of("manifest").with(manifest().to_string());
    shipped.fold(corpus, Corpus::with).check(|section| match Manifest::read(section) {
        Ok(manifest) => {
            assert!(is_name(&manifest.name) && !manifest.hooks.is_empty());
            let Ok(settings) = manifest.settings.complete(Value::Null) else { return };
            assert!(settings.to_string().len() <= "{}".len() + DEFAULTS_BYTES_MAX);
            assert_eq!(manifest.settings.complete(settings.clone()).ok(), Some(settings));
        }
        Err(refused) => assert_is_message(&refused),
    });
}

#[test]
fn park_and_end_are_granted_only_if_listed() {
    let mut value = manifest();
    value["ops"] = json!([1, 5, 6, 7]);
    let manifest = read(&value).unwrap();
    let granted = |ops| PluginGrant::of(&manifest, &GrantLimits { ops, metrics: None }).ops;
    assert_eq!(granted(None), [Op::Cap, Op::Thin]);
    assert_eq!(granted(Some(vec![Op::Park, Op::End])), [Op::Park, Op::End]);
    assert_eq!(granted(Some(Op::ALL.to_vec())), [Op::Cap, Op::Thin, Op::Park, Op::End]);
}
