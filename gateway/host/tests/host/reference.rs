//! Generates `REFERENCE.md`, the bindings of the Rust SDK, and the registry's numbers for C and JavaScript.

use std::fmt::Write as _;
use std::time::Duration;

use evenkeel_host::CallBudgets;
use evenkeel_host::limits::{
    BINARY_BYTES_MAX, DEFAULTS_BYTES_MAX, DIAG_CALLS_MAX, DOCUMENT_BYTES_MAX, DOCUMENTS_MAX,
    LINE_BYTES_MAX, LINES_BURST, LINES_PER_SECOND, LOOKUP_BYTES_MAX, LOOKUP_PARTS_MAX,
    LOOKUP_PATH_BYTES_MAX, MANIFEST_BYTES_MAX, MEMO_BYTES_MAX, MEMORY_BYTES_MAX,
    NOTE_KEY_BYTES_MAX, NOTES_MAX, REASONS_MAX, STATE_BYTES_MAX, TABLE_ENTRIES_MAX,
};
use serde_json::{Value, json};
use wit_bindgen_core::{Files, WorldGenerator};
use wit_bindgen_rust::{Opts, WithOption};
use wit_parser::Resolve;
use wit_parser::abi::{AbiVariant, WasmType};

use crate::contract::registry::{RegistryEntry, UNITS};
use crate::contract::{Interface, Wit, read, releases, sdk, tables};
use crate::plugin::{bare, with_section};

/// If set, the tests write the files instead of comparing them (`make reference`).
const RENEW: &str = "EVENKEEL_RENEW";

/// A field of the manifest, documented in the reference and tested.
struct Field {
    name: &'static str,
    form: &'static str,
    /// The field's default; `None` if it is required.
    otherwise: Option<&'static str>,
    doc: &'static str,
}

const FIELDS: &[Field] = &[
    Field {
        name: "name",
        form: "string",
        otherwise: None,
        doc: "1 to 64 lower-case letters, digits and hyphens. Revisions of one plugin share it, and their states.",
    },
    Field {
        name: "version",
        form: "string",
        otherwise: None,
        doc: "At most 64 printable ASCII characters; orders the plugin's versions.",
    },
    Field {
        name: "contract",
        form: "string",
        otherwise: None,
        doc: "The version of the contract that it was built for: `0.1.1`. A gateway accepts versions that differ from its own in the last number only.",
    },
    Field {
        name: "hooks",
        form: "list of strings",
        otherwise: None,
        doc: "The exported hooks, at least one of `admission`, `routing`, `degradation` and `scenario`. Unknown names are ignored.",
    },
    Field {
        name: "settings",
        form: "object",
        otherwise: None,
        doc: "The JSON Schema of its settings, with `\"type\": \"object\"`.",
    },
    Field {
        name: "data",
        form: "object",
        otherwise: Some("none"),
        doc: "The JSON Schemas of the data documents in which it looks up, by name, each with `\"type\": \"object\"`. A name has 1 to 64 lower-case letters, digits and hyphens.",
    },
    Field {
        name: "state_schema",
        form: "number",
        otherwise: Some("0"),
        doc: "Increment it whenever the format of states or memo changes.",
    },
    Field {
        name: "subject_metrics",
        form: "list of numbers",
        otherwise: Some("none"),
        doc: "Metrics of sessions and rooms it reads: the columns of those frames, in this order. `grant` omits unknown numbers.",
    },
    Field {
        name: "node_metrics",
        form: "list of numbers",
        otherwise: Some("none"),
        doc: "The same for nodes and regions.",
    },
    Field {
        name: "ops",
        form: "list of numbers",
        otherwise: Some("none"),
        doc: "Actions it takes. Other actions in its answers are dropped and counted.",
    },
    Field {
        name: "reasons",
        form: "list of `{\"number\": 1, \"name\": \"…\"}`",
        otherwise: Some("none"),
        doc: "Names of its own reasons, 1 to 64 lower-case letters, digits and hyphens each, with distinct numbers from 1 to 65,535.",
    },
    Field {
        name: "cost",
        form: "object of `{\"tick\": {\"call\": 2000, \"row\": 300}}`",
        otherwise: Some("none"),
        doc: "Declared upper bound by call, in WebAssembly instructions: a constant part and a part per row. Rows are regions of `admit`, nodes of `place`, rooms of `reroute`, sessions of `tick`; `resolve` has none. Checked by `evenkeel plugin bench` and `plugin test --recording`, not by gateways.",
    },
];

