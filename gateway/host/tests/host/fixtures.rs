//! Plugins compiled at a release load on every later gateway, and answer as they did then.

use std::fmt::{Display, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use evenkeel_host::{
    BoundPlugin, Component, DataDocument, DataDocuments, LogLevel, PluginInputs, PluginRefusal,
};
use evenkeel_model::{
    CatalogEntry, EntryKind, Hook, HookAnswer, Labels, Measures, Metric, NodeId, PluginState,
    PolicyQuestion, RegionId, RoomId, RoomRow, Row, SessionId, SessionRow,
};
use evenkeel_testkit::required;
use serde_json::{Value, json};

use crate::contract::{Wit, read, releases, sdk};
use crate::flat::by_component;
use crate::plugin::roomy;

/// Maximum size of a release in bytes, because it stays in the repository permanently.
const RELEASE_MAX: u64 = 300_000;

#[test]
fn released_plugins_answer_as_before() {
    for release in releases() {
        let mut hooks = Vec::new();
        let mut plugins = 0;
        for file in std::fs::read_dir(sdk().join("fixtures").join(&release)).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "wasm") {
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            let expected = std::fs::read_to_string(path.with_extension("txt")).unwrap();
            assert_eq!(answers(&bytes), expected, "{}", path.display());
            if let Some(other) = by_component(&bytes) {
                assert_eq!(answers(&other), expected, "{} by component", path.display());
            }
            hooks.extend(Component::vet(roomy(), &bytes).unwrap().manifest().hooks.clone());
            plugins += 1;
        }
        assert!(plugins >= 4 && Hook::ALL.iter().all(|hook| hooks.contains(hook)), "{release}");
    }
}

#[test]
fn plugin_of_a_compatible_version_is_accepted() {
    let release = releases().remove(0);
    for name in ["rust-module", "rust-component", "c", "by-hand"] {
        let bytes = std::fs::read(sdk().join(format!("fixtures/{release}/{name}.wasm"))).unwrap();
        let text = std::fs::read_to_string(sdk().join(format!("fixtures/{release}/{name}.txt")));
        let line = release.rsplit_once('.').unwrap().0;
        let next = replaced(&bytes, &release, &format!("{line}.9"));
        let renamed =
            text.unwrap().replace(&format!("contract {release}"), &format!("contract {line}.9"));
        assert_eq!(answers(&next), renamed, "{name} of the next version of its line");
        let other = replaced(&bytes, &release, "9.9.9");
        let refused = Component::vet(roomy(), &other).err().unwrap().to_string();
        assert!(refused.contains("9.9.9"), "{name}: {refused}");
    }
}

#[required(Clang)]
#[test]
fn lookups_in_c_answer_alike_both_ways() {
    let plugin = crate::c::compile(&sdk().join("fixtures/source/gate.c"), "-O2");
    let answered = answers(&plugin);
    assert!(answered.contains("height = 1080\n    rate-size = 4\n"), "{answered}");
    assert_eq!(answers(&by_component(&plugin).unwrap()), answered);
}

