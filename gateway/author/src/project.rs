//! Creates a project: a small working policy, its tests, and the SDK's source.

use std::fs;
use std::path::{Path, PathBuf};

use evenkeel_model::Hook;

use crate::failed::AuthorError;
use crate::{name, sdk};

/// The SDK's folder in a project.
const SDK_FOLDER: &str = "sdk";

const VERSION: &str = "0.1.0";

/// Writes a new project into the folder of its name in `parent`, and returns that folder.
///
/// An existing folder is left unchanged, and an incomplete one is removed.
pub fn create(parent: &Path, name: &str, hook: Hook) -> Result<PathBuf, AuthorError> {
    name::check(name)?;
    let folder = parent.join(name);
    fs::create_dir(&folder).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => AuthorError::Exists(folder.clone()),
        _ => AuthorError::File(folder.clone(), error),
    })?;
    let written = files(name, hook).into_iter().try_for_each(|(path, text)| {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(&folder);
        fs::create_dir_all(parent).map_err(AuthorError::file(parent))?;
        fs::write(&path, text).map_err(AuthorError::file(&path))
    });
    match written {
        Ok(()) => Ok(folder),
        Err(failed) => {
            // The write error is reported instead.
            let _ = fs::remove_dir_all(&folder);
            Err(failed)
        }
    }
}

fn files(name: &str, hook: Hook) -> Vec<(PathBuf, String)> {
    let mut files = vec![
        ("Cargo.toml".into(), manifest(name, hook)),
        ("Cargo.lock".into(), sdk::lock(name, VERSION)),
        ("README.md".into(), readme(name, hook)),
        (".gitignore".into(), format!("/target\n/{name}.wasm\n")),
        ("src/lib.rs".into(), policy(hook).to_owned()),
        // The format of the example policy, so that `cargo fmt` leaves it unchanged.
        ("rustfmt.toml".into(), include_str!("../../../rustfmt.toml").to_owned()),
    ];
    let sdk = sdk::FILES.iter();
    files.extend(sdk.map(|(path, text)| (Path::new(SDK_FOLDER).join(path), (*text).to_owned())));
    files
}

/// Source of the hook's example policy and its tests. The gateway's own build compiles and tests it.
fn policy(hook: Hook) -> &'static str {
    match hook {
        Hook::Admission => include_str!("../../../plugins/examples/admission/src/lib.rs"),
        Hook::Routing => include_str!("../../../plugins/examples/routing/src/lib.rs"),
        Hook::Degradation => include_str!("../../../plugins/examples/degradation/src/lib.rs"),
        Hook::Scenario => include_str!("../../../plugins/examples/scenario/src/lib.rs"),
    }
}

fn readme(name: &str, hook: Hook) -> String {
    include_str!("../templates/README.md").replace("NAME", name).replace("HOOK", hook.name())
}

fn manifest(name: &str, hook: Hook) -> String {
    format!(
        r#"[package]
name = "{name}"    # The plugin's name: its revisions share it, and their states. Its file is {name}.wasm.
version = "{VERSION}"
edition = "{edition}"
rust-version = "{rust}"
description = "A policy for the hook {hook}."
publish = false

[lib]
crate-type = ["cdylib", "rlib"]    # The plugin, and what `cargo test` needs.

[dependencies]
evenkeel-plugin-sdk = {{ path = "{SDK_FOLDER}" }}

# It stands alone, in whatever folder it is, and so does its SDK.
[workspace]
exclude = ["{SDK_FOLDER}"]

# Small and fast, without debug sections; names are kept for the trace of a trap.
[profile.release]
{profile}"#,
        edition = sdk::EDITION,
        rust = sdk::RUST,
        hook = hook.name(),
        profile = sdk::PROFILE,
    )
}

#[cfg(test)]
mod tests;
