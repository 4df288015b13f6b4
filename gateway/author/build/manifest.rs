//! A crate's manifest with values inherited from the workspace filled in.

use std::path::{Component, Path, PathBuf};

use toml::{Table, Value};

use crate::{context, read};

/// Kinds of dependencies needed to build the SDK.
const DEPENDENCIES: [&str; 2] = ["dependencies", "build-dependencies"];

/// Sections left out: lints, and sections for the SDK's own tests and examples.
const LEFT_OUT: [&str; 5] = ["lints", "dev-dependencies", "test", "bench", "example"];

/// The workspace, and the folder that is embedded.
pub(crate) struct Workspace {
    root: PathBuf,
    sdk: PathBuf,
    table: Table,
}

impl Workspace {
    pub(crate) fn read(root: &Path, sdk: &Path) -> Result<Workspace, String> {
        let path = root.join("Cargo.toml");
        let table = read(&path)?.parse().map_err(context(&path.to_string_lossy()))?;
        Ok(Workspace { root: root.into(), sdk: sdk.into(), table })
    }

    pub(crate) fn sdk(&self) -> &Path {
        &self.sdk
    }

    /// A key of `[workspace.package]`.
    pub(crate) fn package(&self, key: &str) -> Result<&str, String> {
        let value = self.inherited("package", key)?;
        value.as_str().ok_or_else(|| format!("workspace.package.{key} should be a text"))
    }

    /// The profile of shipped plugins, without inheritance.
    pub(crate) fn plugin_profile(&self) -> Result<String, String> {
        let profile = self.table.get("profile").and_then(|profiles| profiles.get("plugin"));
        let profile = profile.and_then(Value::as_table).ok_or("there is no [profile.plugin]")?;
        let mut profile = profile.clone();
        profile.remove("inherits");
        Ok(profile.to_string())
    }

    /// The manifest at `path`, with every `workspace = true` replaced.
    pub(crate) fn standalone(&self, path: &Path, text: &str) -> Result<Table, String> {
        let named = |error: String| format!("{}: {error}", path.display());
        let mut table: Table = text.parse().map_err(context(&path.to_string_lossy()))?;
        for key in LEFT_OUT {
            table.remove(key);
        }
        if let Some(Value::Table(package)) = table.get_mut("package") {
            for (key, value) in package.iter_mut().filter(|(_, value)| is_inherited(value)) {
                *value = self.inherited("package", key).map_err(named)?.clone();
            }
        }
        let folder = path.parent().ok_or_else(|| named("it is in no folder".into()))?;
        self.settle(&mut table, folder).map_err(named)?;
        if let Some(Value::Table(targets)) = table.get_mut("target") {
            for (_, target) in targets.iter_mut() {
                if let Value::Table(target) = target {
                    target.remove("dev-dependencies");
                    self.settle(target, folder).map_err(named)?;
                }
            }
        }
        Ok(table)
    }

    fn settle(&self, table: &mut Table, folder: &Path) -> Result<(), String> {
        for kind in DEPENDENCIES {
            let Some(Value::Table(dependencies)) = table.get_mut(kind) else { continue };
            for (name, dependency) in dependencies.iter_mut() {
                *dependency = self.dependency(name, dependency, folder)?;
            }
        }
        Ok(())
    }

    /// A dependency of a crate in `folder`, merged with the workspace's entry.
    fn dependency(&self, name: &str, own: &Value, folder: &Path) -> Result<Value, String> {
        let mut whole = match own {
            Value::Table(own) if is_inherited(&Value::Table(own.clone())) => {
                let mut whole = match self.inherited("dependencies", name)? {
                    Value::Table(whole) => whole.clone(),
                    version => Table::from_iter([("version".to_owned(), version.clone())]),
                };
                if let Some(Value::String(path)) = whole.get_mut("path") {
                    *path = self.root.join(&*path).to_string_lossy().into_owned();
                }
                for (key, value) in own.iter().filter(|(key, _)| *key != "workspace") {
                    match (whole.get_mut(key), value) {
                        (Some(Value::Array(all)), Value::Array(more)) => all.extend(more.clone()),
                        _ => drop(whole.insert(key.clone(), value.clone())),
                    }
                }
                whole
            }
            Value::Table(own) => own.clone(),
            version => return Ok(version.clone()),
        };
        if let Some(Value::String(path)) = whole.get_mut("path") {
            *path = self.within(name, &folder.join(&*path), folder)?;
        }
        Ok(Value::Table(whole))
    }

    /// The path from `folder` to an embedded crate.
    fn within(&self, name: &str, path: &Path, folder: &Path) -> Result<String, String> {
        let path = path.canonicalize().map_err(context(name))?;
        if !path.starts_with(&self.sdk) {
            return Err(format!(
                "it depends on {name}, which is not in {} and cannot be written beside a new project",
                self.sdk.display()
            ));
        }
        let shared = path.components().zip(folder.components()).take_while(|(a, b)| a == b).count();
        let up = folder.components().skip(shared).map(|_| Component::ParentDir);
        let way: PathBuf = up.chain(path.components().skip(shared)).collect();
        Ok(way.to_string_lossy().into_owned())
    }

    fn inherited(&self, of: &str, key: &str) -> Result<&Value, String> {
        let table = self.table.get("workspace").and_then(|workspace| workspace.get(of));
        table
            .and_then(|table| table.get(key))
            .ok_or_else(|| format!("workspace.{of}.{key} is not there"))
    }
}

fn is_inherited(value: &Value) -> bool {
    value.get("workspace").and_then(Value::as_bool) == Some(true)
}

/// An embedded crate, with the names of its dependencies.
pub(crate) struct Needs {
    pub(crate) name: String,
    pub(crate) dependencies: Vec<String>,
}

impl Needs {
    pub(crate) fn of(manifest: &Table) -> Result<Needs, String> {
        let name = manifest.get("package").and_then(|package| package.get("name"));
        let name = name.and_then(Value::as_str).ok_or("a crate of the SDK has no name")?;
        let own = std::iter::once(manifest);
        let targets = manifest.get("target").and_then(Value::as_table);
        let targets = targets.into_iter().flat_map(Table::values).filter_map(Value::as_table);
        let mut dependencies = Vec::new();
        for table in own.chain(targets) {
            for kind in DEPENDENCIES {
                let all = table.get(kind).and_then(Value::as_table).into_iter().flatten();
                dependencies.extend(all.map(|(key, dependency)| {
                    let renamed = dependency.get("package").and_then(Value::as_str);
                    renamed.unwrap_or(key).to_owned()
                }));
            }
        }
        Ok(Needs { name: name.to_owned(), dependencies })
    }
}
