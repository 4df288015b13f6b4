//! Revisions of policies outlive their process: a kill, an upgrade, a takeover.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use evenkeel_client::ApiClient;
use evenkeel_contract::offers::OfferIngress;
use evenkeel_testkit::binary::evenkeel;
use evenkeel_testkit::required;
use nix::sys::signal::Signal;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::harness::whip::{WEBRTC, Whip, claims, token};
use crate::harness::{
    Behaviour, GatewayProcess, Hosts, Node, Phone, TIMEOUT, WebrtcPhone, World, await_replica, ids,
    routing_plugin, wait_until,
};

/// The policy `call/routing` as the gateway shows it.
fn policy(gateway: &mut GatewayProcess) -> Value {
    let mut seen = gateway.read("/v1/policies");
    let policies = seen["policies"].as_array_mut().unwrap();
    policies.iter_mut().find(|it| it["policy"] == "call/routing").unwrap().take()
}

/// The decisions about its revisions.
pub(crate) fn decided(gateway: &mut GatewayProcess) -> Value {
    let policy = policy(gateway);
    let rollout = &policy["rollout"];
    let quarantined = policy["quarantined_revisions"].as_array().unwrap().iter();
    json!({
        "active": policy["revision"],
        "origin": policy["origin"],
        "previous": policy["previous"],
        "candidate": rollout["revision"],
        "stage": rollout["stage"],
        "percent": rollout["percent"],
        "paused": rollout["paused"],
        "quarantined": quarantined.map(|it| it["revision"].clone()).collect::<Vec<_>>(),
    })
}

/// Pushes the plugin of this number, and returns the name of its revision.
pub(crate) fn push(gateway: &mut GatewayProcess, number: u32, query: &str) -> Value {
    let (hook, wasm) = (format!("routing?{query}"), routing_plugin(Behaviour::Numbered(number)));
    let mut pushed = gateway.ask(async |client| client.push("call", &hook, &wasm).await).unwrap();
    pushed["revision"].take()
}

/// Acts on the rollout.
pub(crate) fn act(gateway: &mut GatewayProcess, verb: &str) {
    gateway.post(&format!("/v1/policies/call/routing:{verb}"), &json!({}));
}

/// Kills the gateway and starts it with the same files.
pub(crate) fn kill_and_start(gateway: &mut GatewayProcess) {
    gateway.process.signal(Signal::SIGKILL).unwrap();
    gateway.process.wait(TIMEOUT).unwrap();
    gateway.start_again();
}

/// Waits until the records on the disk have what the gateway decided by itself, for which no request waits. The answer to an operation
/// waits for a transaction. A plugin is written after the first one, the record that names it is released after the second one, and
/// written in the third one.
pub(crate) fn await_kept(gateway: &mut GatewayProcess) {
    for _ in 0..3 {
        gateway.post("/v1/nodes/east-a1:undrain", &json!({}));
    }
}

/// Saves the policy set `call` with these tables.
pub(crate) fn save(gateway: &GatewayProcess, table: &str) {
    let file = gateway.folder().join("policies").join("call.toml");
    fs::write(file, format!("[scenario.call]\nspares = 2\n{table}")).unwrap();
}

fn world(node: &Node) -> World {
    World::of(&[node]).routed()
}

#[test]
fn canary_continues_after_a_kill() {
    let node = Node::agent("east-a1");
    let mut gateway = GatewayProcess::start(&world(&node));
    let active = push(&mut gateway, 0, "now=true");
    let candidate = push(&mut gateway, 1, "canary=20,60&pace=1h");
    act(&mut gateway, "pause");
    let before = decided(&mut gateway);
    assert_eq!((&before["active"], &before["candidate"]), (&active, &candidate));
    assert_eq!((&before["origin"], &before["percent"]), (&json!("pushed"), &json!(20)));
    for _ in 0..2 {
        kill_and_start(&mut gateway);
        assert_eq!(decided(&mut gateway), before);
    }
    act(&mut gateway, "promote");
    assert_eq!(decided(&mut gateway)["percent"], 60);
    act(&mut gateway, "promote-all");
    let promoted = decided(&mut gateway);
    assert_eq!((&promoted["active"], &promoted["previous"]), (&candidate, &active));
    kill_and_start(&mut gateway);
    assert_eq!(decided(&mut gateway), promoted);
    act(&mut gateway, "rollback");
    assert_eq!(decided(&mut gateway)["active"], active, "a rollback is possible still");
}

