//! The test guest: compiled once, with a manifest per test.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use evenkeel_host::{BoundPlugin, CallBudgets, Component, Engine};
use evenkeel_model::{
    Hook, Labels, Measures, Metric, PluginState, PolicyQuestion, RoomId, Row, SessionRow,
};
use serde_json::{Value, json};

/// An engine with budgets that no slow machine exceeds.
pub(crate) fn roomy() -> &'static Engine {
    static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
        let long = Duration::from_secs(600);
        Engine::with_budgets(CallBudgets::all(long))
    });
    &ENGINE
}

/// The guest as built by cargo: a core module without a manifest.
pub(crate) fn bare() -> &'static [u8] {
    static MODULE: OnceLock<Vec<u8>> = OnceLock::new();
    MODULE.get_or_init(|| {
        let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests");
        let built = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--release",
                "--locked",
                "--target",
                "wasm32-unknown-unknown",
            ])
            .arg("--target-dir")
            .arg(&target)
            .current_dir(guests)
            .env_remove("RUSTFLAGS")
            .env_remove("RUSTC_WRAPPER")
            .env_remove("RUSTC_WORKSPACE_WRAPPER")
            .status()
            .unwrap();
        assert!(built.success(), "the guest compiles: `rustup target add wasm32-unknown-unknown`?");
        std::fs::read(target.join("wasm32-unknown-unknown/release/guest.wasm")).unwrap()
    })
}

/// A manifest that fits the guest.
pub(crate) fn manifest() -> Value {
    json!({
        "name": "guest",
        "version": "1.0.0",
        "contract": "0.1.0",
        "hooks": ["admission", "routing", "degradation", "scenario"],
        "settings": {
            "type": "object",
            "additionalProperties": false,
            "properties": {"mode": {"type": "string", "default": "count"}}
        },
        "state_schema": 2,
        "subject_metrics": [1, 9],
        "node_metrics": [35],
        "ops": [1],
        "reasons": [{"number": 3, "name": "calm"}]
    })
}

/// Appends a custom section to a module.
pub(crate) fn with_section(module: &[u8], name: &str, data: &[u8]) -> Vec<u8> {
    let mut section = leb(name.len());
    section.extend(name.as_bytes());
    section.extend(data);
    [module, &[0], &leb(section.len()), &section].concat()
}

fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 128 {
        bytes.push(number as u8 | 128);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// The guest with a manifest.
pub(crate) fn dressed(manifest: &Value) -> Vec<u8> {
    with_section(bare(), "evenkeel:manifest", manifest.to_string().as_bytes())
}

/// The guest with its usual manifest, validated.
pub(crate) fn guest() -> &'static Component {
    static COMPONENT: LazyLock<Component> =
        LazyLock::new(|| Component::vet(roomy(), &dressed(&manifest())).unwrap());
    &COMPONENT
}

/// The guest with a behaviour chosen by settings.
pub(crate) fn policy(hook: Hook, mode: &str) -> BoundPlugin {
    BoundPlugin::install(roomy(), guest(), hook, json!({"mode": mode}), Vec::new(), 77).unwrap()
}

/// A row with the manifest's first subject metric, and one that was not requested.
pub(crate) fn row(id: u64, loss_up: u64) -> Row {
    let mut measures = Measures::default();
    measures.set(Metric::LossUp, loss_up).set(Metric::Rung, 4);
    Row { id, measures }
}

pub(crate) fn labels() -> Labels {
    Arc::new([("region".into(), "east".into()), ("device".into(), "phone".into())])
}

pub(crate) fn session(id: u64, loss_up: u64, state: Option<PluginState>) -> SessionRow {
    let (room, scenario) = (RoomId(id + 100), "call".into());
    SessionRow { row: row(id, loss_up), room, scenario, labels: labels(), state }
}

/// A state that the guest wrote.
pub(crate) fn state(schema: u32, bytes: &[u8]) -> PluginState {
    PluginState { plugin: "guest".into(), schema, bytes: bytes.into() }
}

/// A tick of sessions with the state 5.
pub(crate) fn tick(losses: &[u64]) -> PolicyQuestion {
    let sessions =
        losses.iter().zip(1..).map(|(&loss, id)| session(id, loss, Some(state(2, &[5]))));
    PolicyQuestion::Tick { sessions: sessions.collect(), memo: None }
}