/// Replaces one version by another of the same length in a binary.
fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut out = bytes.to_vec();
    let mut at = 0;
    while let Some(next) = out[at..].windows(from.len()).position(|part| part == from.as_bytes()) {
        at += next;
        out[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    assert_ne!(out, bytes);
    out
}

/// Measures of one session.
type Cells<'a> = &'a [(Metric, u64)];

/// Settings of a plugin, and an invalid one.
fn settings(plugin: &str) -> (Value, Value) {
    match plugin {
        "fixture-degradation" => (
            json!({"caps": [200], "patience": "1.5s", "spare": "phone"}),
            json!({"patience": "999ms"}),
        ),
        "fixture-routing" => (json!({"full": 800}), json!({"full": 1001})),
        "fixture-gate" => (Value::Null, json!({"full": "all"})),
        _ => (Value::Null, json!({"colour": "blue"})),
    }
}

/// All answers of a plugin to fixed questions, as text. The questions never change, because released answers are stored
/// in files.
fn answers(bytes: &[u8]) -> String {
    let component = Component::vet(roomy(), bytes).unwrap();
    let manifest = component.manifest().clone();
    let mut out = format!(
        "{} {} contract {} schema {}\n",
        manifest.name, manifest.version, manifest.contract, manifest.state_schema
    );
    let (good, bad) = settings(&manifest.name);
    let facts = json!({"live": {"height": 1080, "rate": 0.25}, "call": {}});
    let documents: DataDocuments = manifest
        .data
        .keys()
        .map(|name| (Arc::clone(name), DataDocument::of(name, &facts).unwrap()))
        .collect();
    for hook in manifest.hooks {
        let install = |settings: &Value| {
            let inputs = PluginInputs { settings: settings.clone(), documents: documents.clone() };
            BoundPlugin::install(roomy(), &component, hook, inputs, catalog(), 42)
        };
        // The gateway's own messages may change.
        let refused = match install(&bad).err() {
            Some(PluginRefusal::Settings(said)) => format!("for {said}"),
            Some(_) => "by its schema".into(),
            None => "nothing".into(),
        };
        let _ = writeln!(out, "\n{}\n  refuses: {refused}", hook.name());
        let mut policy = install(&good).unwrap();
        let _ = writeln!(out, "  settings: {}", policy.settings());
        match hook {
            Hook::Admission => admit(&mut policy, &mut out),
            Hook::Routing => route(&mut policy, &mut out),
            Hook::Degradation => tick(&mut policy, &mut out),
            Hook::Scenario => resolve(&mut policy, &mut out),
        }
    }
    out
}

fn catalog() -> Vec<CatalogEntry> {
    let entry = |kind, id, parent, name: &str| {
        let labels = vec![("power".into(), name.into())];
        CatalogEntry { kind, id, parent, name: name.into(), labels }
    };
    vec![
        entry(EntryKind::Region, 1, 0, "east"),
        entry(EntryKind::Region, 2, 0, "west"),
        entry(EntryKind::Zone, 1, 1, "a"),
        entry(EntryKind::Zone, 2, 2, "a"),
        entry(EntryKind::Node, 0, 1, "east-a1"),
        entry(EntryKind::Node, 1, 1, "east-a2"),
        entry(EntryKind::Node, 2, 2, "west-a1"),
        entry(EntryKind::Home, 1, 1, "home"),
    ]
}

fn labels(of: &[(&str, &str)]) -> Labels {
    of.iter().map(|&(key, value)| (key.into(), value.into())).collect()
}

fn row(id: u64, measured: &[(Metric, u64)]) -> Row {
    let mut measures = Measures::default();
    for &(metric, value) in measured {
        measures.set(metric, value);
    }
    Row { id, measures }
}

fn admit(policy: &mut BoundPlugin, out: &mut String) {
    let regions = |loads: [Option<u64>; 2]| {
        let load = |load: Option<u64>| load.map(|load| (Metric::Load, load));
        let rows = (1..).zip(loads);
        rows.map(|(id, of)| row(id, load(of).as_slice())).collect::<Vec<_>>()
    };
    let asked = [
        ("quiet", None, &[][..], [Some(100), Some(100)]),
        ("call", None, &[("region", "east"), ("tenant", "banned")], [Some(100), Some(100)]),
        ("call", None, &[("tenant", "acme")], [None, Some(900)]),
        ("call", None, &[], [Some(900), Some(899)]),
        ("call", Some(1), &[], [Some(950), Some(100)]),
        ("call", Some(2), &[], [Some(899), Some(1000)]),
        ("", None, &[], [Some(900), Some(900)]),
    ];
    for (at, (scenario, standing, of, loads)) in asked.into_iter().enumerate() {
        let question = PolicyQuestion::Admit {
            session: SessionId(7 + at as u64),
            room: RoomId(3),
            standing: standing.map(RegionId),
            scenario: scenario.into(),
            labels: labels(of),
            regions: regions(loads),
        };
        ask(policy, &question, 1_000 + at as u64, out);
    }
}

fn resolve(policy: &mut BoundPlugin, out: &mut String) {
    let asked = [
        ("call", &[][..]),
        ("live", &[("device", "phone")]),
        ("live", &[("device", "desktop"), ("max-height", "720"), ("größe", "é😀")]),
    ];
    for (scenario, of) in asked {
        let question = PolicyQuestion::Resolve { scenario: scenario.into(), labels: labels(of) };
        ask(policy, &question, 0, out);
    }
}

fn nodes(loads: [u64; 3]) -> Vec<Row> {
    let node = |(id, load): (u64, u64)| {
        let delay = 9_000 - 1_000 * id;
        row(
            id,
            &[
                (Metric::Delay, delay),
                (Metric::Load, load),
                (Metric::Health, u64::from(load == 0)),
                (Metric::Draining, 0),
            ],
        )
    };
    (0..).zip(loads).map(node).collect()
}

fn route(policy: &mut BoundPlugin, out: &mut String) {
    for (room, of, loads) in [
        (5, &[("region", "west"), ("tenant", "acme")][..], [100, 200, 300]),
        (6, &[], [799, 800, 0]),
        (7, &[("region", "atlantis")], [900, 900, 900]),
    ] {
        let scenario = "call".into();
        let question = PolicyQuestion::Place {
            room: RoomId(room),
            scenario,
            labels: labels(of),
            nodes: nodes(loads),
        };
        ask(policy, &question, 2_000, out);
    }
    let room = |id, standing: &[u32], loss, state: Option<PluginState>| RoomRow {
        row: row(id, &[(Metric::LossUp, loss), (Metric::RFactor, 8_000)]),
        scenario: "call".into(),
        labels: labels(&[("region", "west"), ("tenant", "acme")]),
        standing: standing.iter().copied().map(NodeId).collect(),
        state,
    };
    let mut memo = None;
    let mut states: Vec<Option<PluginState>> = vec![None; 4];
    for now_us in [3_000, 4_000] {
        let mut states_now = states.iter().cloned();
        let mut next = || states_now.next().flatten();
        let rooms = vec![
            room(5, &[0, 1, 2], 50_001, next()),
            room(6, &[2], 50_000, next()),
            room(7, &[], 1_000_000, next()),
            room(8, &[1, 0], 60_000, next()),
        ];
        let question =
            PolicyQuestion::Reroute { nodes: nodes([100, 200, 300]), rooms, memo: memo.clone() };
        keep(ask(policy, &question, now_us, out), &mut states, &mut memo);
    }
}

fn tick(policy: &mut BoundPlugin, out: &mut String) {
    let name: Arc<str> = Arc::clone(&policy.component().manifest().name);
    let older = |schema, bytes: &[u8]| {
        Some(PluginState { plugin: Arc::clone(&name), schema, bytes: bytes.into() })
    };
    // The second state is of an older revision, the third of another plugin.
    let other = Some(PluginState { plugin: "somebody".into(), schema: 1, bytes: [1].into() });
    let mut states = vec![None, older(1, &[1]), other, None, None];
    let mut memo = older(1, &[1, 2, 3]);
    let measured: [&[&[(Metric, u64)]]; 4] = [
        &[
            &[(Metric::JitterUp, 30_000)],
            &[(Metric::JitterUp, 29_999), (Metric::Cap, 200)],
            &[],
            &[(Metric::JitterUp, 90_000)],
            &[(Metric::LossUp, 100_000)],
        ],
        &[
            &[(Metric::JitterUp, 31_000)],
            &[(Metric::JitterUp, 40_000)],
            &[(Metric::LossUp, 99_999)],
            &[(Metric::JitterUp, 90_000)],
            &[],
        ],
        &[
            &[(Metric::JitterUp, 32_000)],
            &[(Metric::JitterUp, 40_000)],
            &[(Metric::JitterUp, 1)],
            &[(Metric::JitterUp, 90_000)],
            &[],
        ],
        &[
            &[(Metric::JitterUp, 33_000)],
            &[(Metric::JitterUp, 40_000)],
            &[],
            &[(Metric::JitterUp, 90_000)],
            &[(Metric::LossUp, 4_294_967_295)],
        ],
    ];
    for (at, rows) in measured.into_iter().enumerate() {
        let session =
            |(id, (measured, state)): (u64, (&Cells<'_>, &Option<PluginState>))| SessionRow {
                row: row(id, measured),
                room: RoomId(1),
                scenario: "call".into(),
                labels: labels(match id {
                    11 => &[("region", "west")],
                    13 => &[("device", "phone")],
                    _ => &[],
                }),
                state: state.clone(),
            };
        let sessions = (10..).zip(rows.iter().zip(&states)).map(session).collect();
        let question = PolicyQuestion::Tick { sessions, memo: memo.clone() };
        let now_us = 1_000_000 * at as u64;
        keep(ask(policy, &question, now_us, out), &mut states, &mut memo);
    }
    // A memo that this revision cannot read.
    memo = older(1, &[]);
    states[0] = older(1, &[1, 2]);
    let sessions = vec![SessionRow {
        row: row(10, &[]),
        room: RoomId(1),
        scenario: "call".into(),
        labels: labels(&[]),
        state: states[0].clone(),
    }];
    ask(policy, &PolicyQuestion::Tick { sessions, memo }, 5_000_000, out);
}

fn keep(
    answer: Option<HookAnswer>,
    states: &mut [Option<PluginState>],
    memo: &mut Option<PluginState>,
) {
    let (new, new_memo) = match answer {
        Some(HookAnswer::Moves { states, memo, .. } | HookAnswer::Actions { states, memo, .. }) => {
            (states, memo)
        }
        Some(HookAnswer::Params(_) | HookAnswer::Admit { .. } | HookAnswer::Placed { .. })
        | None => return,
    };
    for (row, state) in new {
        states[row as usize] = Some(state);
    }
    *memo = new_memo.or_else(|| memo.take());
}

/// Asks, and appends the answer to `out`.
fn ask(
    policy: &mut BoundPlugin,
    question: &PolicyQuestion,
    now_us: u64,
    out: &mut String,
) -> Option<HookAnswer> {
    let (word, rows) = match question {
        PolicyQuestion::Resolve { scenario, labels } => {
            (format!("resolve {scenario}"), labels.len())
        }
        PolicyQuestion::Admit { session, regions, .. } => {
            (format!("admit {}", session.0), regions.len())
        }
        PolicyQuestion::Place { room, nodes, .. } => (format!("place {}", room.0), nodes.len()),
        PolicyQuestion::Reroute { rooms, .. } => ("reroute".into(), rooms.len()),
        PolicyQuestion::Tick { sessions, .. } => ("tick".into(), sessions.len()),
    };
    let _ = writeln!(out, "  {word} at {now_us} us, {rows} rows");
    let outcome = policy.ask(question, now_us);
    let mut line = |words: &dyn Display| {
        let _ = writeln!(out, "    {words}");
    };
    let answered = match outcome {
        Ok(answered) => {
            write_answer(&answered.answer, &mut line);
            for note in &answered.notes {
                line(&format!("note {} {}={}", note.row, note.key, note.value));
            }
            Some(answered.answer)
        }
        Err(fault) => {
            line(&format!("fault {}", fault.name()));
            None
        }
    };
    while let Some(said) = policy.poll_line() {
        line(&format!("log {} {}", level(said.level), said.words));
    }
    answered
}

fn level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Trace => "trace",
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    }
}

