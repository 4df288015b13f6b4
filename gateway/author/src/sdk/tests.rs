use toml::{Table, Value};

use super::*;

fn manifests() -> impl Iterator<Item = Table> {
    let manifests = files().iter().filter(|(path, _)| path.ends_with("Cargo.toml"));
    manifests.map(|(_, text)| text.parse().unwrap())
}

fn inherits(value: &Value) -> bool {
    match value {
        Value::Table(table) => table.contains_key("workspace") || table.values().any(inherits),
        Value::Array(list) => list.iter().any(inherits),
        _ => false,
    }
}

#[test]
fn embedded_sdk_inherits_from_no_workspace() {
    assert_eq!(manifests().count(), 2, "the SDK and its macros");
    for manifest in manifests() {
        assert!(!inherits(&Value::Table(manifest.clone())), "{manifest}");
        assert!(!manifest.contains_key("dev-dependencies"));
    }
}

#[test]
fn embedded_sdk_is_complete_without_tests() {
    let here = |path: &str| files().iter().any(|(name, _)| *name == path);
    for path in ["Cargo.toml", "build.rs", "src/lib.rs", "wit/policy.wit", "macros/src/lib.rs"] {
        assert!(here(path), "{path}");
    }
    assert!(!files().iter().any(|(path, _)| path.starts_with("tests/")));
    for (path, text) in files().iter().filter(|(path, _)| !path.ends_with("Cargo.toml")) {
        let folder = if path.starts_with("LICENSE") { "" } else { "plugin-sdk/" };
        let source = format!("{}/../../{folder}{path}", env!("CARGO_MANIFEST_DIR"));
        assert_eq!(std::fs::read_to_string(source).unwrap(), *text, "{path} is unchanged");
    }
    assert!(here("LICENSE-MIT") && here("LICENSE-APACHE"));
}

#[test]
fn project_is_locked_to_workspace_versions() {
    let lock: Table = lock("my-route", "0.1.0").parse().unwrap();
    let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock");
    let workspace: Table = std::fs::read_to_string(workspace).unwrap().parse().unwrap();
    let packages = |table: &Table| table["package"].as_array().unwrap().clone();
    let ours = packages(&workspace);
    for package in packages(&lock).iter().filter(|package| package.get("source").is_some()) {
        let same = |field: &str, other: &Value| package.get(field) == other.get(field);
        let there =
            ours.iter().any(|other| ["name", "version", "checksum"].iter().all(|f| same(f, other)));
        assert!(there, "{package}");
    }
    let names = packages(&lock);
    let names: Vec<&str> = names.iter().map(|package| package["name"].as_str().unwrap()).collect();
    assert!(names.is_sorted() && names.contains(&"my-route") && names.contains(&"wit-bindgen"));
    assert!(!names.contains(&"wasmtime"), "no dependencies of the gateway alone");
}
