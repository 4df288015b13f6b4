//! Creates a project: a small working policy, its tests, and the SDK of its language.

use std::fs;
use std::path::{Path, PathBuf};

use evenkeel_model::Hook;

use crate::failed::AuthorError;
use crate::language::Language;
use crate::{name, sdk};

/// A file of `plugin-sdk`.
macro_rules! sdk_file {
    ($path:literal) => {
        include_str!(concat!("../../../plugin-sdk/", $path))
    };
}

/// The SDK's folder in a project.
const SDK_FOLDER: &str = "sdk";

const VERSION: &str = "0.1.0";

/// Writes a new project into the folder of its name in `parent`, and returns that folder.
///
/// An existing folder is left unchanged, and an incomplete one is removed.
pub fn create(
    parent: &Path,
    name: &str,
    hook: Hook,
    language: Language,
) -> Result<PathBuf, AuthorError> {
    name::check(name)?;
    let files = match language {
        Language::Rust => rust_files(name, hook),
        Language::C => c_files(name, hook),
        Language::JavaScript if hook == Hook::Degradation => javascript_files(name),
        Language::JavaScript => {
            let (language, hook) = (language.name(), hook.name());
            return Err(AuthorError::NoTemplate { language, hook });
        }
    };
    let folder = parent.join(name);
    fs::create_dir(&folder).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => AuthorError::Exists(folder.clone()),
        _ => AuthorError::File(folder.clone(), error),
    })?;
    let written = files.into_iter().try_for_each(|(path, text)| {
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

fn rust_files(name: &str, hook: Hook) -> Vec<(PathBuf, String)> {
    let mut files = vec![
        ("Cargo.toml".into(), manifest(name, hook)),
        ("Cargo.lock".into(), sdk::lock(name, VERSION)),
        ("README.md".into(), readme(include_str!("../templates/README.md"), name, hook)),
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

fn readme(template: &str, name: &str, hook: Hook) -> String {
    template.replace("NAME", name).replace("HOOK", hook.name())
}

fn c_files(name: &str, hook: Hook) -> Vec<(PathBuf, String)> {
    // The name without an ending, the source and the manifest of the hook's example.
    let (example, source, manifest) = match hook {
        Hook::Admission => ("full", sdk_file!("c/full.c"), sdk_file!("c/full.json")),
        Hook::Routing => {
            ("least_loaded", sdk_file!("c/least_loaded.c"), sdk_file!("c/least_loaded.json"))
        }
        Hook::Degradation => ("calm", sdk_file!("c/calm.c"), sdk_file!("c/calm.json")),
        Hook::Scenario => ("by_device", sdk_file!("c/by_device.c"), sdk_file!("c/by_device.json")),
    };
    let named = format!("{}-c", example.replace('_', "-"));
    let files = [
        ("policy.c", source.replace(&format!("{example}.json"), "manifest.json")),
        ("manifest.json", renamed(manifest, &named, name)),
        ("evenkeel_policy.h", sdk_file!("c/evenkeel_policy.h").to_owned()),
        ("evenkeel_registry.h", sdk_file!("c/evenkeel_registry.h").to_owned()),
        ("README.md", readme(include_str!("../templates/README.c.md"), name, hook)),
        (".gitignore", format!("/build\n/{name}.wasm\n")),
    ];
    with_shared(&files, hook)
}

fn javascript_files(name: &str) -> Vec<(PathBuf, String)> {
    let hook = Hook::Degradation;
    // The project has the WIT in its own folder, and not beside it.
    let inside = |text: &str| text.replace("'..', 'wit'", "'wit'").replace("../wit/", "wit/");
    let package = |text: &str| renamed(text, "evenkeel-policy-in-javascript", name);
    let script = "node build.mjs calm.js calm.json degradation-policy calm.wasm";
    let own_script = "node build.mjs policy.js manifest.json degradation-policy";
    let files = [
        ("policy.js", inside(sdk_file!("js/calm.js"))),
        ("manifest.json", renamed(sdk_file!("js/calm.json"), "calm-js", name)),
        ("build.mjs", inside(sdk_file!("js/build.mjs"))),
        ("registry.js", inside(sdk_file!("js/registry.js"))),
        ("package.json", package(&sdk_file!("js/package.json").replace(script, own_script))),
        ("package-lock.json", package(sdk_file!("js/package-lock.json"))),
        ("wit/policy.wit", sdk_file!("wit/policy.wit").to_owned()),
        ("README.md", readme(include_str!("../templates/README.js.md"), name, hook)),
        (".gitignore", format!("/build\n/node_modules\n/{name}.wasm\n")),
    ];
    with_shared(&files, hook)
}

/// The manifest with another name, which is a value in it.
fn renamed(manifest: &str, from: &str, to: &str) -> String {
    manifest.replace(&format!("\"{from}\""), &format!("\"{to}\""))
}

/// These files, and those that projects in any language but Rust have.
fn with_shared(files: &[(&str, String)], hook: Hook) -> Vec<(PathBuf, String)> {
    let cases = match hook {
        Hook::Admission => include_str!("../templates/cases/admission.toml"),
        Hook::Routing => include_str!("../templates/cases/routing.toml"),
        Hook::Degradation => include_str!("../templates/cases/degradation.toml"),
        Hook::Scenario => include_str!("../templates/cases/scenario.toml"),
    };
    let shared = [
        (format!("tests/{}.toml", hook.name()), cases),
        ("REFERENCE.md".to_owned(), sdk_file!("REFERENCE.md")),
        ("LICENSE-APACHE".to_owned(), include_str!("../../../LICENSE-APACHE")),
        ("LICENSE-MIT".to_owned(), include_str!("../../../LICENSE-MIT")),
    ];
    let own = files.iter().map(|(path, text)| (path.into(), text.clone()));
    own.chain(shared.map(|(path, text)| (path.into(), text.to_owned()))).collect()
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
