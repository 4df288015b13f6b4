//! The plugins we ship are plugins.

use evenkeel_host::{Component, shipped};

use crate::plugin::roomy;

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
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("Cargo.toml").exists())
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(shipped().iter().map(|plugin| plugin.name).collect::<Vec<_>>(), names);
}
