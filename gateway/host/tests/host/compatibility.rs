//! Plugins compiled against a released contract run on every later gateway.

use std::collections::BTreeMap;

use crate::contract::registry::RegistryEntry;
use crate::contract::{Interface, Named, Wit, read, releases, tables};

/// Changes of the WIT that would break plugins of the release, each as a sentence.
///
/// Exported and parsed types may not change at all, so that additions are whole interfaces and
/// worlds. Only functions that plugins import may be added.
fn wit_breaks(released: &str, now: &str) -> Vec<String> {
    let (old, new) = (Wit::parse(released), Wit::parse(now));
    let (old_all, new_all) = (old.interfaces(), new.interfaces());
    let (old_worlds, new_worlds) = (old.worlds(), new.worlds());
    let exported = |name: &str| {
        old_worlds.values().flatten().any(|item| item.strip_prefix("export ") == Some(name))
    };
    let mut breaks = Vec::new();
    for (name, before) in &old_all {
        match new_all.get(name) {
            None => breaks.push(format!("interface {name}: it is gone")),
            Some(after) => breaks.extend(interface_breaks(name, before, after, exported(name))),
        }
    }
    for (name, before) in &old_worlds {
        match new_worlds.get(name) {
            Some(after) if after == before => {}
            after => breaks.push(format!("world {name}: was {before:?}, is {after:?}")),
        }
    }
    let added = new_all.len() > old_all.len() || new_worlds.len() > old_worlds.len();
    if breaks.is_empty() && added && new.version == old.version {
        let version = old.version;
        breaks
            .push(format!("package: something was added to version {version}, which is released"));
    }
    breaks
}

fn interface_breaks(name: &str, old: &Interface, new: &Interface, exported: bool) -> Vec<String> {
    let mut breaks = named_breaks(&format!("{name}: type"), &old.types, &new.types, false);
    let only_imported = !exported && !old.functions.is_empty();
    let functions = format!("{name}: function");
    breaks.extend(named_breaks(&functions, &old.functions, &new.functions, only_imported));
    breaks
}

fn named_breaks(of: &str, old: &[Named], new: &[Named], may_grow: bool) -> Vec<String> {
    let mut breaks = Vec::new();
    for before in old {
        match new.iter().find(|after| after.name == before.name) {
            None => breaks.push(format!("{of} {} is gone", before.name)),
            Some(after) if after.text != before.text => breaks
                .push(format!("{of} {} was `{}`, is `{}`", before.name, before.text, after.text)),
            Some(_) => {}
        }
    }
    let added = new.iter().filter(|after| old.iter().all(|before| before.name != after.name));
    if !may_grow {
        breaks.extend(added.map(|after| format!("{of} {} is new", after.name)));
    }
    breaks
}

/// Changes of the registry that would mislead plugins of the release, each as a sentence.
fn registry_breaks(released: &str, now: &str) -> Vec<String> {
    let old = tables(released).unwrap();
    let new = match tables(now) {
        Ok(new) => new,
        Err(wrong) => return vec![wrong],
    };
    let pairs = old.iter().map(|(&table, before)| (table, before, &new[table]));
    let each = |(table, before, after): (&str, &Vec<RegistryEntry>, &Vec<RegistryEntry>)| {
        before.iter().flat_map(|entry| entry_breaks(table, entry, after)).collect::<Vec<_>>()
    };
    pairs.flat_map(each).collect()
}

fn entry_breaks(table: &str, old: &RegistryEntry, new: &[RegistryEntry]) -> Vec<String> {
    let of = format!("[[{table}]] {} {}", old.number, old.name);
    let Some(after) = new.iter().find(|entry| entry.number == old.number) else {
        return vec![format!("{of}: it is gone, or has another number")];
    };
    let mut breaks = Vec::new();
    let mut says = |what: &str| breaks.push(format!("{of}: {what}"));
    if after.name != old.name {
        says(&format!("its name is {}", after.name));
    }
    if after.unit != old.unit {
        says(&format!("its unit was {}, is {}", old.unit, after.unit));
    }
    if after.flag != old.flag {
        says("it is a flag in one of them alone");
    }
    if let Some(of) = old.of.iter().find(|of| !after.of.contains(of)) {
        says(&format!("a {of} carries it no longer"));
    }
    if !after.values.starts_with(&old.values) {
        says(&format!("its values were {:?}, are {:?}", old.values, after.values));
    }
    let within = |(low, high): (i64, i64), (low_now, high_now)| low_now <= low && high_now >= high;
    let narrower = match (old.bounds, after.bounds) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(before), Some(after)) => !within(before, after),
    };
    if narrower {
        says(&format!("its bounds were {:?}, are {:?}", old.bounds, after.bounds));
    }
    breaks
}

