//! The generated workspace: each plugin with a switch at each point of its source.

use std::fs;
use std::path::{Path, PathBuf};

use quote::ToTokens;
use syn::visit_mut::VisitMut;
use syn::{Attribute, File, Item, parse_quote};

use crate::active;
use crate::operators::{MutationPoint, Mutator, unit_variants};
use crate::plugins::{PLUGINS, PluginSource};

/// A plugin with switches.
#[derive(Clone, PartialEq, Debug)]
pub struct MutatedPlugin {
    /// Files below `src`, by name, with their text.
    pub files: Vec<(PathBuf, String)>,
    /// The points, by their numbers.
    pub points: Vec<MutationPoint>,
}

impl MutatedPlugin {
    /// Puts switches into a plugin of the repository at `root`. The same source has the same points.
    ///
    /// # Errors
    /// The source cannot be read.
    pub fn read(root: &Path, plugin: &PluginSource) -> Result<MutatedPlugin, String> {
        let folder = root.join("plugins").join(plugin.folder).join("src");
        let mut names = Vec::new();
        list(&folder, Path::new(""), &mut names)?;
        names.sort();
        let mut files = Vec::new();
        for name in names {
            let path = folder.join(&name);
            let wrong = |why: String| format!("{}: {why}", path.display());
            let text = fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
            let file = syn::parse_file(&text).map_err(|error| wrong(error.to_string()))?;
            files.push((name, file));
        }
        Ok(MutatedPlugin::of(files))
    }

    fn of(mut files: Vec<(PathBuf, File)>) -> MutatedPlugin {
        files.iter_mut().for_each(|(_, file)| file.items.retain(|item| !is_test(item)));
        let variants = unit_variants(files.iter().map(|(_, file)| file));
        let mut mutator = Mutator { variants: &variants, file: String::new(), points: Vec::new() };
        let mut written = vec![(PathBuf::from("mutant.rs"), active::module())];
        for (name, mut file) in files {
            mutator.file = name.display().to_string();
            mutator.visit_file_mut(&mut file);
            if name == Path::new("lib.rs") {
                let switch: Item = parse_quote! { mod mutant; };
                file.items.insert(0, switch);
                file.attrs.push(parse_quote!(#![allow(warnings)]));
                // Lints that are errors by themselves.
                file.attrs.push(parse_quote!(
                    #![allow(arithmetic_overflow, overflowing_literals, unconditional_panic)]
                ));
            }
            written.push((name, file.to_token_stream().to_string()));
        }
        MutatedPlugin { files: written, points: mutator.points }
    }
}

/// Source files below a folder, without those of tests.
fn list(folder: &Path, below: &Path, names: &mut Vec<PathBuf>) -> Result<(), String> {
    let wrong = |error: std::io::Error| format!("{}: {error}", folder.display());
    for entry in fs::read_dir(folder.join(below)).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        let Some(name) = path.file_name() else { continue };
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            continue;
        }
        if path.is_dir() {
            list(folder, &below.join(name), names)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            names.push(below.join(name));
        }
    }
    Ok(())
}

/// True for a module of tests.
fn is_test(item: &Item) -> bool {
    let is_test = |attribute: &Attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    };
    matches!(item, Item::Mod(module) if module.attrs.iter().any(is_test))
}

/// Writes the workspace of all plugins of the repository at `root`. Files with the same text keep their times.
///
/// # Errors
/// A source cannot be read, or a file cannot be written.
pub fn write(root: &Path, out: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", root.display());
    let root = fs::canonicalize(root).map_err(failed)?;
    let members: Vec<&str> = PLUGINS.iter().map(|plugin| plugin.name).collect();
    write_file(&out.join("Cargo.toml"), &workspace(&members))?;
    // The same dependencies as those of the plugins; cargo drops the others.
    let lock = root.join("Cargo.lock");
    let locked =
        fs::read_to_string(&lock).map_err(|error| format!("{}: {error}", lock.display()))?;
    write_file(&out.join("Cargo.lock"), &locked)?;
    for plugin in PLUGINS {
        let folder = out.join(plugin.name);
        write_file(&folder.join("Cargo.toml"), &manifest(plugin.name, &root))?;
        for (name, text) in MutatedPlugin::read(&root, &plugin)?.files {
            write_file(&folder.join("src").join(name), &text)?;
        }
    }
    Ok(())
}

