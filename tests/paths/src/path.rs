//! The seven paths, each played by a gateway of its own.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use evenkeel_guests::module::Module;
use evenkeel_lab::network::{Host, INTERFACE, NamespaceNetwork, PREFIX};
use evenkeel_model::Hook;
use serde_json::json;
use tempfile::TempDir;

use crate::coverage::Snapshot;
use crate::gateway::{Gateway, Node, Phone, Settings, wait_until};

/// Time for what a preparation set in motion to end.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// Windows without the path, each as long as the path.
const IDLE_WINDOWS: usize = 3;

/// Native policies, and routing by delay that asks nothing again.
const ROUTED: &str = "[scenario.call]\nawait_first_packet = false\n[routing]\nplugin = \"route-nearest\"\n\
                      settings = { review_interval = \"0s\", min_stay = \"1h\" }\n";

/// The counters before and after a run.
pub(crate) type Run = (Snapshot, Snapshot);

/// Counters of one gateway.
pub(crate) struct Observed {
    /// Windows without the path, each as long as the path. A function that is called in half of them belongs to no path.
    pub(crate) idle: Vec<Run>,
    /// The functions of the path are called in each of these.
    pub(crate) runs: Vec<Run>,
    /// The snapshots' folder.
    pub(crate) _folder: TempDir,
}

pub(crate) struct PlayedPath {
    pub(crate) id: &'static str,
    pub(crate) play: fn(&Path) -> Result<Observed, String>,
}

pub(crate) const ALL: [PlayedPath; 7] = [
    PlayedPath { id: "packet", play: packet },
    PlayedPath { id: "offer", play: offer },
    PlayedPath { id: "routing", play: routing },
    PlayedPath { id: "node-death", play: node_death },
    PlayedPath { id: "reload", play: reload },
    PlayedPath { id: "takeover", play: takeover },
    PlayedPath { id: "push", play: push },
];

/// The reason for which a path cannot be played on this machine.
pub(crate) fn skipped(id: &str) -> Option<&'static str> {
    (id == "takeover" && !nix::unistd::geteuid().is_root())
        .then_some("needs root, for network namespaces")
}

/// Observes the gateway without the path, then with it.
fn observe(
    gateway: Gateway,
    time: Duration,
    begin: impl FnOnce(&Gateway) -> Result<(), String>,
    check: impl FnOnce(&mut Gateway) -> Result<(), String>,
) -> Result<Observed, String> {
    let mut gateway = gateway;
    let idle = idle_windows(&gateway, time)?;
    let before = gateway.snapshot()?;
    begin(&gateway)?;
    sleep(time);
    let run = (before, gateway.snapshot()?);
    check(&mut gateway)?;
    Ok(Observed { idle, runs: vec![run], _folder: gateway.leave() })
}

fn idle_windows(gateway: &Gateway, time: Duration) -> Result<Vec<Run>, String> {
    (0..IDLE_WINDOWS).map(|_| gateway.idle(time)).collect()
}

fn expect(what: &str, holds: bool) -> Result<(), String> {
    holds.then_some(()).ok_or_else(|| format!("the path was not completed: {what}"))
}

fn nodes() -> Result<[Node; 2], String> {
    Ok([Node::start("east-a", "127.0.0.1:0")?, Node::start("east-b", "127.0.0.1:0")?])
}

/// Starts a gateway and opens a session.
fn with_session(program: &Path, settings: &Settings) -> Result<(Gateway, Phone), String> {
    let mut gateway = Gateway::start(program, settings)?;
    let mut phone = Phone::bind("127.0.0.1:0")?;
    gateway.open(&mut phone)?;
    sleep(SETTLED_AFTER);
    Ok((gateway, phone))
}

