//! Time from the replacement of a plugin's file to the activation of its revision, and the time of a rollback.

use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use super::Effort;
use super::gateway::{Api, Gateway, POLICY, revision};
use super::report::{Report, Tail};

/// The plugin's file, beside its set.
const FILE: &str = "routing.wasm";

/// The revision of the first file; swaps use others.
const FIRST: u32 = 1_000;

/// # Errors
/// A measurement failed.
pub(crate) fn measure(
    gateway: &mut Gateway,
    effort: Effort,
    report: &mut Report,
) -> Result<(), String> {
    let (mut api, policies) = (gateway.api()?, gateway.policies.clone());
    let (mut cold, mut cached, mut backs) = (Vec::new(), Vec::new(), Vec::new());
    gateway.serving(|| {
        bind_file(&policies)?;
        let is_bound =
            |policy: &Value| policy["origin"].as_str().is_some_and(|o| o.ends_with(FILE));
        api.wait(POLICY, is_bound)?;
        let replace = |number, api: &mut Api| -> Result<f64, String> {
            let next = policies.join(".next");
            fs::write(&next, revision(number)?).map_err(|error| error.to_string())?;
            let before = api.policy(POLICY)?["revision"].clone();
            let began = Instant::now();
            fs::rename(&next, policies.join(FILE)).map_err(|error| error.to_string())?;
            api.wait(POLICY, |policy| policy["revision"] != before)?;
            Ok(began.elapsed().as_secs_f64() * 1e3)
        };
        replace(FIRST, &mut api)?;
        for round in 1..=effort.drops as u32 {
            cold.push(replace(FIRST + round, &mut api)?);
            cached.push(replace(FIRST, &mut api)?);
            // The file before was a rollback, after which there is nothing to roll back.
            replace(FIRST + 200_000 + round, &mut api)?;
            let began = Instant::now();
            api.roll_back(POLICY)?;
            backs.push(began.elapsed().as_secs_f64() * 1e3);
            // A rollback lasts until the file changes.
            replace(FIRST + 100_000 + round, &mut api)?;
            replace(FIRST, &mut api)?;
        }
        Ok(())
    })?;
    report.cold_ms = Tail::of(&mut cold);
    report.cached_ms = Tail::of(&mut cached);
    report.rollback_ms = Tail::of(&mut backs);
    Ok(())
}

/// Changes the policy set so that its plugin is a file beside the set.
fn bind_file(policies: &Path) -> Result<(), String> {
    let said = |error: std::io::Error| error.to_string();
    fs::write(policies.join(FILE), revision(FIRST - 1)?).map_err(said)?;
    let set = policies.join("call.toml");
    let text = fs::read_to_string(&set).map_err(said)?;
    let bound = text.replace("plugin = \"route-nearest\"", &format!("plugin = \"{FILE}\""));
    if bound == text {
        return Err(format!("{} does not bind route-nearest", set.display()));
    }
    fs::write(&set, bound).map_err(said)
}