/// Starts the gateway with a cache of this size that nothing else uses, after this command in its folder.
pub(crate) fn start_with_small_disk(world: &World, mib: u32, before: &str) -> GatewayProcess {
    let mut command = Command::new("unshare");
    let mount = format!(
        "mkdir -p \"$XDG_CACHE_HOME/evenkeel\" && chmod 700 \"$XDG_CACHE_HOME/evenkeel\" && \
         mount -t tmpfs -o size={mib}m,mode=700 tmpfs \"$XDG_CACHE_HOME/evenkeel\" && \
         (cd \"$XDG_CACHE_HOME/evenkeel\" && {before}) && exec \"$0\" \"$@\""
    );
    command.args(["--mount", "sh", "-c", &mount]).arg(evenkeel());
    GatewayProcess::start_by(world, command)
}

/// The file of [`fill_disk`], as the test sees it in the gateway's mount namespace.
fn filler(gateway: &GatewayProcess) -> PathBuf {
    let disk = gateway.folder().join("evenkeel");
    Path::new(&format!("/proc/{}/root{}", gateway.pid(), disk.display())).join("filler")
}

/// Fills the disk. Returns the file to remove.
pub(crate) fn fill_disk(gateway: &GatewayProcess) -> PathBuf {
    let filler = filler(gateway);
    while OpenOptions::new()
        .create(true)
        .append(true)
        .open(&filler)
        .and_then(|mut file| file.write_all(&[0; 4_096]))
        .is_ok()
    {}
    filler
}

/// The names of the documents that are not on the disk.
fn unwritten(gateway: &mut GatewayProcess) -> Vec<String> {
    let status = gateway.read("/v1/status");
    let rows = status["unwritten"].as_array().unwrap().iter();
    let names: Vec<_> = rows.map(|row| row["document"].as_str().unwrap().to_owned()).collect();
    for name in &names {
        let warning = format!("{name} not on the disk: ");
        let mut warnings = status["warnings"].as_array().unwrap().iter();
        assert!(warnings.any(|it| it.as_str().unwrap().starts_with(&warning)), "{status}");
    }
    names
}

#[required(Mounts)]
#[test]
fn push_with_a_full_disk_says_that_it_runs() {
    let node = Node::agent("east-a1");
    let mut gateway = start_with_small_disk(&world(&node), 1, "true");
    push(&mut gateway, 0, "now=true");
    assert!(unwritten(&mut gateway).is_empty());
    let filler = fill_disk(&gateway);

    let plugin = gateway.folder().join("pushed.wasm");
    fs::write(&plugin, routing_plugin(Behaviour::Numbered(1))).unwrap();
    let mut command = Command::new(evenkeel());
    command.args(["policy", "push", "call/routing"]).arg(&plugin);
    command.args(["--canary", "20", "--pace", "1h", "--api"]);
    let pushed = command.arg(gateway.folder().join("admin.sock")).output().unwrap();
    let said = String::from_utf8_lossy(&pushed.stdout).into_owned();
    let error = String::from_utf8_lossy(&pushed.stderr).into_owned();
    assert_eq!(pushed.status.code(), Some(4), "{said}{error}");
    assert!(said.contains("call/routing: started, revision "), "{said}");
    assert!(error.contains("executed, but not written to the disk: "), "{error}");
    assert!(error.contains("a restart would forget it"), "{error}");
    assert_eq!(decided(&mut gateway)["percent"], 20);
    let drain = async |client: &mut ApiClient| {
        client.post("/v1/nodes/east-a1:drain", &json!({"force": true})).await
    };
    gateway.ask(drain).unwrap_err();
    wait_until("the status names the documents", || {
        let names = unwritten(&mut gateway);
        ["changes", "operations", "policies"].iter().all(|name| names.iter().any(|it| it == name))
    });
    wait_until("the metric tells", || {
        let line = "evenkeel_document_unwritten{evenkeel_document=\"policies\"} 1";
        gateway.metrics().lines().any(|it| it == line)
    });

    fs::remove_file(&filler).unwrap();
    wait_until("all documents are written again", || unwritten(&mut gateway).is_empty());
    let candidate = decided(&mut gateway)["candidate"].as_str().unwrap().to_owned();
    wait_until("the record on the disk has the candidate", || {
        let record = record_on_disk(&filler.with_file_name("kept"));
        record.is_some_and(|record| {
            record["life"]["revisions"]["candidate"].to_string().contains(&candidate)
        })
    });
}

