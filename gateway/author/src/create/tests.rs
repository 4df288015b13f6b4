use tempfile::tempdir;

use super::*;

#[test]
fn project_contains_its_name_and_hook() {
    let parent = tempdir().unwrap();
    let folder = create(parent.path(), "my-route", Hook::Routing, Language::Rust).unwrap();
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
    let failed = create(parent.path(), "my-route", Hook::Routing, Language::Rust).unwrap_err();
    assert!(matches!(&failed, AuthorError::Exists(path) if *path == folder), "{failed}");
    let inside: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(inside, ["mine"]);
}

#[test]
fn missing_parent_is_named() {
    let parent = Path::new("/nowhere-at-all");
    let failed = create(parent, "my-route", Hook::Routing, Language::Rust).unwrap_err();
    assert!(failed.to_string().contains("/nowhere-at-all/my-route"), "{failed}");
}

#[test]
fn each_policy_has_its_hook() {
    for hook in Hook::ALL {
        assert!(policy(hook).contains(&format!("\n#[{}]\n", hook.name())));
    }
}

/// A file of a new project for this hook.
fn text_in(folder: &Path, path: &str) -> String {
    fs::read_to_string(folder.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn project_in_c_has_its_name_and_its_manifest() {
    for hook in Hook::ALL {
        let parent = tempdir().unwrap();
        let folder = create(parent.path(), "my-policy", hook, Language::C).unwrap();
        let text = |path: &str| text_in(&folder, path);
        let define = format!("#define EK_{}\n", hook.name().to_uppercase());
        assert!(text("policy.c").contains(&define), "{hook:?}");
        assert!(text("policy.c").contains("EK_MANIFEST(\"manifest.json\")"), "{hook:?}");
        let manifest: serde_json::Value = serde_json::from_str(&text("manifest.json")).unwrap();
        assert_eq!(
            (&manifest["name"], &manifest["hooks"][0]),
            (&"my-policy".into(), &hook.name().into())
        );
        assert!(
            text("README.md").contains("my-policy.wasm") && !text("README.md").contains("NAME")
        );
        assert!(text(&format!("tests/{}.toml", hook.name())).contains("[[ask]]"));
        assert!(text("evenkeel_policy.h").contains("evenkeel_registry.h"));
        assert!(text("evenkeel_registry.h").contains("EK_LOAD"));
    }
}

#[test]
fn project_in_javascript_stands_alone() {
    let parent = tempdir().unwrap();
    let create = |hook| create(parent.path(), "my-policy", hook, Language::JavaScript);
    let failed = create(Hook::Routing).unwrap_err();
    assert!(failed.is_of_the_question() && failed.to_string().contains("not for routing"));
    let folder = create(Hook::Degradation).unwrap();
    let text = |path: &str| text_in(&folder, path);
    assert!(text("build.mjs").contains("import.meta.url)), 'wit')"), "{}", text("build.mjs"));
    let package: serde_json::Value = serde_json::from_str(&text("package.json")).unwrap();
    let script = "node build.mjs policy.js manifest.json degradation-policy";
    assert_eq!(
        (&package["name"], &package["scripts"]["build"]),
        (&"my-policy".into(), &script.into())
    );
    let lock: serde_json::Value = serde_json::from_str(&text("package-lock.json")).unwrap();
    assert_eq!(lock["packages"][""]["name"], "my-policy");
    assert!(
        text("policy.js").contains("from './registry.js'") && !text("policy.js").contains("../")
    );
    assert!(text("registry.js").contains("export const Metric"));
    assert!(text("wit/policy.wit").contains("world degradation-policy"));
}