/// Every generated file: path below the SDK's folder, and text.
fn files() -> Vec<(String, String)> {
    let modules = ["guest", "data", "admission", "routing", "degradation", "scenario"];
    let bindings = modules.map(|name| (format!("src/wit/{name}.rs"), bindings(name)));
    let mut files = vec![
        ("REFERENCE.md".to_owned(), reference()),
        ("c/evenkeel_registry.h".to_owned(), c_header()),
        ("js/registry.js".to_owned(), javascript()),
    ];
    files.extend(bindings);
    files
}

/// The Rust SDK's bindings of the interface that all plugins export, of a hook's, or of `data`, which plugins import.
fn bindings(module: &str) -> String {
    let is_import = module == "data";
    let word = if is_import { "import" } else { "export" };
    let (mut world, mut items) =
        (module.to_owned(), format!("{word} evenkeel:policy/{module}@0.1.1;"));
    let mut options = Opts {
        format: true,
        pub_export_macro: !is_import,
        export_macro_name: (!is_import).then(|| format!("export_{module}")),
        default_bindings_module: Some(format!("evenkeel_plugin_sdk::wit::{module}")),
        generate_all: true,
        ..Opts::default()
    };
    if module == "guest" {
        items.insert_str(0, "import evenkeel:policy/diag@0.1.1; ");
    } else if is_import {
        world += "-reader";
    } else {
        world += "-hook";
        let types = WithOption::Path("crate::wit::guest::evenkeel::policy::types".to_owned());
        options.with.push(("evenkeel:policy/types@0.1.1".to_owned(), types));
    }
    let mut resolve = Resolve::default();
    resolve.push_path(sdk().join("wit")).unwrap();
    let text = format!("package evenkeel:sdk; world {world} {{ {items} }}");
    let package = resolve.push_source("sdk.wit", &text).unwrap();
    let world = resolve.select_world(&[package], Some(&world)).unwrap();
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files).unwrap();
    let (_, text) = files.iter().next().unwrap();
    String::from_utf8(text.to_vec()).unwrap()
}

#[test]
fn reference_matches_registry_wit_and_limits() {
    for (path, text) in files() {
        let file = sdk().join(&path);
        if std::env::var_os(RENEW).is_some() {
            std::fs::write(&file, &text).unwrap();
        }
        let there = std::fs::read_to_string(&file).unwrap_or_default();
        let first = there.lines().zip(text.lines()).position(|(there, right)| there != right);
        let line = first.unwrap_or(there.lines().count().min(text.lines().count())) + 1;
        assert!(
            there == text,
            "plugin-sdk/{path} is not up to date from line {line} on: run `make reference`"
        );
    }
}

