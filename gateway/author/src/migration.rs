//! States across versions of a plugin: a new version reads the states that an older one wrote.

use evenkeel_host::{BoundPlugin, PluginRefusal};
use evenkeel_model::{Hook, PluginFault, PolicyQuestion};
use serde_json::Value;

use crate::built::BuiltPlugin;
use crate::verdict::ask;
use crate::world::RandomWorld;

/// Random worlds in which both versions are asked. Their seeds are even: the older version answers in usual worlds.
const WORLDS: u64 = 8;

/// Questions to the older version in each world, so that its states are not new.
const TURNS: u32 = 3;

/// States or a memo that the new version does not read. As text: both versions, the failure and the next step.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{new} does not read the states of {old}: {said}; migrate states of schema {from} to {to}, or leave their form and `state_schema` as they were"
)]
pub struct UnreadState {
    /// Name and version of the older plugin.
    old: String,
    /// Name and version of the new plugin.
    new: String,
    from: u32,
    to: u32,
    said: String,
}

/// Lets a new version of a plugin answer questions with the states of an older one. `None` if it reads them, or is another
/// plugin, which gets none of them.
///
/// # Errors
/// If a version refuses the settings or does not start, or the older one runs past a budget of the gateway.
pub fn check(
    old: &BuiltPlugin,
    new: &BuiltPlugin,
    settings: &Value,
) -> Result<Option<UnreadState>, PluginRefusal> {
    let (older, newer) = (old.component.manifest(), new.component.manifest());
    if older.name != newer.name || older.state_schema > newer.state_schema {
        return Ok(None);
    }
    let stateful = [Hook::Routing, Hook::Degradation].into_iter();
    for hook in stateful.filter(|hook| [older, newer].iter().all(|it| it.hooks.contains(hook))) {
        for seed in 0..WORLDS {
            if let Some(fault) = first_failure(old, new, hook, 2 * seed, settings)? {
                let title = |of: &BuiltPlugin| {
                    let manifest = of.component.manifest();
                    format!("{} {}", manifest.name, manifest.version)
                };
                return Ok(Some(UnreadState {
                    old: title(old),
                    new: title(new),
                    from: older.state_schema,
                    to: newer.state_schema,
                    said: fault.to_string(),
                }));
            }
        }
    }
    Ok(None)
}

/// The new version's failure on the states that the older one wrote in a world.
fn first_failure(
    old: &BuiltPlugin,
    new: &BuiltPlugin,
    hook: Hook,
    seed: u64,
    settings: &Value,
) -> Result<Option<PluginFault>, PluginRefusal> {
    let mut world = RandomWorld::drawn(seed);
    let install = |built: &BuiltPlugin, settings: &Value| {
        let (inputs, catalog) = (built.inputs(settings), world.catalog.clone());
        BoundPlugin::install(&built.engine, &built.component, hook, inputs, catalog, 1)
    };
    // The older version may not know settings of the new one.
    let mut writer = install(old, settings).or_else(|_| install(old, &Value::Null))?;
    let mut reader = install(new, settings)?;
    for _ in 0..TURNS {
        if let Ok(answered) = ask(&mut writer, &question(&world, hook), world.now_us)? {
            world.apply(&answered.answer);
        }
        world.advance();
    }
    Ok(ask(&mut reader, &question(&world, hook), world.now_us)?.err())
}

fn question(world: &RandomWorld, hook: Hook) -> PolicyQuestion {
    match hook {
        Hook::Routing => world.reroute(),
        Hook::Degradation | Hook::Admission | Hook::Scenario => world.tick(),
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_guests::module::Module;
    use serde_json::json;

    use super::*;

    /// A degradation policy with this state schema. It migrates nothing, or everything to nothing.
    fn version(schema: u32, migrates: bool) -> BuiltPlugin {
        let module = Module::honest(Hook::Degradation).manifest_key("state_schema", json!(schema));
        // A result that is an error, without words.
        let refuses = "(i32.store8 (i32.const 2048) (i32.const 1)) (i32.const 2048)";
        let module = if migrates { module } else { module.body("migrate", refuses) };
        BuiltPlugin::from_bytes(module.build()).unwrap()
    }

    #[test]
    fn raised_schema_without_migration_is_found() {
        let checked = |old: &BuiltPlugin, new: &BuiltPlugin| check(old, new, &Value::Null).unwrap();
        let old = version(1, false);
        let unread = checked(&old, &version(2, false)).unwrap().to_string();
        let said = "hostile 1.0.0 does not read the states of hostile 1.0.0: malformed: migrate from schema 1";
        assert!(unread.starts_with(said) && unread.contains("schema 1 to 2"), "{unread}");
        assert_eq!(checked(&old, &version(2, true)), None);
        assert_eq!(checked(&old, &version(1, false)), None, "nothing is to be migrated");
        assert_eq!(checked(&version(2, false), &old), None, "an older version begins anew");
    }
}
