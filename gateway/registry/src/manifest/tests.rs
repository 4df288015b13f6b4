use evenkeel_fuzz::Corpus;
use serde_json::{Value, json};

use super::*;

fn title() -> PluginTitle {
    PluginTitle { name: "my-route".to_owned(), version: "1.2.0".to_owned() }
}

#[test]
fn written_manifest_is_that_of_an_artifact() {
    let written = write(b"\0asm", &title());
    assert_eq!(written, write(b"\0asm", &title()), "the digest is the same");
    let value: Value = serde_json::from_slice(&written).unwrap();
    let expected = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.evenkeel.plugin.v1",
        // The empty descriptor of the specification.
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "size": 2,
        },
        "layers": [{
            "mediaType": "application/wasm",
            "digest": text(&sha256(b"\0asm")),
            "size": 4,
        }],
        "annotations": {
            "org.opencontainers.image.title": "my-route.wasm",
            "org.opencontainers.image.version": "1.2.0",
        },
    });
    assert_eq!(value, expected);
    assert_eq!(read(&written), Ok(PluginLayer { digest: sha256(b"\0asm"), bytes: 4 }));
}

/// A manifest whose layer has other values.
fn with_layer(key: &str, value: Value) -> Vec<u8> {
    let mut manifest: Value = serde_json::from_slice(&write(b"\0asm", &title())).unwrap();
    manifest["layers"][0][key] = value;
    serde_json::to_vec(&manifest).unwrap()
}

#[test]
fn manifest_of_another_artifact_is_refused() {
    let found = |manifest: &[u8]| read(manifest).unwrap_err();
    let image = with_layer("mediaType", json!("application/vnd.oci.image.layer.v1.tar+gzip"));
    assert_eq!(found(&image), "a layer of `application/vnd.oci.image.layer.v1.tar+gzip`");
    let large = with_layer("size", json!(BINARY_BYTES_MAX + 1));
    assert_eq!(found(&large), format!("a layer of {} bytes", BINARY_BYTES_MAX + 1));
    assert_eq!(read(&with_layer("size", json!(BINARY_BYTES_MAX))).unwrap().bytes, BINARY_BYTES_MAX);
    let other = with_layer("digest", json!("sha512:00"));
    assert_eq!(found(&other), "a layer with the digest `sha512:00`");
    let mut two: Value = serde_json::from_slice(&write(b"\0asm", &title())).unwrap();
    let layer = two["layers"][0].clone();
    two["layers"] = json!([layer.clone(), layer]);
    assert_eq!(found(&serde_json::to_vec(&two).unwrap()), "a manifest with 2 layers");
    assert!(found(b"[]").starts_with("no image manifest: "));
}

#[test]
fn fuzz_registry_manifest() {
    Corpus::of("registry-manifest").with(write(b"\0asm", &title())).check(|bytes| {
        if let Ok(layer) = read(bytes) {
            assert!(layer.bytes <= BINARY_BYTES_MAX);
        }
    });
}
