use tempfile::tempdir;

use super::*;

#[test]
fn project_contains_its_name_and_hook() {
    let parent = tempdir().unwrap();
    let folder = create(parent.path(), "my-route", Hook::Routing).unwrap();
    assert_eq!(folder, parent.path().join("my-route"));
    let text = |path: &str| fs::read_to_string(folder.join(path)).unwrap();
    let manifest: toml::Table = text("Cargo.toml").parse().unwrap();
    assert_eq!(manifest["package"]["name"].as_str(), Some("my-route"));
    assert_eq!(manifest["profile"]["release"]["lto"].as_str(), Some("fat"));
    assert!(text("README.md").contains("evenkeel plugin bench my-route.wasm"));
    assert!(!text("README.md").contains("NAME") && !text("README.md").contains("HOOK"));
    assert!(text(".gitignore").contains("/my-route.wasm"));
    assert!(text("sdk/src/lib.rs").contains("SDK for policy plugins"));
}

#[test]
fn existing_folder_is_unchanged() {
    let parent = tempdir().unwrap();
    let folder = parent.path().join("my-route");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("mine"), "mine").unwrap();
    let failed = create(parent.path(), "my-route", Hook::Routing).unwrap_err();
    assert!(matches!(&failed, AuthorError::Exists(path) if *path == folder), "{failed}");
    let inside: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(inside, ["mine"]);
}

#[test]
fn missing_parent_is_named() {
    let parent = Path::new("/nowhere-at-all");
    let failed = create(parent, "my-route", Hook::Routing).unwrap_err();
    assert!(failed.to_string().contains("/nowhere-at-all/my-route"), "{failed}");
}

#[test]
fn each_policy_has_its_hook() {
    for hook in Hook::ALL {
        assert!(policy(hook).contains(&format!("\n#[{}]\n", hook.name())));
    }
}