fn workspace(members: &[&str]) -> String {
    format!(
        "[workspace]\nresolver = \"3\"\nmembers = {members:?}\n\n\
         [profile.plugin]\ninherits = \"release\"\nlto = \"fat\"\ncodegen-units = 1\nopt-level = 3\nstrip = \"debuginfo\"\n"
    )
}

fn manifest(name: &str, root: &Path) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let sdk = root.join("plugin-sdk");
    format!(
        "[package]\nname = {name:?}\nversion = {version:?}\nedition = \"2024\"\npublish = false\n\n\
         [lib]\ncrate-type = [\"cdylib\"]\n\n\
         [dependencies]\nevenkeel-plugin-sdk = {{ path = {sdk:?} }}\n"
    )
}

fn write_file(path: &Path, text: &str) -> Result<(), String> {
    if fs::read_to_string(path).is_ok_and(|standing| standing == text) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(path, text));
    written.map_err(|error| format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tempfile::tempdir;

    use super::*;

    const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

    #[test]
    fn each_plugin_has_points_and_parses() {
        for plugin in PLUGINS {
            let mutated = MutatedPlugin::read(Path::new(ROOT), &plugin).unwrap();
            assert!(mutated.points.len() > 5, "{}: {}", plugin.name, mutated.points.len());
            let mut switches = 0;
            for (name, text) in &mutated.files {
                syn::parse_file(text).unwrap_or_else(|error| panic!("{}: {error}", name.display()));
                let text: String = text.split_whitespace().collect();
                switches += text.matches("crate::mutant::is(").count();
                assert!(!text.contains("cfg(test)"), "{}", name.display());
            }
            assert_eq!(switches, mutated.points.len(), "{}", plugin.name);
        }
    }

    #[test]
    fn operators_occur_in_plugins() {
        let mutated = PLUGINS.map(|it| MutatedPlugin::read(Path::new(ROOT), &it).unwrap());
        let found: BTreeSet<&str> =
            mutated.iter().flat_map(|it| &it.points).map(|point| &*point.operator).collect();
        let expected = [
            "arithmetic",
            "boundary",
            "branches",
            "comparison",
            "constant",
            "deletion",
            "logic",
            "method",
            "negation",
            "nothing",
            "variant",
        ];
        assert_eq!(found, BTreeSet::from(expected));
    }

    #[test]
    fn workspace_has_each_plugin_with_its_package() {
        let out = tempdir().unwrap();
        write(Path::new(ROOT), out.path()).unwrap();
        let read = |name: &str| fs::read_to_string(out.path().join(name)).unwrap();
        let workspace: toml::Table = read("Cargo.toml").parse().unwrap();
        assert_eq!(workspace["workspace"]["members"].as_array().unwrap().len(), PLUGINS.len());
        let manifest: toml::Table = read("route-nearest/Cargo.toml").parse().unwrap();
        assert_eq!(manifest["package"]["name"].as_str(), Some("route-nearest"));
        let sdk = manifest["dependencies"]["evenkeel-plugin-sdk"]["path"].as_str().unwrap();
        assert!(Path::new(sdk).join("Cargo.toml").exists(), "{sdk}");
        let library = read("route-nearest/src/lib.rs");
        let library: String = library.split_whitespace().collect();
        assert!(library.contains("modmutant;"), "{library}");
        assert!(out.path().join("route-nearest/src/choice.rs").exists());
        assert!(!out.path().join("route-nearest/src/tests.rs").exists());
    }
}