#[test]
fn released_contracts_are_unchanged() {
    for release in releases() {
        let file = |name: &str| read(&format!("fixtures/{release}/{name}"));
        let mut breaks = wit_breaks(&file("policy.wit"), &read("wit/policy.wit"));
        breaks.extend(registry_breaks(&file("registry.toml"), &read("wit/registry.toml")));
        assert!(
            breaks.is_empty(),
            "plugins built for {release} would not run as they did:\n{}\n\
             Leave what is there as it is, and add an interface or a number beside it.",
            breaks.join("\n")
        );
    }
}

/// Applies a change to the WIT and returns the breaks found.
fn changed_wit(from: &str, to: &str) -> Vec<String> {
    let wit = read("wit/policy.wit");
    assert!(wit.contains(from), "`{from}` is in the contract");
    wit_breaks(&wit, &wit.replacen(from, to, 1))
}

#[test]
fn breaking_wit_changes_are_named() {
    let action = "record action { row: u32, op: u32, arg: u64, reason: u32 }";
    let changes = [
        (
            "a record grows",
            action,
            "record action { row: u32, op: u32, arg: u64, reason: u32, note: u32 }",
            "degradation: type action was",
        ),
        (
            "a record shrinks",
            action,
            "record action { row: u32, op: u32, arg: u64 }",
            "degradation: type action was",
        ),
        (
            "fields change places",
            action,
            "record action { op: u32, row: u32, arg: u64, reason: u32 }",
            "degradation: type action was",
        ),
        (
            "a field has another type",
            action,
            "record action { row: u32, op: u32, arg: s64, reason: u32 }",
            "degradation: type action was",
        ),
        (
            "a case is added",
            "    reject(u32),",
            "    reject(u32), queue(u32),",
            "admission: type verdict was",
        ),
        ("a case is renamed", "    abstain,", "    refrain,", "admission: type verdict was"),
        (
            "an alias changes",
            "type node-id = u32;",
            "type node-id = u64;",
            "types: type node-id was",
        ),
        (
            "a shared record grows",
            "record label { key: string, value: string }",
            "record label { key: string, value: string, of: u32 }",
            "types: type label was",
        ),
        (
            "a parameter is added",
            "tick: func(now-us: u64,",
            "tick: func(now-us: u64, pace: u32,",
            "degradation: function tick was",
        ),
        ("a result changes", "-> result<blobs, string>", "-> blobs", "guest: function migrate was"),
        ("a function is renamed", "place: func(", "put: func(", "routing: function place is gone"),
        (
            "an exported function is added",
            "catalog: func(",
            "wake: func();\n  catalog: func(",
            "guest: function wake is new",
        ),
        (
            "a type is added",
            "record keep {",
            "record key { at: u32 }\n  record keep {",
            "types: type key is new",
        ),
        (
            "an imported function is taken away",
            "note: func(row: u32, key: string, value: s64);",
            "",
            "diag: function note is gone",
        ),
        ("an interface is taken away", "export scenario;", "", "world scenario-policy: was"),
        (
            "a world asks for more",
            "world routing-policy { import diag;",
            "world routing-policy { import diag; export scenario;",
            "world routing-policy: was",
        ),
        (
            "an interface is added without a version",
            "world admission-policy",
            "interface extra { go: func(); }\nworld admission-policy",
            "package: something was added to version",
        ),
    ];
    for (what, from, to, said) in changes {
        let breaks = changed_wit(from, to);
        assert!(breaks.iter().any(|sentence| sentence.contains(said)), "{what}: {breaks:?}");
    }
}

#[test]
fn wit_additions_are_compatible() {
    let none: [String; 0] = [];
    assert_eq!(changed_wit("/// May this session come in?", "/// Who may come in?"), none);
    let said = "log: func(level: u8, message: string);";
    let more = "log: func(level: u8, message: string);\n  count: func(key: string, by: u64);";
    assert_eq!(
        changed_wit(said, more),
        none,
        "the gateway has it where an older plugin asks for less"
    );
    let wit = read("wit/policy.wit");
    let more = "interface extra { go: func(); }\nworld extra-policy { export extra; }\nworld admission-policy";
    let more = wit.replace("@0.1.1;", "@0.1.2;").replacen("world admission-policy", more, 1);
    assert_eq!(wit_breaks(&wit, &more), none);
}

