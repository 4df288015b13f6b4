use serde_json::json;

use super::*;

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
