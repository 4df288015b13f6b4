//! The manifests of the SDK's crates, which inherit from this workspace, and in a project from one of their own.

use toml::{Table, Value};

/// A crate of the SDK, with the names of the dependencies that its build needs.
pub(crate) struct Needs {
    pub(crate) name: String,
    pub(crate) dependencies: Vec<String>,
}

impl Needs {
    pub(crate) fn of(manifest: &Table) -> Result<Needs, String> {
        let name = manifest.get("package").and_then(|package| package.get("name"));
        let name = name.and_then(Value::as_str).ok_or("a crate of the SDK has no name")?;
        let tables = ["dependencies", "build-dependencies"].map(|kind| manifest.get(kind));
        let tables = tables.into_iter().flatten().filter_map(Value::as_table);
        let dependencies = tables.flat_map(Table::keys).cloned().collect();
        Ok(Needs { name: name.to_owned(), dependencies })
    }
}

/// The part of this workspace from which these crates inherit, for the manifest of the SDK.
pub(crate) fn workspace(root: &Table, crates: &[Needs]) -> Result<String, String> {
    let mut dependencies = Table::new();
    for (name, dependency) in table(root, &["workspace", "dependencies"])? {
        if !crates.iter().any(|needs| needs.dependencies.contains(name)) {
            continue;
        }
        let mut dependency = dependency.clone();
        if let Some(Value::String(path)) = dependency.get_mut("path") {
            let within = path.strip_prefix("plugin-sdk/");
            *path =
                within.ok_or_else(|| format!("the SDK needs {name}, which is not in it"))?.into();
        }
        dependencies.insert(name.clone(), dependency);
    }
    let mut own = Table::from_iter([("dependencies".to_owned(), Value::Table(dependencies))]);
    own.insert("package".to_owned(), Value::Table(table(root, &["workspace", "package"])?.clone()));
    // Crates of the SDK inherit lints, of which an author's build needs none.
    own.insert("lints".to_owned(), Value::Table(Table::new()));
    Ok(Table::from_iter([("workspace".to_owned(), Value::Table(own))]).to_string())
}

/// The table at this path.
pub(crate) fn table<'a>(root: &'a Table, path: &[&str]) -> Result<&'a Table, String> {
    let found = path.iter().try_fold(root, |table, key| table.get(*key)?.as_table());
    found.ok_or_else(|| format!("Cargo.toml has no [{}]", path.join(".")))
}