#[test]
fn manifest_fields_match_the_reference() {
    let whole = json!({
        "name": "whole", "version": "1", "contract": "0.1.0", "hooks": ["scenario"],
        "settings": {"type": "object"}, "data": {}, "state_schema": 0, "subject_metrics": [], "node_metrics": [],
        "ops": [], "reasons": [], "cost": {}
    });
    let vet = |manifest: &Value| {
        let bytes = with_section(bare(), "evenkeel:manifest", manifest.to_string().as_bytes());
        evenkeel_host::Component::vet(crate::plugin::roomy(), &bytes)
            .map_err(|refused| refused.to_string())
    };
    let names: Vec<_> = FIELDS.iter().map(|field| field.name).collect();
    let keys: Vec<_> = whole.as_object().unwrap().keys().collect();
    assert!(
        names.iter().all(|name| keys.iter().any(|key| key == name)) && names.len() == keys.len()
    );
    for field in FIELDS {
        let mut without = whole.clone();
        without.as_object_mut().unwrap().remove(field.name);
        match (vet(&without), field.otherwise) {
            (Ok(_), Some(_)) => {}
            (Err(said), None) => assert!(said.contains(field.name), "{said}"),
            (outcome, _) => panic!("without {}: {:?}", field.name, outcome.err()),
        }
    }
    let mut more = whole;
    more["colour"] = json!("blue");
    assert!(vet(&more).is_ok(), "unknown fields are ignored");
}

fn reference() -> String {
    let wit = Wit::parse(&read("wit/policy.wit"));
    let mut out = format!(
        "# Reference of the contract between gateway and policies, version {}\n\n\
         Generated from [`wit/policy.wit`](wit/policy.wit), [`wit/registry.toml`](wit/registry.toml) and the limits of the\n\
         gateway by `make reference`; a test compares it with them. How to write a policy:\n\
         [`docs/policies.md`](../docs/policies.md).\n\n",
        wit.version
    );
    manifest(&mut out);
    interfaces(&mut out, &wit);
    limits(&mut out);
    numbers(&mut out);
    core_module(&mut out, &wit);
    out.trim_end().to_owned() + "\n"
}

fn manifest(out: &mut String) {
    *out += "## The manifest\n\nJSON in the custom section `evenkeel:manifest` of the plugin, once. The Rust SDK writes it. Unknown\n\
             fields are ignored.\n\n| field | type | default | |\n|---|---|---|---|\n";
    for Field { name, form, otherwise, doc } in FIELDS {
        row(out, &[&format!("`{name}`"), form, otherwise.unwrap_or("refused"), doc]);
    }
    *out += "\n**Settings** reach `init` as one JSON object, validated by the schema, with defaults filled in. The schema may use `type` \
             (one of `object`, `array`,\n`string`, `boolean`, `integer`, `number`), `properties`, `required`, `additionalProperties` (true, \
             false or a schema), `items`, `enum`,\n`minimum`, `maximum`, `default`, and of all patterns that of durations, \
             `^[0-9]+([.][0-9]+)?(ms|s|m|h)$`,\nand that of bit rates, `^[0-9]+([.][0-9]+)? (kbit/s|Mbit/s|Gbit/s)$`. `title`, `description`, `unit`, `examples`, `format`, `deprecated` and keywords that begin with `$` or `x-` \
             are annotations. A plugin with any other keyword in its\nschema is refused, since a bound that is not enforced is worse than none.\n\n\
             **Data documents** are objects that pass such a schema, with defaults filled in; one that nobody gave is `{}`.\n\n";
}

fn interfaces(out: &mut String, wit: &Wit) {
    let all = wit.interfaces();
    *out += "## The interfaces\n\nA plugin exports `guest` and the hooks that its manifest names, and imports `diag`, `data` or nothing.\n\n";
    for name in
        ["guest", "admission", "routing", "degradation", "scenario", "diag", "data", "types"]
    {
        interface(out, name, &all[name]);
    }
    assert_eq!(all.len(), 8, "the reference covers each interface");
}

fn interface(out: &mut String, name: &str, of: &Interface) {
    let _ = writeln!(out, "### `{name}`\n\n{}\n", of.doc);
    for function in &of.functions {
        let call = function.text.replacen("func", &function.name, 1);
        let _ = writeln!(out, "- `{call}` {}", function.doc);
    }
    for named in &of.types {
        let _ = writeln!(out, "- **{}**: `{}` {}", named.name, named.text, named.doc);
        for (part, of, doc) in named.parts.iter().filter(|(_, _, doc)| !doc.is_empty()) {
            let of = if of.is_empty() { String::new() } else { format!(": {of}") };
            let _ = writeln!(out, "  - `{part}{of}` {doc}");
        }
    }
    out.push('\n');
}

