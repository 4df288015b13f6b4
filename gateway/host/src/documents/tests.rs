use serde_json::json;

use super::*;
use crate::limits::LOOKUP_BYTES_MAX;
use crate::lookup::InvalidLookup;

fn manifest(data: &Value) -> Manifest {
    let manifest = json!({
        "name": "by-tenant", "version": "1", "contract": "0.1.1", "hooks": ["scenario"],
        "settings": {"type": "object"}, "data": data
    });
    Manifest::read(manifest.to_string().as_bytes()).unwrap()
}

fn tenants() -> Manifest {
    manifest(&json!({
        "devices": {"type": "object"},
        "tenants": {"type": "object", "additionalProperties": {
            "type": "object", "additionalProperties": false,
            "properties": {
                "cap": {"type": "integer", "minimum": 24, "default": 300},
                "codecs": {"type": "array", "items": {"type": "string"}}
            }
        }}
    }))
}

fn given(documents: &[(&str, Value)]) -> DataDocuments {
    let document =
        |(name, value): &(&str, Value)| ((*name).into(), DataDocument::of(name, value).unwrap());
    documents.iter().map(document).collect()
}

fn checked(documents: &[(&str, Value)]) -> Result<DocumentTable, PluginRefusal> {
    check(&tenants(), &given(documents))
}

fn found(table: &DocumentTable, document: &str, path: &[&str]) -> Option<String> {
    let path: Vec<String> = path.iter().map(|&part| part.to_owned()).collect();
    table.lookup(document, &path).unwrap()
}

#[test]
fn lookup_returns_a_part_with_defaults() {
    let acme = json!({"acme/eu": {"codecs": ["opus", "vp8"]}, "other": {"cap": 64}});
    let table = checked(&[("tenants", acme)]).unwrap();
    let found = |document: &str, path: &[&str]| found(&table, document, path);
    assert_eq!(
        found("tenants", &["acme/eu"]).as_deref(),
        Some(r#"{"cap":300,"codecs":["opus","vp8"]}"#)
    );
    assert_eq!(found("tenants", &["other", "cap"]).as_deref(), Some("64"));
    assert_eq!(found("tenants", &["acme/eu", "codecs", "1"]).as_deref(), Some(r#""vp8""#));
    for missing in
        [&["acme"][..], &["other", "codecs"], &["acme/eu", "codecs", "2"], &["other", "cap", "0"]]
    {
        assert_eq!(found("tenants", missing), None, "{missing:?}");
    }
    assert_eq!(found("devices", &[]).as_deref(), Some("{}"), "nobody gave it");
}

#[test]
fn invalid_lookups_say_why() {
    let table = checked(&[("devices", json!({"long": "x".repeat(LOOKUP_BYTES_MAX - 2)}))]).unwrap();
    assert_eq!(found(&table, "devices", &["long"]).map(|text| text.len()), Some(LOOKUP_BYTES_MAX));
    let whole = table.lookup("devices", &[]).unwrap_err();
    assert_eq!(whole, InvalidLookup::TooLong("devices".into()));
    let other = table.lookup("tenant", &[]).unwrap_err();
    assert_eq!(other, InvalidLookup::Undeclared("tenant".into()));
}

#[test]
fn invalid_document_is_named_with_a_pointer() {
    let refused = |documents: &[(&str, Value)]| checked(documents).err().unwrap().to_string();
    assert_eq!(
        refused(&[("tenants", json!({"a/b~c": {"codecs": ["opus", 7]}}))]),
        "data document `tenants` at `/a~1b~0c/codecs/1` should be a text, found 7"
    );
    assert_eq!(
        refused(&[("tenants", json!({"acme": {"rate": 7}}))]),
        "data document `tenants` at `/acme/rate` should be one of the members cap, codecs, found \"rate\""
    );
    assert_eq!(
        refused(&[("tenants", json!([]))]),
        "data document `tenants` should be an object, found []"
    );
    assert_eq!(
        refused(&[("tenant", json!({}))]),
        "data document `tenant` should be one of the declared documents devices, tenants, found an undeclared document"
    );
    let none = check(&manifest(&json!({})), &given(&[("tenants", json!({}))]));
    let said = none.err().unwrap().to_string();
    assert!(said.contains("the plugin's manifest declares no documents"), "{said}");
}

#[test]
fn digest_depends_on_the_content_only() {
    let read = |text: &str| DataDocument::read("tenants", text.as_bytes());
    let (one, other) = (read("{\"b\": 1,\n \"a\": 2}"), read("{\"a\":2,\"b\":1}"));
    assert_eq!(one, other);
    assert_eq!(one.unwrap().text().as_ref(), b"{\"a\":2,\"b\":1}".as_slice());
    assert_ne!(other, read("{\"a\":2,\"b\":2}"));
}

#[test]
fn unreadable_document_is_refused() {
    let said = DataDocument::read("tenants", b"{\"a\": }").unwrap_err().to_string();
    assert!(said.starts_with("data document `tenants` should be JSON, found "), "{said}");
    assert!(said.contains("line 1 column 7"), "{said}");
    // With its quotation marks and the member's name.
    let sized = |bytes: usize| json!({"a": "x".repeat(bytes - 8)});
    assert!(DataDocument::of("tenants", &sized(DOCUMENT_BYTES_MAX)).is_ok());
    let said = DataDocument::of("tenants", &sized(DOCUMENT_BYTES_MAX + 1)).unwrap_err().to_string();
    assert_eq!(
        said,
        "data document `tenants` should be 1048576 bytes at most, found 1048577 bytes"
    );
}

#[test]
fn manifest_declares_at_most_eight_documents() {
    let read = |names: &[String]| {
        let data: serde_json::Map<_, _> =
            names.iter().map(|name| (name.clone(), json!({"type": "object"}))).collect();
        let manifest = json!({
            "name": "by-tenant", "version": "1", "contract": "0.1.1", "hooks": ["scenario"],
            "settings": {"type": "object"}, "data": data
        });
        Manifest::read(manifest.to_string().as_bytes()).map(|manifest| manifest.data.len())
    };
    let names: Vec<String> = (0..9).map(|number| format!("d{number}")).collect();
    assert_eq!(read(&names[..8]), Ok(8));
    let refused = [read(&names), read(&["Tenants".to_owned()])].map(|it| it.unwrap_err().code());
    assert_eq!(refused, ["manifest"; 2]);
}