/// A packet from a client to its node, which does not answer meanwhile.
fn packet(program: &Path) -> Result<Observed, String> {
    /// Shorter than the interval of the sessions' summaries. Some runs contain one, and none is part of all.
    const TIME: Duration = Duration::from_millis(60);
    let nodes = [Node::start("east-a", "127.0.0.1:0")?];
    let (gateway, phone) = with_session(program, &Settings::new(&nodes.each_ref(), ROUTED))?;
    let (mut idle, mut runs, mut sequence) = (Vec::new(), Vec::new(), 0..);
    let mut send = || {
        sleep(Duration::from_millis(20));
        sequence.next().map_or(Ok(()), |number| phone.send(number))
    };
    (0..50).try_for_each(|_| send())?;
    sleep(SETTLED_AFTER);
    expect("packets return", phone.received() > 0)?;
    for _ in 0..10 {
        nodes[0].stop(true);
        idle.push(gateway.idle(TIME)?);
        let before = gateway.snapshot()?;
        send()?;
        send()?;
        sleep(TIME);
        runs.push((before, gateway.snapshot()?));
        expect("the node does not answer meanwhile", phone.received() == 0)?;
        nodes[0].stop(false);
        sleep(TIME * 3);
        expect("the packets have arrived", phone.received() == 2)?;
    }
    Ok(Observed { idle, runs, _folder: gateway.leave() })
}

/// An offer of a session in a new room, with all policies of the embedded set `call`.
fn offer(program: &Path) -> Result<Observed, String> {
    let nodes = nodes()?;
    let call = include_str!("../../../policies/call.toml");
    let mut gateway = Gateway::start(program, &Settings::new(&nodes.each_ref(), call))?;
    sleep(SETTLED_AFTER);
    let time = Duration::from_secs(1);
    let idle = idle_windows(&gateway, time)?;
    let before = gateway.snapshot()?;
    gateway.open(&mut Phone::bind("127.0.0.1:0")?)?;
    sleep(time);
    let run = (before, gateway.snapshot()?);
    Ok(Observed { idle, runs: vec![run], _folder: gateway.leave() })
}

/// Routing is asked about a room when its review is due, and moves the room to a node that came up since.
fn routing(program: &Path) -> Result<Observed, String> {
    /// Longer than the preparation and the idle windows, and shorter than the media timeout of the session.
    const REVIEWED_AFTER: Duration = Duration::from_secs(25);
    /// The review is due in the middle of the path's window.
    const WINDOW: Duration = Duration::from_secs(3);
    let (mut near, far) =
        (Node::start("east-a", "127.0.0.1:0")?, Node::start("west-a", "127.0.0.1:0")?);
    near.kill();
    let call = ROUTED.replace("0s", &format!("{REVIEWED_AFTER:?}")).replace("1h", "1s");
    let mut gateway = Gateway::start(program, &Settings::new(&[&near, &far], &call))?;
    wait_until("the far node is up", || Ok(gateway.health("west-a")? == "up"))?;
    let mut phone = Phone::bind("127.0.0.1:0")?;
    gateway.open(&mut phone)?;
    let opened = std::time::Instant::now();
    near.revive()?;
    wait_until("the near node is up", || Ok(gateway.health("east-a")? == "up"))?;
    expect("the room begins at the far node", gateway.hop()? == "west-a")?;
    wait_until("the near node is the room's standby", || {
        let rooms = gateway.read("/v1/rooms")?;
        Ok(rooms["rooms"][0]["route"].as_array().is_some_and(|route| route.len() == 2))
    })?;
    // A node that came up gets few rooms for 2 s.
    sleep(SETTLED_AFTER * 3);
    let idle = idle_windows(&gateway, WINDOW)?;
    let due = REVIEWED_AFTER.saturating_sub(opened.elapsed());
    sleep(due.checked_sub(WINDOW / 2).ok_or("the machine is too slow for the idle windows")?);
    let run = gateway.idle(WINDOW)?;
    expect("the room is at the near node", gateway.hop()? == "east-a")?;
    Ok(Observed { idle, runs: vec![run], _folder: gateway.leave() })
}

/// The node of a session ends, and the session continues at the other one.
fn node_death(program: &Path) -> Result<Observed, String> {
    let mut nodes = nodes()?;
    let (mut gateway, phone) = with_session(program, &Settings::new(&nodes.each_ref(), ROUTED))?;
    let hop = gateway.hop()?;
    let (dying, other) = if hop == "east-a" { (0, "east-b") } else { (1, "east-a") };
    // A connection of the API that was used last ends before the idle run.
    sleep(SETTLED_AFTER);
    let observed = observe(
        gateway,
        Duration::from_secs(2),
        |_| {
            nodes[dying].kill();
            Ok(())
        },
        |gateway| expect("the room is at the other node", gateway.hop()? == other),
    );
    drop(phone);
    observed
}