/// The record of `call/routing` in the database in this folder. `None` without it, or if it changes meanwhile.
fn record_on_disk(kept: &Path) -> Option<Value> {
    // SQLite would resolve the link in the path to the root of the gateway as one to that of this process.
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(kept).unwrap().map(|file| file.unwrap().path()) {
        let name = file.file_name()?.to_str()?;
        if let Some((_, ending @ ("" | "-wal"))) = name.split_once(".sqlite") {
            fs::copy(&file, copy.path().join(format!("copy.sqlite{ending}"))).ok()?;
        }
    }
    let database = Connection::open(copy.path().join("copy.sqlite")).unwrap();
    let row = "SELECT value FROM document WHERE kind = 'policies' AND key = 'call/routing'";
    let text: String = database.query_row(row, [], |row| row.get(0)).ok()?;
    serde_json::from_str(&text).ok()
}

#[required(Mounts)]
#[test]
fn node_started_with_a_full_disk_is_in_the_status() {
    let (first, mut cold) = (Node::agent("east-a1"), Node::agent("east-b1"));
    cold.die();
    let mut world = World::of(&[&first]);
    // One session takes nine tenths.
    world.nodes = world.nodes.replace("200 Mbit/s", "70 kbit/s");
    world.nodes += &format!("{}start = {{ command = [\"/bin/true\"] }}\n", cold.text());
    let mut gateway = start_with_small_disk(&world, 1, "true");
    let filler = fill_disk(&gateway);
    let phones = [1, 2].map(Phone::new);
    let offer = |phone: &Phone| {
        let ingress = OfferIngress::declared(phone.address());
        GatewayProcess::offer(&format!("room-{}", phone.number), ingress)
    };
    let opened = gateway.ask(async |client| client.open(&offer(&phones[0])).await);
    opened.unwrap();
    wait_until(
        "an offer without capacity starts the node, and the status names the document",
        || {
            let refused = gateway.ask(async |client| client.open(&offer(&phones[1])).await);
            refused.unwrap_err();
            unwritten(&mut gateway).iter().any(|it| it == "started-nodes")
        },
    );
    wait_until("the metric tells", || {
        let line = "evenkeel_document_unwritten{evenkeel_document=\"started-nodes\"} 1";
        gateway.metrics().lines().any(|it| it == line)
    });
    fs::remove_file(&filler).unwrap();
    wait_until("all documents are written", || unwritten(&mut gateway).is_empty());
}

#[required(Mounts)]
#[test]
fn full_disk_at_the_start_is_in_the_status() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]).with_identities("[\"declared\", \"stun\"]").with_quic();
    // Free until the gateway binds it.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    world.admin = WEBRTC.replace("127.0.0.1:0", &address.to_string());
    // An earlier process of the gateway left its key.
    let before = "umask 077 && head -c 32 /dev/urandom > key && ! head -c 2M /dev/zero > filler";
    let mut gateway = start_with_small_disk(&world, 1, before);
    let (offer, token) = (WebrtcPhone::new(1).sdp(), token(&claims("t1")));
    let (status, answer) = Whip::at(address).ask("POST /whip/call/room", &token, &offer);
    assert_eq!(status, 201, "{answer}");
    gateway.open("room", &mut Phone::new(2));
    let [session, _] = &ids(&mut gateway)[..] else { panic!("two sessions") };
    gateway.ask(async |client| client.close(session).await).unwrap();
    let expected = [
        "alerts",
        "dtls-certificate",
        "history",
        "idempotency-keys",
        "open-sessions",
        "webtransport-certificates",
    ];
    wait_until("the status names the documents", || {
        let names = unwritten(&mut gateway);
        expected.iter().all(|name| names.iter().any(|it| it == name))
    });
    fs::remove_file(filler(&gateway)).unwrap();
    wait_until("all documents are written", || unwritten(&mut gateway).is_empty());
}

