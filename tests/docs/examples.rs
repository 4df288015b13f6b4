//! Examples of configuration and of requests are such as the gateway takes.

use std::fs;
use std::path::Path;
use std::process::Command;

use evenkeel_config::{Colour, GatewayConfig, InvalidSetting};
use evenkeel_testkit::binary::evenkeel;

use crate::gateway::Gateway;
use crate::page::{Block, pages};

/// Files that examples name.
const FILES: [&str; 16] = [
    "cluster.secret",
    "node.secret",
    "east-a1.secret",
    "east-a2.secret",
    "edge-2.secret",
    "w1.secret",
    "w2.secret",
    "w3.secret",
    "admin.token",
    "prometheus.token",
    "webhook.token",
    "registry.login",
    "cert.pem",
    "key.pem",
    "token.key",
    "turn.secret",
];

#[test]
fn toml_blocks_are_taken_by_their_parsers() {
    let mut wrong = Vec::new();
    for block in blocks("toml") {
        if let Err(reason) = parse(&block) {
            wrong.push(format!("{}: {reason}", block.place));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn json_blocks_are_requests_or_answers() {
    let gateway = Gateway::start();
    let mut wrong = Vec::new();
    for Block { place, info, text, .. } in blocks("json") {
        match info.split_once(' ') {
            Some((method, path)) => {
                wrong.extend(
                    refused(&gateway, method, path, &text).map(|r| format!("{place}: {r}")),
                );
            }
            None => wrong.extend(
                serde_json::from_str::<serde_json::Value>(&text)
                    .err()
                    .map(|error| format!("{place}: {error}")),
            ),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Why a request is none that the API knows. It may well be refused for the state of the gateway.
pub(crate) fn refused(gateway: &Gateway, method: &str, path: &str, body: &str) -> Option<String> {
    let answer = gateway.ask(method, path, body);
    let unknown = ["unknown path", "found the verb"].iter().any(|w| answer.body.contains(w));
    (unknown || [400, 405].contains(&answer.status))
        .then(|| format!("{method} {path} answers {}: {}", answer.status, answer.body))
}

fn blocks(language: &str) -> Vec<Block> {
    let blocks = pages().into_iter().flat_map(|page| page.blocks());
    blocks.filter(|block| block.language == language).collect()
}

fn parse(block: &Block) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let sets = folder.path().join("policies");
    fs::create_dir(&sets).unwrap();
    for file in FILES {
        // Each has its own content, in the form of a login.
        fs::write(folder.path().join(file), format!("user:{}", file.repeat(4))).unwrap();
    }
    let file = folder.path().join(&block.info);
    match block.info.as_str() {
        "evenkeel.toml" => {
            fs::write(&file, &block.text).unwrap();
            let loaded = GatewayConfig::load(
                Some(&file),
                Some(&sets),
                &evenkeel_drivers::kinds(evenkeel_drivers::DRIVERS),
            );
            loaded.map(|_| ()).map_err(|invalid| InvalidSetting::render(&invalid, Colour::Plain))
        }
        "agent.toml" => {
            fs::write(&file, &block.text).unwrap();
            evenkeel_agent::config::Config::load(&file).map(|_| ()).map_err(|e| e.to_string())
        }
        "witness.toml" => {
            fs::write(&file, &block.text).unwrap();
            let loaded = evenkeel_agent::config::Config::load_witness(&file);
            loaded.map(|_| ()).map_err(|error| error.to_string())
        }
        "Cargo.toml" => {
            toml::from_str::<toml::Table>(&block.text).map(|_| ()).map_err(|e| e.to_string())
        }
        case if case.starts_with("tests/") => test_ladder(&file, &block.text),
        set if set.ends_with(".toml") => {
            fs::write(sets.join(set), &block.text).unwrap();
            check(&sets)
        }
        _ => {
            let known =
                "evenkeel.toml, agent.toml, witness.toml, a case below tests/ or a policy set";
            Err(format!("the fence names no file: ```toml {known}"))
        }
    }
}

/// A case of `degrade-ladder`, which its plugin passes.
fn test_ladder(case: &Path, text: &str) -> Result<(), String> {
    let tests = case.parent().unwrap();
    fs::create_dir(tests).unwrap();
    fs::write(case, text).unwrap();
    let ladder = evenkeel_host::shipped().iter().find(|plugin| plugin.name == "degrade-ladder");
    let plugin = tests.with_file_name("degrade-ladder.wasm");
    fs::write(&plugin, ladder.unwrap().bytes).unwrap();
    let mut test = Command::new(evenkeel());
    let tested = test.args(["plugin", "test", "--worlds", "1"]).arg(&plugin).output().unwrap();
    let said = [tested.stdout, tested.stderr].concat();
    tested.status.success().then_some(()).ok_or(String::from_utf8_lossy(&said).into_owned())
}

/// Policy sets, with the settings of their plugins.
fn check(sets: &Path) -> Result<(), String> {
    let checked =
        Command::new(evenkeel()).arg("check").arg("--policies").arg(sets).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    checked.status.success().then_some(()).ok_or(said)
}