/// A revision of a plugin that leaves every decision to the gateway.
fn plugin(version: &str) -> Vec<u8> {
    Module::honest(Hook::Routing).manifest_key("version", json!(version)).build()
}

/// A saved plugin replaces the active one after its shadow stage. A canary of one silent session would not be judged.
fn reload(program: &Path) -> Result<Observed, String> {
    let nodes = nodes()?;
    let call = "[scenario.call]\nawait_first_packet = false\n[routing]\nplugin = \"route.wasm\"\n\
                [rollout]\nshadow = \"1s\"\ncanary = []\n";
    let mut settings = Settings::new(&nodes.each_ref(), call);
    settings.files.push(("route.wasm", plugin("1.0.0")));
    let (mut gateway, phone) = with_session(program, &settings)?;
    let active = gateway.revision()?;
    sleep(SETTLED_AFTER);
    let observed = observe(
        gateway,
        Duration::from_secs(8),
        |gateway| {
            let file = gateway.policy_file("route.wasm");
            let next = file.with_extension("next");
            let saved = fs::write(&next, plugin("1.0.1")).and_then(|()| fs::rename(&next, &file));
            saved.map_err(|error| format!("{}: {error}", file.display()))
        },
        |gateway| expect("the saved revision is active", gateway.revision()? != active),
    );
    drop(phone);
    observed
}

/// A pushed plugin replaces the active one at once.
fn push(program: &Path) -> Result<Observed, String> {
    let nodes = nodes()?;
    let (mut gateway, phone) = with_session(program, &Settings::new(&nodes.each_ref(), ROUTED))?;
    let active = gateway.revision()?;
    sleep(SETTLED_AFTER);
    let time = Duration::from_secs(3);
    let idle = idle_windows(&gateway, time)?;
    let before = gateway.snapshot()?;
    gateway.ask(async |client| client.push("call", "routing", &plugin("1.0.0")).await)?;
    sleep(time);
    let run = (before, gateway.snapshot()?);
    expect("the pushed revision is active", gateway.revision()? != active)?;
    drop(phone);
    Ok(Observed { idle, runs: vec![run], _folder: gateway.leave() })
}

/// The owner of a group's address is killed, and its standby continues its session.
fn takeover(program: &Path) -> Result<Observed, String> {
    const SHARED: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
    let network = NamespaceNetwork::lay()?;
    let host = |name, number| network.host(name, Ipv4Addr::new(10, 77, 0, number));
    let edges = [host("edge-1", 1)?, host("edge-2", 2)?];
    let (client, server) = (host("client", 10)?, host("node", 20)?);
    let node = {
        let _inside = server.enter()?;
        Node::start("east-a", &format!("{}:0", server.address()))?
    };
    let start = |own: &Host, peer: &Host| {
        let mut settings = Settings::new(&[&node], ROUTED);
        settings.listen = format!("{SHARED}:7000");
        settings.tables += &format!(
            "[cluster]\nname = \"{}\"\nsecret_file = \"cluster.secret\"\nlisten = \"{}:7100\"\n\
             preferred = {}\n[cluster.peer]\nname = \"{}\"\naddress = \"{}:7100\"\n\
             [[cluster.address]]\naddress = \"{SHARED}/{PREFIX}\"\ninterface = \"{INTERFACE}\"\n",
            own.name(),
            own.address(),
            own.name() == "edge-1",
            peer.name(),
            peer.address(),
        );
        let _inside = own.enter()?;
        Gateway::begin(program, &settings)
    };
    let (mut owner, standby) = (start(&edges[0], &edges[1])?, start(&edges[1], &edges[0])?);
    wait_until("the owner admits sessions", || owner.is_ready())?;
    let mut phone = {
        let _inside = client.enter()?;
        Phone::bind(&format!("{}:0", client.address()))?
    };
    owner.open(&mut phone)?;
    wait_until("the standby has all records", || {
        let seen = owner.read("/v1/gateways")?;
        let mut gateways = seen["gateways"].as_array().into_iter().flatten();
        Ok(gateways.any(|gateway| gateway["role"] == "standby" && gateway["in_sync"] == true))
    })?;
    sleep(SETTLED_AFTER);
    observe(
        standby,
        Duration::from_secs(3),
        |_| {
            owner.process.kill();
            Ok(())
        },
        |standby| {
            expect("the session continues", standby.has_logged("sessions continue at this gateway"))
        },
    )
}
