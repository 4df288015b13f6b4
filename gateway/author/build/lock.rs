//! The part of the workspace's lock file that the SDK needs.

use std::collections::BTreeMap;

use toml::{Table, Value};

use crate::manifest::Needs;

/// Name and version of a crate. A lock file may hold several versions of one crate.
type CrateId = (String, String);

/// The entries of the SDK's crates and of all their dependencies, by name.
pub(crate) fn part(lock: &Table, crates: &[Needs]) -> Result<Vec<(String, String)>, String> {
    let packages =
        lock.get("package").and_then(Value::as_array).ok_or("Cargo.lock has no packages")?;
    let packages: BTreeMap<CrateId, &Table> =
        packages.iter().filter_map(Value::as_table).map(|table| (key(table), table)).collect();
    let find = |wanted: &str| -> Result<CrateId, String> {
        let (name, version) = split(wanted);
        let mut found = packages
            .keys()
            .filter(|key| key.0 == name && version.is_none_or(|version| key.1 == version));
        found.next().cloned().ok_or_else(|| format!("Cargo.lock does not have {wanted}"))
    };

    let mut part: BTreeMap<CrateId, Vec<CrateId>> = BTreeMap::new();
    let mut open: Vec<CrateId> =
        crates.iter().map(|needs| find(&needs.name)).collect::<Result<_, _>>()?;
    while let Some(at) = open.pop() {
        if part.contains_key(&at) {
            continue;
        }
        let own = crates.iter().find(|needs| needs.name == at.0);
        let mut needed = Vec::new();
        for wanted in dependencies(packages[&at]) {
            // The SDK's tests are not embedded, nor are their dependencies.
            if own.is_none_or(|own| own.dependencies.iter().any(|name| name == split(wanted).0)) {
                needed.push(find(wanted)?);
            }
        }
        open.extend(needed.iter().cloned());
        part.insert(at, needed);
    }
    Ok(part.iter().map(|(at, needed)| (at.0.clone(), entry(packages[at], needed, &part))).collect())
}

fn entry(package: &Table, needed: &[CrateId], part: &BTreeMap<CrateId, Vec<CrateId>>) -> String {
    let mut text = "[[package]]\n".to_owned();
    for field in ["name", "version", "source", "checksum"] {
        if let Some(value) = package.get(field) {
            text += &format!("{field} = {value}\n");
        }
    }
    if !needed.is_empty() {
        text += "dependencies = [\n";
        for (name, version) in needed {
            // Cargo writes the version of a dependency only if the lock file has several versions of that crate.
            let several = part.keys().filter(|key| key.0 == *name).count() > 1;
            text += &if several {
                format!(" \"{name} {version}\",\n")
            } else {
                format!(" \"{name}\",\n")
            };
        }
        text += "]\n";
    }
    text
}

fn key(package: &Table) -> CrateId {
    let text = |field| package.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    (text("name"), text("version"))
}

fn dependencies(package: &Table) -> impl Iterator<Item = &str> {
    let list = package.get("dependencies").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str)
}

/// `name` or `name version`, followed by a source if even that is ambiguous.
fn split(wanted: &str) -> (&str, Option<&str>) {
    let mut words = wanted.split(' ');
    (words.next().unwrap_or_default(), words.next())
}
