//! Shipped plugins and examples are valid, and policy sets bind them with valid settings.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use evenkeel_host::{BoundPlugin, Component, shipped};
use evenkeel_model::{Hook, HookAnswer, PolicyQuestion};

use crate::plugin::roomy;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Names and texts of the shipped policy sets.
fn sets() -> Vec<(String, toml::Table)> {
    let files = fs::read_dir(root().join("policies")).unwrap().map(|file| file.unwrap().path());
    let texts = files.filter(|path| path.extension().is_some_and(|ending| ending == "toml"));
    let parsed = texts.map(|path| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (name, fs::read_to_string(&path).unwrap().parse().unwrap())
    });
    parsed.collect()
}

/// A policy of a set, as installed by the gateway.
fn install(set: &toml::Table, hook: Hook) -> BoundPlugin {
    let section = if hook == Hook::Scenario { "resolve" } else { hook.name() };
    let binding = &set[section];
    let name = binding["plugin"].as_str().unwrap();
    let bytes = shipped().iter().find(|plugin| plugin.name == name).unwrap().bytes;
    let component = Component::vet(roomy(), bytes).unwrap();
    let settings = serde_json::to_value(&binding["settings"]).unwrap();
    BoundPlugin::install(roomy(), &component, hook, settings, Vec::new(), 7)
        .unwrap_or_else(|refused| panic!("{name}: {refused}"))
}

#[test]
fn shipped_sets_bind_all_hooks_with_valid_settings() {
    let sets = sets();
    assert!(sets.len() >= 3, "call, conference, live");
    for (_, set) in &sets {
        Hook::ALL.into_iter().for_each(|hook| drop(install(set, hook)));
    }
}

#[test]
fn admission_caps_stay_below_scenario_ceilings() {
    let everyone = [
        &[("max-height", "180"), ("battery", "low")][..],
        &[("role", "viewer"), ("max-height", "180"), ("battery", "low")],
        &[("role", "listener"), ("device", "phone"), ("battery", "low")],
    ];
    for (name, set) in sets() {
        let cap = set["admission"]["settings"]["cap"].as_integer().unwrap();
        let mut policy = install(&set, Hook::Scenario);
        for labels in everyone {
            let labels = labels.iter().map(|&(key, value)| (key.into(), value.into())).collect();
            let question = PolicyQuestion::Resolve { scenario: name.as_str().into(), labels };
            let HookAnswer::Params(params) = policy.ask(&question, 1).unwrap().answer else {
                panic!()
            };
            let ceiling = params.iter().find(|(key, _)| &**key == "bitrate-ceiling").unwrap().1;
            assert!(cap <= ceiling, "{name}: cap {cap} above ceiling {ceiling}");
        }
    }
}

#[test]
fn examples_build_and_are_valid() {
    // The build script's folder, where common dependencies are already compiled.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("plugins");
    for hook in Hook::ALL {
        let name = format!("example-{}", hook.name());
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--lib", "--profile", "plugin"])
            .args(["--target", "wasm32-unknown-unknown", "--manifest-path"])
            .arg(root().join("plugins/examples").join(hook.name()).join("Cargo.toml"))
            .arg("--target-dir")
            .arg(&target)
            .env_remove("RUSTFLAGS")
            .env_remove("RUSTC_WRAPPER")
            .env_remove("RUSTC_WORKSPACE_WRAPPER")
            .status()
            .unwrap();
        assert!(built.success(), "{name} compiles: `rustup target add wasm32-unknown-unknown`?");
        let file = format!("wasm32-unknown-unknown/plugin/{}.wasm", name.replace('-', "_"));
        let bytes = fs::read(target.join(file)).unwrap();
        let component = Component::vet(roomy(), &bytes).unwrap();
        assert_eq!(*component.manifest().name, name);
        let settings = serde_json::json!({});
        let installed = BoundPlugin::install(roomy(), &component, hook, settings, Vec::new(), 7);
        assert!(installed.is_ok(), "{name}: {:?}", installed.err());
    }
}

#[test]
fn shipped_plugins_are_valid_under_their_names() {
    for plugin in shipped() {
        let component = Component::vet(roomy(), plugin.bytes)
            .unwrap_or_else(|refused| panic!("{}: {refused}", plugin.name));
        assert_eq!(&*component.manifest().name, plugin.name);
    }
}

#[test]
fn all_plugin_folders_are_shipped() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins");
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("Cargo.toml").exists())
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(shipped().iter().map(|plugin| plugin.name).collect::<Vec<_>>(), names);
}
