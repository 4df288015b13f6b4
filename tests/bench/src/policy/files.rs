//! A plugin's file is replaced; how long until its revision is in force. And how long a rollback takes.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Effort;
use super::gateway::{Api, Gateway, revision};
use super::report::{Report, Tail};

/// The plugin's file, beside its set.
const FILE: &str = "routing.wasm";

/// The revision of the first file; those of the swaps are others.
const FIRST: u32 = 1_000;

/// A file is in force within this, or never will be.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is asked whether it is: what is measured is right to this.
const ASK_EVERY: Duration = Duration::from_millis(1);

/// # Errors
/// What could not be measured, in a sentence.
pub(crate) fn measure(
    gateway: &mut Gateway,
    effort: Effort,
    report: &mut Report,
) -> Result<(), String> {
    let mut api = gateway.api()?;
    bind_file(gateway)?;
    wait(&mut api, |policy| policy["origin"].as_str().is_some_and(|o| o.ends_with(FILE)))?;
    let rig = &mut gateway.running.rig;
    let policies = &gateway.policies;
    // Nodes answer meanwhile, so that there is no reason to think them dead.
    let (mut cold, mut cached, mut backs) = rig
        .serving(|| {
            let (mut cold, mut cached, mut backs) = (Vec::new(), Vec::new(), Vec::new());
            let replace = |number, api: &mut Api| -> Result<f64, String> {
                let next = policies.join(".next");
                fs::write(&next, revision(number)?).map_err(|error| error.to_string())?;
                let before = api.policy()?["revision"].clone();
                let began = Instant::now();
                fs::rename(&next, policies.join(FILE)).map_err(|e| e.to_string())?;
                wait(api, |policy| policy["revision"] != before)?;
                Ok(began.elapsed().as_secs_f64() * 1e3)
            };
            replace(FIRST, &mut api)?;
            for round in 1..=effort.drops as u32 {
                cold.push(replace(FIRST + round, &mut api)?);
                cached.push(replace(FIRST, &mut api)?);
                let began = Instant::now();
                api.roll_back()?;
                backs.push(began.elapsed().as_secs_f64() * 1e3);
                // What a rollback did stays until its file changes.
                replace(FIRST + 100_000 + round, &mut api)?;
                replace(FIRST, &mut api)?;
            }
            Ok::<_, String>((cold, cached, backs))
        })
        .map_err(|error| error.to_string())??;
    report.cold_ms = Tail::of(&mut cold);
    report.cached_ms = Tail::of(&mut cached);
    report.rollback_ms = Tail::of(&mut backs);
    Ok(())
}

/// Waits until the policy stands so.
fn wait(api: &mut Api, holds: impl Fn(&Value) -> bool) -> Result<(), String> {
    let began = Instant::now();
    while !holds(&api.policy()?) {
        if began.elapsed() > PATIENCE {
            return Err(format!("what a file says is not in force after {PATIENCE:?}"));
        }
        std::thread::sleep(ASK_EVERY);
    }
    Ok(())
}

/// From now on the policy's plugin is a file beside its set.
fn bind_file(gateway: &Gateway) -> Result<(), String> {
    let said = |error: std::io::Error| error.to_string();
    fs::write(gateway.policies.join(FILE), revision(FIRST - 1)?).map_err(said)?;
    let set = gateway.policies.join("call.toml");
    let text = fs::read_to_string(&set).map_err(said)?;
    let bound = text.replace("plugin = \"route-nearest\"", &format!("plugin = \"{FILE}\""));
    if bound == text {
        return Err(format!("{} does not bind route-nearest", set.display()));
    }
    fs::write(&set, bound).map_err(said)
}