#[required(Mounts)]
#[test]
fn decision_with_a_full_disk_is_executed_and_not_acknowledged() {
    let node = Node::agent("east-a1");
    let mut gateway = start_with_small_disk(&world(&node), 1, "true");
    push(&mut gateway, 0, "now=true");
    let filler = fill_disk(&gateway);
    let wasm = routing_plugin(Behaviour::Numbered(1));
    let pushed = gateway.push("routing", &wasm);
    assert_eq!(
        (&pushed["error"]["code"], &pushed["outcome"]),
        (&json!("unconfirmed"), &json!("activated"))
    );
    let active = policy(&mut gateway)["revision"].clone();
    let force = json!({"force": true});
    let drain = async |client: &mut ApiClient| client.post("/v1/nodes/east-a1:drain", &force).await;
    let drained = gateway.ask(drain).unwrap_err().to_string();
    assert!(
        drained.contains("503 unconfirmed: executed, but not written to the disk"),
        "{drained}"
    );
    assert_eq!(gateway.read("/v1/nodes")["nodes"][0]["draining"], true);

    fs::remove_file(&filler).unwrap();
    gateway.post("/v1/nodes/east-a1:undrain", &json!({}));
    let pushed = push(&mut gateway, 2, "now=true");
    assert_ne!(pushed, active);
    let mut ann = Phone::new(1);
    gateway.open("room", &mut ann);
}

#[test]
fn canary_continues_after_an_upgrade() {
    let node = Node::agent("east-a1");
    let mut world = world(&node);
    // The process that is replaced has the plugins; no file has.
    world.gateway = "cache = \"none\"\n".into();
    let mut gateway = GatewayProcess::start(&world);
    push(&mut gateway, 0, "now=true");
    push(&mut gateway, 1, "canary=20&pace=1h");
    let before = decided(&mut gateway);
    for _ in 0..2 {
        let upgraded = gateway.upgrade(json!({})).join().unwrap().unwrap();
        gateway.note_successor(upgraded["pid"].as_i64().unwrap() as i32);
        assert_eq!(decided(&mut gateway), before);
    }
    act(&mut gateway, "abort");
    assert_eq!(decided(&mut gateway)["candidate"], Value::Null);
}

#[test]
fn quarantined_file_stays_out_after_a_kill() {
    let node = Node::agent("east-a1");
    let mut gateway = GatewayProcess::start(&world(&node));
    let good = decided(&mut gateway)["active"].clone();
    let harmful = gateway.folder().join("policies").join("mine.wasm");
    fs::write(harmful, routing_plugin(Behaviour::TrapsFromRoom(0, 0))).unwrap();
    save(&gateway, "[routing]\nplugin = \"mine.wasm\"\n[rollout]\ncanary = []\nshadow = \"0s\"\n");
    wait_until("the file is active", || decided(&mut gateway)["active"] != good);
    let mut rooms = 0..;
    wait_until("it is rolled back", || {
        let mut phone = Phone::new(rooms.next().unwrap());
        gateway.open(&format!("room-{}", phone.number), &mut phone);
        decided(&mut gateway)["active"] == good
    });
    let before = decided(&mut gateway);
    assert_eq!(before["quarantined"].as_array().unwrap().len(), 1);
    await_kept(&mut gateway);
    kill_and_start(&mut gateway);
    let after = decided(&mut gateway);
    assert_eq!((&after["active"], &after["quarantined"]), (&good, &before["quarantined"]));
}

