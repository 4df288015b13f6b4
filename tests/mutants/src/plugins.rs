//! The plugins of the repository, and the lot that keeps one of each hook for judging.

use std::fs;
use std::path::Path;

use evenkeel_model::Hook;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The lot draws by this text before a plugin's name. Another text would hold back other plugins.
const LOT: &str = "65 ";

/// A plugin of the folder `plugins/`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PluginSource {
    /// The name of its package.
    pub name: &'static str,
    /// Its folder in `plugins/`.
    pub folder: &'static str,
    pub hook: Hook,
    /// The policy set with its settings; `None`: its defaults.
    set: Option<&'static str>,
}

/// The purpose of a plugin's mutants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// A judge may be built by them.
    Building,
    /// They are played to measure a judge, and are not looked at while it is built.
    Judging,
}

impl Side {
    pub const ALL: [Side; 2] = [Side::Building, Side::Judging];

    pub fn name(self) -> &'static str {
        match self {
            Side::Building => "building",
            Side::Judging => "judging",
        }
    }
}

const fn plugin(
    name: &'static str,
    folder: &'static str,
    hook: Hook,
    set: Option<&'static str>,
) -> PluginSource {
    PluginSource { name, folder, hook, set }
}

/// All plugins.
pub const PLUGINS: [PluginSource; 10] = [
    plugin("admit-capacity", "admit-capacity", Hook::Admission, Some("call")),
    plugin("degrade-ladder", "degrade-ladder", Hook::Degradation, Some("call")),
    plugin("route-nearest", "route-nearest", Hook::Routing, Some("call")),
    plugin("scenario-call", "scenario-call", Hook::Scenario, Some("call")),
    plugin("scenario-conference", "scenario-conference", Hook::Scenario, Some("conference")),
    plugin("scenario-live", "scenario-live", Hook::Scenario, Some("live")),
    plugin("example-admission", "examples/admission", Hook::Admission, None),
    plugin("example-degradation", "examples/degradation", Hook::Degradation, None),
    plugin("example-routing", "examples/routing", Hook::Routing, None),
    plugin("example-scenario", "examples/scenario", Hook::Scenario, None),
];

impl PluginSource {
    /// The side that the lot gives the plugin: of each hook the one with the lowest draw is for judging.
    pub fn side(&self) -> Side {
        let rivals = PLUGINS.iter().filter(|other| other.hook == self.hook);
        let lowest = rivals.min_by_key(|other| lot(other.name));
        match lowest.is_some_and(|other| other.name == self.name) {
            true => Side::Judging,
            false => Side::Building,
        }
    }

    /// The settings of the policy set that binds the plugin, below the repository's root.
    ///
    /// # Errors
    /// The policy set cannot be read, or does not bind the plugin.
    pub fn settings(&self, root: &Path) -> Result<Value, String> {
        let Some(set) = self.set else { return Ok(Value::Object(serde_json::Map::new())) };
        let path = root.join("policies").join(set).with_extension("toml");
        let wrong = |why: String| format!("{}: {why}", path.display());
        let text = fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
        let file: toml::Table =
            text.parse().map_err(|error: toml::de::Error| wrong(error.to_string()))?;
        let section = if self.hook == Hook::Scenario { "resolve" } else { self.hook.name() };
        let bound = file.get(section).and_then(toml::Value::as_table);
        let bound = bound
            .filter(|bound| bound.get("plugin").and_then(toml::Value::as_str) == Some(self.name));
        let bound =
            bound.ok_or_else(|| wrong(format!("[{section}] does not bind {}", self.name)))?;
        let settings = bound.get("settings").map(serde_json::to_value).transpose();
        let settings = settings.map_err(|error| wrong(error.to_string()))?;
        Ok(settings.unwrap_or_else(|| Value::Object(serde_json::Map::new())))
    }
}

/// FNV-1a, so that the draw depends on the name alone.
fn lot(name: &str) -> u64 {
    let bytes = LOT.bytes().chain(name.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn root() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
    }

    #[test]
    fn lot_keeps_one_plugin_of_each_hook() {
        let judging = PLUGINS.iter().filter(|plugin| plugin.side() == Side::Judging);
        let mut judging: Vec<&str> = judging.map(|plugin| plugin.name).collect();
        judging.sort_unstable();
        let kept = ["admit-capacity", "example-degradation", "route-nearest", "scenario-call"];
        assert_eq!(judging, kept);
    }

    #[test]
    fn each_crate_of_the_folder_is_listed() {
        let mut found = BTreeSet::new();
        for folder in ["", "examples/"] {
            for entry in fs::read_dir(root().join("plugins").join(folder)).unwrap() {
                let entry = entry.unwrap();
                if entry.path().join("Cargo.toml").exists() {
                    found.insert(format!("{folder}{}", entry.file_name().to_str().unwrap()));
                }
            }
        }
        let listed: BTreeSet<String> = PLUGINS.iter().map(|it| it.folder.to_owned()).collect();
        assert_eq!(found, listed);
    }

    #[test]
    fn settings_are_those_of_the_policy_set() {
        for plugin in PLUGINS {
            let settings = plugin.settings(root()).unwrap();
            assert_eq!(
                settings.as_object().unwrap().is_empty(),
                plugin.set.is_none(),
                "{plugin:?}"
            );
        }
        let other = PluginSource { set: Some("live"), ..PLUGINS[3] };
        assert!(other.settings(root()).unwrap_err().contains("does not bind scenario-call"));
    }
}