fn limits(out: &mut String) {
    let CallBudgets { init, catalog, migrate, open, admit, place, resolve, reroute, tick } =
        CallBudgets::default();
    *out += "## Time\n\nA call that takes longer is stopped, and the native default applies. `init` and `catalog` are \
             limited in processor time, the others in time on the wall clock.\n\n| call | at most |\n|---|---|\n";
    let calls: [(&str, Duration); 9] = [
        ("`init`, with creating the instance", init),
        ("`catalog`", catalog),
        ("`migrate`, `migrate-memo`", migrate),
        ("`open`", open),
        ("`admit`", admit),
        ("`place`", place),
        ("`resolve`", resolve),
        ("`reroute`", reroute),
        ("`tick`", tick),
    ];
    for (call, most) in calls {
        row(out, &[call, &format!("{} ms", most.as_millis())]);
    }
    *out += "\n## Space\n\n| of | at most |\n|---|---|\n";
    let sizes: [(&str, String); 16] = [
        ("a plugin's bytes", bytes(BINARY_BYTES_MAX)),
        ("its manifest", bytes(MANIFEST_BYTES_MAX)),
        ("reasons of its own", REASONS_MAX.to_string()),
        ("settings added by defaults", bytes(DEFAULTS_BYTES_MAX)),
        ("its data documents", DOCUMENTS_MAX.to_string()),
        ("a data document, as compact JSON", bytes(DOCUMENT_BYTES_MAX)),
        ("the value that a lookup returns", bytes(LOOKUP_BYTES_MAX)),
        (
            "the path of a lookup",
            format!("{LOOKUP_PARTS_MAX} parts, {}", bytes(LOOKUP_PATH_BYTES_MAX)),
        ),
        ("memory of an instance", bytes(MEMORY_BYTES_MAX)),
        ("entries of a function table", TABLE_ENTRIES_MAX.to_string()),
        ("the state of one session or room", bytes(STATE_BYTES_MAX)),
        ("a memo", bytes(MEMO_BYTES_MAX)),
        ("calls of `diag` in one call", DIAG_CALLS_MAX.to_string()),
        (
            "a log line",
            format!(
                "{}; {LINES_BURST} at once, {LINES_PER_SECOND} a second",
                bytes(LINE_BYTES_MAX)
            ),
        ),
        ("notes on one decision", NOTES_MAX.to_string()),
        ("the key of a note", bytes(NOTE_KEY_BYTES_MAX)),
    ];
    for (of, most) in sizes {
        row(out, &[of, &most]);
    }
    out.push('\n');
}

fn bytes(count: usize) -> String {
    match count {
        _ if count.is_multiple_of(1 << 20) => format!("{} MiB", count >> 20),
        _ if count.is_multiple_of(1 << 10) => format!("{} KiB", count >> 10),
        _ => format!("{count} B"),
    }
}