fn write_answer(answer: &HookAnswer, line: &mut dyn FnMut(&dyn Display)) {
    match answer {
        HookAnswer::Params(params) => {
            for (key, value) in params {
                line(&format!("{key} = {value}"));
            }
        }
        HookAnswer::Admit { verdict, reason } => line(&format!("{verdict:?} for {reason}")),
        HookAnswer::Placed { hops, ttl_ms, reason, state } => {
            let hops = numbers(hops);
            line(&format!("{hops} again after {ttl_ms} ms for {reason}, state {}", hex(state)));
        }
        HookAnswer::Moves { moves, states, memo } => {
            for of in moves {
                let hops = numbers(&of.hops);
                line(&format!(
                    "row {} to {hops} again after {} ms for {}",
                    of.row, of.ttl_ms, of.reason
                ));
            }
            kept(states, memo.as_ref(), line);
        }
        HookAnswer::Actions { actions, states, memo } => {
            for of in actions {
                line(&format!("row {} op {} {} for {}", of.row, of.op, of.arg, of.reason));
            }
            kept(states, memo.as_ref(), line);
        }
    }
}

fn kept(
    states: &[(u32, PluginState)],
    memo: Option<&PluginState>,
    line: &mut dyn FnMut(&dyn Display),
) {
    for (row, state) in states {
        line(&format!("row {row} keeps {}", hex(state)));
    }
    if let Some(memo) = memo {
        line(&format!("memo {}", hex(memo)));
    }
}