/// Applies a change to the registry and returns the breaks found.
fn changed_registry(from: &str, to: &str) -> Vec<String> {
    let registry = read("wit/registry.toml");
    assert!(registry.contains(from), "`{from}` is in the registry");
    registry_breaks(&registry, &registry.replacen(from, to, 1))
}

#[test]
fn breaking_registry_changes_are_named() {
    let changes = [
        (
            "a metric is renumbered",
            "number = 9\nname = \"cap\"",
            "number = 31\nname = \"cap\"",
            "[[metric]] 9 cap: it is gone",
        ),
        (
            "a metric is renamed",
            "name = \"rtt-client\"",
            "name = \"rtt\"",
            "[[metric]] 5 rtt-client: its name is rtt",
        ),
        (
            "a unit changes",
            "name = \"age\"\nunit = \"ms\"",
            "name = \"age\"\nunit = \"us\"",
            "[[metric]] 11 age: its unit was ms, is us",
        ),
        (
            "a number is there twice",
            "number = 2\nname = \"loss-down\"",
            "number = 1\nname = \"loss-down\"",
            "its number or name is taken by",
        ),
        (
            "a name is there twice",
            "name = \"loss-down\"",
            "name = \"loss-up\"",
            "its number or name is taken by",
        ),
        (
            "rows carry it no longer",
            "of = [\"session\", \"room\"]",
            "of = [\"session\"]",
            "[[metric]] 1 loss-up: a room carries it no longer",
        ),
        (
            "values change their order",
            "[\"closed\", \"open\", \"half-open\"]",
            "[\"open\", \"closed\", \"half-open\"]",
            "[[metric]] 40 breaker: its values were",
        ),
        (
            "a number becomes a flag",
            "name = \"sessions\"\nunit = \"count\"",
            "name = \"sessions\"\nunit = \"count\"\nflag = true",
            "[[metric]] 13 sessions: it is a flag",
        ),
        (
            "bounds are narrower",
            "bounds = [0, 100]",
            "bounds = [0, 99]",
            "[[param]] 5 priority: its bounds were",
        ),
        (
            "an action is renumbered",
            "number = 2\nname = \"voice-only\"",
            "number = 9\nname = \"voice-only\"",
            "[[op]] 2 voice-only: it is gone",
        ),
        (
            "a parameter is renamed",
            "name = \"spares\"",
            "name = \"spare-count\"",
            "[[param]] 3 spares: its name is spare-count",
        ),
        (
            "a label is renamed",
            "name = \"battery\"",
            "name = \"power\"",
            "[[label]] 7 battery: its name is power",
        ),
        (
            "a kind is renumbered",
            "number = 4\nname = \"home\"",
            "number = 5\nname = \"home\"",
            "[[entry-kind]] 4 home: it is gone",
        ),
        (
            "a reason is one of the plugins'",
            "number = 65536",
            "number = 65535",
            "numbers below 65536 are the plugins'",
        ),
        (
            "a unit that nobody knows",
            "unit = \"permille\"",
            "unit = \"percent\"",
            "unit `percent` is none of",
        ),
        ("a key that nobody reads", "flag = true", "flags = true", "`flags` is none of"),
        (
            "a column about both",
            "of = [\"region\"]",
            "of = [\"region\", \"room\"]",
            "a column is about sessions and rooms or",
        ),
        ("a table that nobody reads", "[[op]]", "[[ops]]", "[[ops]] is no table"),
    ];
    for (what, from, to, said) in changes {
        let breaks = changed_registry(from, to);
        assert!(breaks.iter().any(|sentence| sentence.contains(said)), "{what}: {breaks:?}");
    }
}

#[test]
fn registry_additions_are_compatible() {
    let more = "[[metric]]\nnumber = 99\nname = \"freezes\"\nunit = \"ms\"\nof = [\"session\"]\ndoc = \"Frozen.\"\n\n[[op]]";
    let changes = [
        ("a metric is added", "[[op]]", more),
        ("more rows carry it", "of = [\"session\"]", "of = [\"session\", \"room\"]"),
        ("a value is added", "\"half-open\"]", "\"half-open\", \"forced\"]"),
        ("bounds are wider", "bounds = [0, 100]", "bounds = [-1, 100]"),
        (
            "a sentence is clearer",
            "doc = \"Bit rate from the session.\"",
            "doc = \"Bit rate from the session to the gateway.\"",
        ),
    ];
    let breaks: BTreeMap<_, _> =
        changes.into_iter().map(|(what, from, to)| (what, changed_registry(from, to))).collect();
    assert!(breaks.values().all(Vec::is_empty), "{breaks:?}");
}
