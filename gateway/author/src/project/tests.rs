use serde_json::json;
use tempfile::tempdir;

use super::*;

#[test]
fn folder_without_a_source_is_no_project() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let project = Project::at(here).unwrap();
    assert_eq!((project.folder, project.language), (here.canonicalize().unwrap(), Language::Rust));
    for bad in [here.join("src"), here.join("nowhere")] {
        let failed = Project::at(&bad).unwrap_err();
        assert!(matches!(&failed, AuthorError::NoProject(path) if *path == bad), "{failed}");
        assert!(failed.is_of_the_question());
    }
}

#[test]
fn plugin_in_c_is_found_by_the_name_in_its_manifest() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("policy.c"), "").unwrap();
    fs::write(folder.path().join("manifest.json"), r#"{"name": "calm-c"}"#).unwrap();
    let file = folder.path().join("calm-c.wasm");
    let found = Project::of_plugin("calm-c", &file, None).unwrap().unwrap();
    assert_eq!(found.language, Language::C);
    assert!(Project::of_plugin("other", &file, None).unwrap().is_none());
    // C has no native tests.
    found.test(true).unwrap();
    assert!(matches!(found.run_test("any", ("", &file)), Err(AuthorError::NotRust)));
}

#[test]
fn module_is_the_projects_own() {
    let built =
        |manifest: &str, files: &[&str]| json!({"manifest_path": manifest, "filenames": files});
    let find = |message| module(&message, Path::new("/p/Cargo.toml"));
    let ours = built("/p/Cargo.toml", &["/t/libp.rlib", "/t/p.wasm"]);
    assert_eq!(find(ours), Some("/t/p.wasm".into()));
    assert_eq!(find(built("/p/sdk/Cargo.toml", &["/t/sdk.wasm"])), None);
    assert_eq!(
        find(built("/p/Cargo.toml", &["/t/libp.rlib"])),
        None,
        "an rlib alone is not a plugin"
    );
    assert_eq!(find(json!({"reason": "build-finished"})), None);
}