fn numbers(hops: &[NodeId]) -> String {
    format!("{:?}", hops.iter().map(|hop| hop.0).collect::<Vec<_>>())
}

/// Schema and bytes of a state.
fn hex(state: &PluginState) -> String {
    let bytes = data_encoding::HEXLOWER.encode(&state.bytes);
    format!("{}:{bytes}", state.schema)
}

/// `make release-contract`: compiles the plugins under `plugin-sdk/fixtures/source`, asks them, and
/// stores a release of the version in `policy.wit`. Needs clang and wasm-ld.
#[test]
#[ignore = "writes a release; run it by `make release-contract`"]
fn release_the_contract() {
    let version = Wit::parse(&read("wit/policy.wit")).version;
    let folder = sdk().join("fixtures").join(&version);
    assert!(
        !folder.exists(),
        "{version} is released: what is there stays; raise the version in policy.wit"
    );
    let source = sdk().join("fixtures/source");
    let rust = |name: &str| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fixtures");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "build",
            "--quiet",
            "--release",
            "--target",
            "wasm32-unknown-unknown",
            "-p",
            name,
        ]);
        cargo.arg("--target-dir").arg(&target).current_dir(&source);
        for key in ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
            cargo.env_remove(key);
        }
        assert!(cargo.status().unwrap().success(), "{name} compiles");
        let file = format!("wasm32-unknown-unknown/release/{}.wasm", name.replace('-', "_"));
        std::fs::read(target.join(file)).unwrap()
    };
    let module = rust("fixture-degradation");
    let component =
        wit_component::ComponentEncoder::default().module(&rust("fixture-routing")).unwrap();
    let component = component.validate(true).encode().unwrap();
    let c = crate::c::compile(&source.join("gate.c"), "-Oz");
    let by_hand = wat::parse_file(source.join("hand.wat")).unwrap();
    let plugins =
        [("rust-module", module), ("rust-component", component), ("c", c), ("by-hand", by_hand)];

    let size: usize = plugins.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!((size as u64) < RELEASE_MAX, "{size} bytes are checked in for ever");
    let answered = plugins.iter().map(|(name, bytes)| (name, answers(bytes))).collect::<Vec<_>>();
    std::fs::create_dir_all(&folder).unwrap();
    for (name, bytes) in &plugins {
        std::fs::write(folder.join(format!("{name}.wasm")), bytes).unwrap();
    }
    for (name, text) in answered {
        std::fs::write(folder.join(format!("{name}.txt")), text).unwrap();
    }
    for name in ["policy.wit", "registry.toml"] {
        std::fs::copy(sdk().join("wit").join(name), folder.join(name)).unwrap();
    }
}