fn numbers(out: &mut String) {
    let now = tables(&read("wit/registry.toml")).unwrap();
    let released: Vec<_> = releases()
        .into_iter()
        .map(|release| {
            let tables = tables(&read(&format!("fixtures/{release}/registry.toml"))).unwrap();
            (release, tables)
        })
        .collect();
    let since = |table: &str, entry: &RegistryEntry| {
        let there =
            |entries: &[RegistryEntry]| entries.iter().any(|other| other.number == entry.number);
        let first = released.iter().find(|(_, tables)| there(&tables[table]));
        first.map_or("next", |(release, _)| release.as_str()).to_owned()
    };
    let units = UNITS.iter().map(|(unit, is)| format!("`{unit}` {is}"));
    let _ = writeln!(
        out,
        "## The registry\n\nNumbers are never reused; unknown ones are ignored by gateways and plugins. Units: {}.\n",
        units.collect::<Vec<_>>().join(", ")
    );

    *out += "### Metrics\n\nA cell of `0xffff_ffff` was not measured.\n\n| number | name | unit | of | since | |\n|---|---|---|---|---|---|\n";
    for entry in &now["metric"] {
        let values: Vec<_> =
            entry.values.iter().zip(0..).map(|(value, at)| format!("{at} `{value}`")).collect();
        let doc = if values.is_empty() {
            entry.doc.clone()
        } else {
            format!("{} ({})", entry.doc, values.join(", "))
        };
        row(
            out,
            &[
                &entry.number.to_string(),
                &format!("`{}`", entry.name),
                &entry.unit,
                &entry.of.join(", "),
                &since("metric", entry),
                &doc,
            ],
        );
    }
    let tables = [
        ("op", "### Actions\n\nThe unit is that of the argument.", true),
        (
            "param",
            "### Scenario parameters\n\nSent by name. A value outside its bounds is clamped.",
            true,
        ),
        (
            "reason",
            "### Reasons\n\nShared by all policies; a plugin's own reasons have lower numbers, and 0 is none.",
            false,
        ),
        ("label", "### Labels\n\nSent by name. Other keys may be sent too.", true),
        ("entry-kind", "### Kinds of catalog entries", false),
    ];
    for (table, head, units) in tables {
        let (heads, rule) = if units { (" unit | bounds |", "---|---|") } else { ("", "") };
        let _ = writeln!(
            out,
            "\n{head}\n\n| number | name |{heads} since | |\n|---|---|{rule}---|---|"
        );
        for entry in &now[table] {
            let bounds =
                entry.bounds.map_or(String::new(), |(low, high)| format!("{low} to {high}"));
            let (number, name) = (entry.number.to_string(), format!("`{}`", entry.name));
            let mut cells = vec![number, name];
            if units {
                cells.extend([entry.unit.clone(), bounds]);
            }
            cells.extend([since(table, entry), entry.doc.clone()]);
            row(out, &cells.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}

/// Describes the other way to call a core module.
const FLAT: &str = "
### Flat exports

A module may export each of these functions once more, with `flat_` before its name and the type `(i32) -> i32`, and with
`flat_reserve (i32) -> i32`. The gateway then calls these alone, without wrapping the module, and a call is one entry into it.
`flat_reserve` takes a number of bytes, and returns the address of a buffer of that size, a multiple of 8, in place of the
buffer before. The gateway writes the function's parameters there, as one record in the layout of the canonical ABI, with the
lists that it points to, and passes the address of the record. The function returns the address of its result, in the same
layout; the gateway reads it before the next call. `catalog` has no result: the gateway ignores the address. A lookup allocates
its value by `cabi_realloc`. The SDKs for Rust and C export both. An older gateway ignores flat exports.

An address outside of the memory, and a result with more than 256 KiB plus 4,608 bytes for each row of the question, are the
fault `malformed`.
";

/// Describes, for languages without a generator, the names and types that a core module exports.
fn core_module(out: &mut String, wit: &Wit) {
    *out += "\n## A core module by hand\n\nThe functions in the canonical ABI of the component model. A module exports these names, \
             with `memory`\nand `cabi_realloc (i32, i32, i32, i32) -> i32`; the gateway wraps it according to its manifest. `cabi_post_`\n\
             before a name, with the function's result as argument, is called after the answer was read.\n\n| export | type |\n|---|---|\n";
    for (name, interface) in [
        ("guest", true),
        ("admission", true),
        ("routing", true),
        ("degradation", true),
        ("scenario", true),
        ("diag", false),
        ("data", false),
    ] {
        let found = wit.resolve.interfaces.iter().find(|(_, of)| of.name.as_deref() == Some(name));
        let (_, of) = found.unwrap();
        for function in of.functions.values() {
            let variant = if interface { AbiVariant::GuestExport } else { AbiVariant::GuestImport };
            let signature = wit.resolve.wasm_signature(variant, function);
            let types = |types: &[WasmType]| {
                types.iter().map(|&of| word(of)).collect::<Vec<_>>().join(", ")
            };
            let result = if signature.results.is_empty() {
                String::new()
            } else {
                format!(" -> {}", types(&signature.results))
            };
            let (version, function) = (&wit.version, &function.name);
            let of = if interface {
                format!("`evenkeel:policy/{name}@{version}#{function}`")
            } else {
                format!("import `{function}` from `evenkeel:policy/{name}@{version}`")
            };
            row(out, &[&of, &format!("`({}){result}`", types(&signature.params))]);
        }
    }
    *out += FLAT;
}

fn word(of: WasmType) -> &'static str {
    match of {
        WasmType::I32 | WasmType::Pointer | WasmType::Length => "i32",
        WasmType::I64 | WasmType::PointerOrI64 => "i64",
        WasmType::F32 => "f32",
        WasmType::F64 => "f64",
    }
}

fn row(out: &mut String, cells: &[&str]) {
    let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}

/// Tables exported as numbers to C and JavaScript, and those exported as names.
const NUMBERS: [(&str, &str, &str); 4] = [
    ("metric", "", "Metric"),
    ("op", "OP_", "Op"),
    ("reason", "REASON_", "CommonReason"),
    ("entry-kind", "KIND_", "EntryKind"),
];
const NAMES: [(&str, &str, &str); 2] = [("param", "PARAM_", "Param"), ("label", "LABEL_", "Label")];

fn c_header() -> String {
    let tables = tables(&read("wit/registry.toml")).unwrap();
    let mut out = "/* The registry's numbers and names, generated from ../wit/registry.toml by `make reference`. */\n\n\
                   #ifndef EVENKEEL_REGISTRY_H\n#define EVENKEEL_REGISTRY_H\n".to_owned();
    let mut define = |table: &str, prefix: &str, named: bool| {
        out.push('\n');
        for entry in &tables[table] {
            let name = entry.name.replace('-', "_").to_uppercase();
            let value = if named { format!("{:?}", entry.name) } else { entry.number.to_string() };
            let of = if entry.of.is_empty() {
                String::new()
            } else {
                format!(", of {}", entry.of.join(", "))
            };
            let unit =
                if entry.unit == "none" { String::new() } else { format!(" [{}{of}]", entry.unit) };
            let _ = writeln!(out, "/* {}{unit} */\n#define EK_{prefix}{name} {value}", entry.doc);
        }
    };
    NUMBERS.iter().for_each(|(table, prefix, _)| define(table, prefix, false));
    NAMES.iter().for_each(|(table, prefix, _)| define(table, prefix, true));
    out + "\n#endif\n"
}

fn javascript() -> String {
    let tables = tables(&read("wit/registry.toml")).unwrap();
    let mut out = "// The registry's numbers and names, generated from ../wit/registry.toml by `make reference`.\n".to_owned();
    let mut object = |table: &str, name: &str, named: bool| {
        let _ = writeln!(out, "\nexport const {name} = Object.freeze({{");
        for entry in &tables[table] {
            let value = if named { format!("'{}'", entry.name) } else { entry.number.to_string() };
            let unit =
                if entry.unit == "none" { String::new() } else { format!(" [{}]", entry.unit) };
            let _ = writeln!(out, "  /** {}{unit} */\n  {}: {value},", entry.doc, entry.variant());
        }
        out += "});\n";
    };
    NUMBERS.iter().for_each(|(table, _, name)| object(table, name, false));
    NAMES.iter().for_each(|(table, _, name)| object(table, name, true));
    out
}
