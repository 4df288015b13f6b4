//! The plugins we ship are plugins, the policy sets bind them with settings that they take, and the examples are plugins
//! as well.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use evenkeel_core::{Answer, Hook, Question};
use evenkeel_host::{Component, Policy, shipped};

use crate::plugin::roomy;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The shipped policy sets: their names and texts.
fn sets() -> Vec<(String, toml::Table)> {
    let files = fs::read_dir(root().join("policies")).unwrap().map(|file| file.unwrap().path());
    let texts = files.filter(|path| path.extension().is_some_and(|ending| ending == "toml"));
    let parsed = texts.map(|path| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (name, fs::read_to_string(&path).unwrap().parse().unwrap())
    });
    parsed.collect()
}

/// A policy of a set, as the gateway would install it.
fn install(set: &toml::Table, hook: Hook) -> Policy {
    let section = if hook == Hook::Scenario { "resolve" } else { hook.name() };
    let binding = &set[section];
    let name = binding["plugin"].as_str().unwrap();
    let bytes = shipped().iter().find(|plugin| plugin.name == name).unwrap().bytes;
    let component = Component::vet(roomy(), bytes).unwrap();
    let settings = serde_json::to_value(&binding["settings"]).unwrap();
    Policy::install(roomy(), &component, hook, settings, Vec::new(), 7)
        .unwrap_or_else(|refused| panic!("{name}: {refused}"))
}

#[test]
fn every_set_we_ship_binds_all_hooks_with_settings_that_its_plugins_take() {
    let sets = sets();
    assert!(sets.len() >= 3, "call, conference, live");
    for (_, set) in &sets {
        Hook::ALL.into_iter().for_each(|hook| drop(install(set, hook)));
    }
}

#[test]
fn no_set_lets_anybody_in_with_a_cap_above_the_ceiling_of_its_scenario() {
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
            let question = Question::Resolve { scenario: name.as_str().into(), labels };
            let Answer::Params(params) = policy.ask(&question, 1).unwrap().answer else { panic!() };
            let ceiling = params.iter().find(|(key, _)| &**key == "bitrate-ceiling").unwrap().1;
            assert!(cap <= ceiling, "{name}: a cap of {cap} for who may have {ceiling}");
        }
    }
}

#[test]
fn every_example_builds_for_wasm_and_is_taken_under_its_name_and_hook() {
    // Where the build compiled what is shipped: what all of them depend on is there.
    let target = Path::new(env!("OUT_DIR")).join("plugins");
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
        let installed = Policy::install(roomy(), &component, hook, settings, Vec::new(), 7);
        assert!(installed.is_ok(), "{name}: {:?}", installed.err());
    }
}

#[test]
fn every_plugin_we_ship_is_taken_under_its_name() {
    for plugin in shipped() {
        let component = Component::vet(roomy(), plugin.bytes)
            .unwrap_or_else(|refused| panic!("{}: {refused}", plugin.name));
        assert_eq!(&*component.manifest().name, plugin.name);
    }
}

#[test]
fn every_folder_of_plugins_is_shipped() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins");
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("Cargo.toml").exists())
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(shipped().iter().map(|plugin| plugin.name).collect::<Vec<_>>(), names);
}