#[test]
fn file_changed_without_a_process_is_rolled_out() {
    let node = Node::agent("east-a1");
    let mut gateway = GatewayProcess::start(&world(&node));
    let active = decided(&mut gateway)["active"].clone();
    await_kept(&mut gateway);
    gateway.process.signal(Signal::SIGKILL).unwrap();
    gateway.process.wait(TIMEOUT).unwrap();
    save(
        &gateway,
        "[routing]\nplugin = \"route-nearest\"\nsettings = { min_stay = \"30m\" }\n\
         [rollout]\ncanary = [20]\npace = \"1h\"\nshadow = \"0s\"\n",
    );
    gateway.start_again();
    wait_until("the changed file is a canary", || decided(&mut gateway)["percent"] == 20);
    let before = decided(&mut gateway);
    assert_eq!(before["active"], active, "the revision of the old file decides for the others");
    await_kept(&mut gateway);
    kill_and_start(&mut gateway);
    assert_eq!(decided(&mut gateway), before);
}

#[test]
fn canary_of_a_removed_policy_is_forgotten() {
    let node = Node::agent("east-a1");
    let mut gateway = GatewayProcess::start(&world(&node));
    push(&mut gateway, 1, "canary=20,60&pace=1h");
    assert_eq!(decided(&mut gateway)["percent"], 20);
    for table in ["", "[routing]\nplugin = \"route-nearest\"\n"] {
        gateway.process.signal(Signal::SIGKILL).unwrap();
        gateway.process.wait(TIMEOUT).unwrap();
        save(&gateway, table);
        gateway.start_again();
        await_kept(&mut gateway);
    }
    assert_eq!(decided(&mut gateway)["candidate"], Value::Null);
}

/// The documentation of groups, followed: a canary at 20 %, the owner is killed, and the canary continues as planned, to 100 %.
#[required(Namespaces)]
#[test]
fn canary_continues_at_the_standby() {
    let place = Hosts::lay();
    let node = place.node();
    let [mut owner, mut standby] = place.routed_group_before(&node.text());
    // Either gateway takes pushes.
    let active = push(&mut standby, 0, "now=true");
    let candidate = push(&mut owner, 1, "canary=20,40&pace=1s");
    await_replica(&mut owner);
    let before = decided(&mut owner);
    assert_eq!((&before["active"], &before["candidate"]), (&active, &candidate));
    owner.process.signal(Signal::SIGKILL).unwrap();
    wait_until("the standby owns the address", || place.has_address(1));
    // A plugin that was pushed just before is compiled meanwhile.
    wait_until("the standby decides as the owner did", || decided(&mut standby) == before);
    let (client, mut rooms) = (place.client.address(), 0..);
    let mut percents = BTreeSet::new();
    // Each step needs rooms that the candidate decided for.
    wait_until("the canary is active", || {
        let room = rooms.next().unwrap();
        let ingress = OfferIngress::declared((client, 10_000 + room).into());
        let offer = GatewayProcess::offer(&format!("room-{room}"), ingress);
        standby.ask(async |client| client.open(&offer).await).unwrap();
        let decided = decided(&mut standby);
        percents.extend(decided["percent"].as_u64());
        let is_active = decided["active"] == candidate;
        assert!(is_active || decided["candidate"] == candidate, "{decided}");
        is_active
    });
    assert!(percents.is_subset(&[20, 40].into()), "{percents:?}");
    assert_eq!(decided(&mut standby)["previous"], active);

    // The member that returns continues the owner's revisions in place of those in its files.
    let decisions = decided(&mut standby);
    {
        let _inside = place.gateways[0].enter().unwrap();
        owner.start_again();
    }
    await_replica(&mut standby);
    standby.process.signal(Signal::SIGKILL).unwrap();
    wait_until("the first member owns the address", || place.has_address(0));
    wait_until("it decides as the owner did", || decided(&mut owner) == decisions);
}
