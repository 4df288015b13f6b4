use toml::{Table, Value};

use super::*;

#[test]
fn embedded_sdk_is_its_own_workspace() {
    let manifests = FILES.iter().filter(|(path, _)| path.ends_with("Cargo.toml"));
    let manifests: Vec<Table> = manifests.map(|(_, text)| text.parse().unwrap()).collect();
    let [root, macros] = &manifests[..] else { panic!("the SDK and its macros") };
    let shared = root["workspace"]["dependencies"].as_table().unwrap();
    assert_eq!(shared["evenkeel-plugin-macros"]["path"].as_str(), Some("macros"));
    let mut used = vec![];
    for manifest in [root, macros] {
        assert!(!manifest.contains_key("dev-dependencies"));
        let tables = ["dependencies", "build-dependencies"].map(|kind| manifest.get(kind));
        used.extend(tables.into_iter().flatten().flat_map(|of| of.as_table().unwrap().keys()));
    }
    used.sort();
    assert!(shared.keys().eq(used), "{shared:?}");
}

#[test]
fn embedded_sdk_is_complete_without_tests() {
    let here = |path: &str| FILES.iter().any(|(name, _)| *name == path);
    for path in ["Cargo.toml", "build.rs", "src/lib.rs", "wit/policy.wit", "macros/src/lib.rs"] {
        assert!(here(path), "{path}");
    }
    assert!(!FILES.iter().any(|(path, _)| path.starts_with("tests/")));
    for (path, text) in FILES.iter().filter(|(path, _)| !path.ends_with("Cargo.toml")) {
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
