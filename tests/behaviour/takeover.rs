//! Takeovers and hand-overs in a group of gateways, on hosts of their own.

mod ng_server;
mod operator;
mod rtpengine;

use std::fs::OpenOptions;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command};

use evenkeel_testkit::binary::evenkeel;
use evenkeel_testkit::nats::NatsServer;
use evenkeel_testkit::required;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use ng_server::NgServer;

use crate::harness::{
    AgentFiles, GATEWAYS, GatewayProcess, Hosts, NODE, Phone, SHARED, TIMEOUT, assert_complete,
    assert_continuous, await_armed, await_replica, ids, offer_with_key, talk, talk_for, trace_ids,
    try_offer_with_key, wait_until,
};
use crate::index;
use crate::relay::metric;
use crate::upgrade::Calls;

/// Packets of the client between events.
const PACKETS: u64 = 50;

pub(crate) fn hand_over(owner: &GatewayProcess, to: &str) -> Child {
    let mut command = Command::new(evenkeel());
    let socket = owner.folder().join("admin.sock");
    command.args(["gateway", "hand-over", "--to", to, "--api"]).arg(&socket).spawn().unwrap()
}

fn ng_server(place: &Hosts) -> NgServer {
    let _inside = place.node.enter().unwrap();
    NgServer::start(NODE)
}

/// Starts both gateways before a media server, which has no agent.
fn group_without_agent(place: &Hosts, server: &NgServer, keys: &str) -> [GatewayProcess; 2] {
    let mut gateways = place.group_before(&ng_node(server), keys);
    gateways.iter_mut().for_each(await_node);
    gateways
}

/// A node of a media server. Its sessions have ports of their own.
fn ng_node(server: &NgServer) -> String {
    format!(
        "[[node]]\nname = \"east-a1\"\nregion = \"east\"\nzone = \"a\"\ncapacity = \"200 Mbit/s\"\n\
         driver = \"rtpengine\"\nng = \"{}\"\n",
        server.ng
    )
}

fn await_node(gateway: &mut GatewayProcess) {
    wait_until("the node is up", || gateway.read("/v1/nodes")["nodes"][0]["health"] == "up");
}

/// Waits until the second gateway owns the address, and answers as the owner.
fn await_owner(place: &Hosts, standby: &mut GatewayProcess) {
    wait_until("the standby owns", || {
        let listed = standby.ask(async |client| client.list("sessions").await);
        place.has_address(1) && listed.is_ok()
    });
}

/// Drops each ICMP error that the host of the first gateway sends.
fn drop_icmp(place: &Hosts) {
    let _inside = place.gateways[0].enter().unwrap();
    let words = "add table ip test; add chain ip test out { type filter hook output priority 0; }; \
                 add rule ip test out icmp type destination-unreachable drop";
    assert!(Command::new("nft").arg(words).status().unwrap().success());
}

/// Opens a session at a media server, kills its gateway, and has the standby continue it.
fn take_over_port_leg(place: &Hosts, keys: &str) -> ng_server::NgRecord {
    let (server, mut ann) = (ng_server(place), place.phone());
    let [mut owner, mut standby] = group_without_agent(place, &server, keys);
    owner.open("room", &mut ann);
    let (opened, traces) = (ids(&mut owner), trace_ids(&mut owner));
    talk_for(&mut [&mut ann], PACKETS);
    await_replica(&mut owner);
    owner.process.signal(Signal::SIGKILL).unwrap();
    expect_echo(&mut ann, "packets arrive again");
    assert_eq!((ids(&mut standby), trace_ids(&mut standby)), (opened, traces));
    assert_continuous(&ann.heard);
    let seen = server.seen();
    assert_eq!((seen.repeated, seen.deleted), (0, 0), "no number comes twice, no call ends");
    seen
}

/// Talks until the echo of the next packets is heard.
fn expect_echo(phone: &mut Phone, what: &str) {
    let heard = phone.heard.len();
    talk(&mut [phone], what, |phones| phones[0].heard.len() >= heard + PACKETS as usize);
}

/// The processes that the gateway started.
fn children(gateway: &GatewayProcess) -> Vec<Pid> {
    let pid = gateway.pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
}

/// The process that holds the addresses of the group.
fn holder(gateway: &GatewayProcess) -> Pid {
    let holds = |pid: &Pid| {
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.contains("hold-addresses")
    };
    children(gateway).into_iter().find(holds).expect("each member has one")
}

/// Each process of the gateway's service gets the signal, as `systemctl stop` sends it.
fn stop_service(gateway: &GatewayProcess) {
    for process in children(gateway).into_iter().chain([gateway.pid()]) {
        kill(process, Signal::SIGTERM).unwrap();
    }
}

/// The exit status of `evenkeel gateway can-stop`.
fn can_stop(gateway: &GatewayProcess) -> Option<i32> {
    let socket = gateway.folder().join("admin.sock");
    let mut command = Command::new(evenkeel());
    command.args(["gateway", "can-stop", "--api"]).arg(socket).status().unwrap().code()
}

#[required(Namespaces)]
#[test]
fn stopped_owner_hands_its_calls_to_the_standby() {
    let place = Hosts::lay();
    let (node, mut ann) = (place.node(), place.phone());
    let [mut owner, mut standby] = place.group(&node);
    owner.open("room", &mut ann);
    let opened = ids(&mut owner);
    talk_for(&mut [&mut ann], PACKETS);
    await_replica(&mut owner);
    wait_until("either may be stopped", || {
        (can_stop(&owner), can_stop(&standby)) == (Some(0), Some(0))
    });
    stop_service(&owner);
    expect_echo(&mut ann, "packets arrive again");
    assert_eq!(owner.process.wait(TIMEOUT).unwrap().code(), Some(0));
    assert!(place.has_address(1));
    assert_eq!(ids(&mut standby), opened);
    assert_continuous(&ann.heard);
    wait_until("it has no standby", || can_stop(&standby) == Some(1));

    // Without a standby the owner drains: its calls end at the second signal.
    stop_service(&standby);
    standby.await_log("shutting down");
    stop_service(&standby);
    assert_eq!(standby.process.wait(TIMEOUT).unwrap().code(), Some(0));
}

#[required(Namespaces)]
#[test]
fn killed_gateway_is_replaced_by_its_standby() {
    let place = Hosts::lay();
    let (node, mut ann) = (place.node(), place.phone());
    let [mut owner, mut standby] = place.group(&node);
    owner.open("room", &mut ann);
    let opened = ids(&mut owner);
    // Without a fault every packet comes back, through the owner.
    talk_for(&mut [&mut ann], PACKETS);
    ann.hear_rest();
    assert_complete(&ann.heard, 0, ann.voice.sent);
    assert_eq!((ids(&mut standby), place.has_address(1)), (opened.clone(), false), "relayed");
    let lag = "evenkeel_group_lag_seconds";
    wait_until("the rehearsal is shown", || {
        metric(&mut standby, "evenkeel_group_unready", "") == Some(0)
    });
    wait_until("the owner's lag is shown", || metric(&mut owner, lag, "").is_some());
    assert_eq!(metric(&mut standby, lag, ""), None);

    owner.process.signal(Signal::SIGKILL).unwrap();
    expect_echo(&mut ann, "packets arrive again");
    assert!(place.has_address(1));
    assert_eq!(ids(&mut standby), opened);
    assert_continuous(&ann.heard);
    let times = "evenkeel_group_takeover_duration_seconds_count";
    wait_until("the takeover is measured", || {
        ["decision", "continuation"].map(|phase| metric(&mut standby, times, phase)) == [Some(1); 2]
    });

    // The first member returns as standby, and takes over in turn.
    {
        let _inside = place.gateways[0].enter().unwrap();
        owner.start_again();
    }
    await_replica(&mut standby);
    wait_until("the lifetime of its address is over", || !place.has_address(0));
    expect_echo(&mut ann, "its return changes nothing");
    standby.process.signal(Signal::SIGKILL).unwrap();
    expect_echo(&mut ann, "packets arrive once more");
    assert_eq!(ids(&mut owner), opened);
    assert_continuous(&ann.heard);
}

/// No agent is beside the node, so silence replaces no gateway here.
#[required(Namespaces, Nft)]
#[test]
fn agent_shows_an_end_that_icmp_does_not() {
    let place = Hosts::lay();
    drop_icmp(&place);
    let files = AgentFiles::new();
    let agent = {
        let _inside = place.gateways[0].enter().unwrap();
        files.gateway_agent()
    };
    let (server, mut ann) = (ng_server(&place), place.phone());
    let [mut owner, mut standby] = place.group_with_agents(&ng_node(&server));
    [&mut owner, &mut standby].into_iter().for_each(await_node);
    owner.open("room", &mut ann);
    let opened = ids(&mut owner);
    talk_for(&mut [&mut ann], PACKETS);
    await_replica(&mut owner);

    let upgrading = owner.upgrade(json!({}));
    talk(&mut [&mut ann], "the upgrade is answered", |_| upgrading.is_finished());
    let upgraded = upgrading.join().unwrap().unwrap();
    owner.note_successor(upgraded["pid"].as_i64().unwrap() as i32);
    await_replica(&mut owner);
    expect_echo(&mut ann, "packets arrive from the new process");
    assert!(!agent.process.log().contains("ended"), "{}", agent.process.log());
    assert!(!place.has_address(1));

    kill(owner.pid(), Signal::SIGKILL).unwrap();
    expect_echo(&mut ann, "packets arrive again");
    assert_eq!(ids(&mut standby), opened);
    assert_continuous(&ann.heard);
    wait_until("the agent tells", || agent.process.log().contains("gateway's process ended"));
    wait_until("the log names the witness", || {
        let log = standby.process.log();
        log.lines().any(|line| line.contains("peer's process ended") && line.contains("\"agent\""))
    });
}

#[required(Namespaces)]
#[test]
fn handed_over_call_continues_at_the_standby() {
    let place = Hosts::lay();
    let (node, mut ann) = (place.node(), place.phone());
    let [mut owner, mut standby] = place.group(&node);
    owner.open("room", &mut ann);
    talk_for(&mut [&mut ann], PACKETS);
    await_replica(&mut owner);
    let opened = ids(&mut owner);
    for gateway in [&mut owner, &mut standby] {
        wait_until("both have the session", || {
            let seen = gateway.read("/v1/gateways");
            (0..2).all(|at| seen["gateways"][at]["sessions"] == 1)
        });
    }
    let mut handing = hand_over(&owner, "edge-2");
    talk(&mut [&mut ann], "the hand-over is answered", |_| handing.try_wait().unwrap().is_some());
    assert!(handing.wait().unwrap().success());
    expect_echo(&mut ann, "packets arrive at the other member");
    assert_eq!((place.has_address(0), place.has_address(1)), (false, true));
    assert_eq!(ids(&mut standby), opened);
    assert_continuous(&ann.heard);
}

#[required(Namespaces)]
#[test]
fn hand_over_loses_no_packet() {
    let place = Hosts::lay();
    let node = place.node();
    let [mut owner, _standby] = place.group(&node);
    let phones = (1..=16).map(|number| place.phone_of(number)).collect();
    let mut calls = Calls::of(&mut owner, phones);
    await_replica(&mut owner);
    let mut handing = hand_over(&owner, "edge-2");
    talk(&mut calls.phones(), "the hand-over is answered", |_| {
        handing.try_wait().unwrap().is_some()
    });
    assert!(handing.wait().unwrap().success());
    calls.talk(PACKETS);
    assert_eq!((place.has_address(0), place.has_address(1)), (false, true));
    calls.assert_whole();
}

#[required(Namespaces)]
#[test]
fn refused_hand_over_ends_at_once() {
    let place = Hosts::lay();
    let (node, mut ann) = (place.node(), place.phone());
    let [mut owner, mut standby] = place.group(&node);
    owner.open("room", &mut ann);
    talk_for(&mut [&mut ann], PACKETS);
    // Without a standby the owner drains.
    standby.process.signal(Signal::SIGKILL).unwrap();
    standby.process.wait(TIMEOUT).unwrap();
    wait_until("the standby is silent", || {
        owner.read("/v1/gateways")["gateways"][1]["role"] == "silent"
    });
    owner.process.signal(Signal::SIGTERM).unwrap();
    wait_until("it drains", || owner.read("/v1/status")["state"] == "draining");
    {
        let _inside = place.gateways[1].enter().unwrap();
        standby.start_again();
    }
    await_replica(&mut owner);
    // The second finds nothing left of the first.
    for _ in 0..2 {
        // A batch may be on its way to the standby, which then lacks it.
        wait_until("control refuses", || {
            let path = "/v1/gateway:hand-over";
            let to = json!({"to": "edge-2"});
            let refused = owner.ask(async |client| client.post(path, &to).await).unwrap_err();
            assert!(!refused.to_string().contains("under way"), "{refused}");
            refused.to_string().contains("shutting down")
        });
    }
    expect_echo(&mut ann, "packets arrive at the owner");
}

#[required(Namespaces)]
#[test]
fn former_owner_is_listed_without_a_copy() {
    let place = Hosts::lay();
    let node = place.node();
    let [mut first, mut second] = place.group(&node);
    await_replica(&mut first);
    assert!(hand_over(&first, "edge-2").wait().unwrap().success());
    first.process.wait(TIMEOUT).unwrap();
    {
        let _inside = place.gateways[0].enter().unwrap();
        first.start_again();
    }
    await_replica(&mut second);
    // The second gateway had a copy before it owned.
    let mut handing = hand_over(&second, "edge-1");
    wait_until("the first gateway owns, and its peer has ended", || {
        let seen = first.read("/v1/gateways");
        let gateways = seen["gateways"].as_array().unwrap();
        let owns = gateways.iter().any(|it| it["here"] == true && it["role"] == "owner");
        let peer = gateways.iter().find(|it| it["here"] == false).unwrap();
        assert!(!owns || peer["in_sync"] == false, "{seen}");
        owns && peer["role"] == "silent"
    });
    assert!(handing.wait().unwrap().success());
}

#[required(Namespaces)]
#[test]
fn ids_and_keys_continue_without_sessions() {
    let place = Hosts::lay();
    let (node, ann) = (place.node(), place.phone());
    let [mut owner, mut standby] = place.group(&node);
    await_replica(&mut owner);
    let opened = offer_with_key(&mut owner, "first", &ann);
    owner.ask(async |client| client.close(opened["id"].as_str().unwrap()).await).unwrap();
    owner.process.signal(Signal::SIGKILL).unwrap();
    wait_until("the survivor admits sessions", || {
        standby.ask(async |client| client.is_ready().await).unwrap()
    });
    let again = try_offer_with_key(&mut standby, "first", &ann).unwrap_err().to_string();
    assert!(again.contains(opened["id"].as_str().unwrap()), "{again}");
    assert_eq!(ids(&mut standby), Vec::<String>::new(), "the repetition opened nothing");
    let other = offer_with_key(&mut standby, "second", &ann);
    assert_eq!(ids(&mut standby), [other["id"].as_str().unwrap()]);
    assert_ne!(other["id"], opened["id"]);
}

#[required(Namespaces)]
#[test]
fn port_legs_stay_where_their_address_moves() {
    let place = Hosts::lay();
    let seen = take_over_port_leg(&place, "port_legs = true\n");
    let signalled: Vec<IpAddr> = seen.signalled.iter().map(SocketAddr::ip).collect();
    assert_eq!(signalled, [IpAddr::from(SHARED)], "it is told nothing new");
    assert_eq!(seen.calls.len(), 1);
}

#[required(Namespaces)]
#[test]
fn port_legs_on_other_ports_keep_their_call() {
    let place = Hosts::lay();
    let seen = take_over_port_leg(&place, "");
    let signalled: Vec<IpAddr> = seen.signalled.iter().map(SocketAddr::ip).collect();
    let both = [GATEWAYS[0], GATEWAYS[1]].map(|(_, address)| IpAddr::from(address));
    assert_eq!(signalled, both);
    assert_eq!(seen.calls.len(), 1, "the same call, elsewhere");
}

/// As the kernel ends it when memory is short.
#[required(Namespaces)]
#[test]
fn killed_holder_moves_the_addresses() {
    let place = Hosts::lay();
    let (node, mut ann) = (place.node(), place.phone());
    let [mut owner, mut standby] = place.group(&node);
    owner.open("room", &mut ann);
    let opened = ids(&mut owner);
    talk_for(&mut [&mut ann], PACKETS);
    await_replica(&mut owner);
    kill(holder(&owner), Signal::SIGKILL).unwrap();
    expect_echo(&mut ann, "packets arrive again");
    assert!(place.has_address(1));
    assert_eq!(ids(&mut standby), opened);
    assert_continuous(&ann.heard);
    assert_eq!(owner.process.wait(TIMEOUT).unwrap().code(), Some(1), "its supervisor starts it");

    // A standby that could not take over ends as well, before it is needed.
    {
        let _inside = place.gateways[0].enter().unwrap();
        owner.start_again();
    }
    await_replica(&mut standby);
    kill(holder(&owner), Signal::SIGKILL).unwrap();
    assert_eq!(owner.process.wait(TIMEOUT).unwrap().code(), Some(1));
    let log = owner.process.log();
    assert!(log.contains("`evenkeel hold-addresses` has ended"), "{log}");
}

#[required(Namespaces)]
#[test]
fn upgrade_to_another_member_is_refused() {
    let place = Hosts::lay();
    let node = place.node();
    let [owner, _standby] = place.group(&node);
    let config = owner.folder().join("evenkeel.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replacen("name = \"edge-1\"", "name = \"edge-3\"", 1)).unwrap();
    let refused = owner.upgrade(json!({})).join().unwrap().unwrap_err().to_string();
    assert!(refused.contains("`name` of [cluster] changed"), "{refused}");
    assert!(!owner.process.log().contains("standby may not take over"), "nothing was begun");
}

/// The scheduling policy of the thread that sends a member's beats (proc(5), `/proc/PID/stat`).
fn policy_of_beats(process: u32) -> i32 {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    // A thread may end meanwhile.
    let stats = threads.filter_map(|it| std::fs::read_to_string(it.ok()?.path().join("stat")).ok());
    let beats = stats.filter_map(|stat| {
        let (name, fields) = stat.rsplit_once(") ").unwrap();
        let is_cluster = name.ends_with("(evenkeel-cluste");
        is_cluster.then(|| fields.split(' ').nth(38).unwrap().parse().unwrap())
    });
    beats.last().unwrap()
}

/// A beat that waits for packets and other threads costs the ownership.
#[required(Namespaces, RealTime)]
#[test]
fn beats_stay_real_time_after_an_upgrade() {
    let place = Hosts::lay();
    let node = place.node();
    let [mut owner, _standby] = place.group(&node);
    assert_eq!(policy_of_beats(owner.process.id()), nix::libc::SCHED_RR);
    await_replica(&mut owner);
    for upgrade in ["of a process that root started", "of one without capabilities"] {
        let upgraded = owner.upgrade(json!({})).join().unwrap().unwrap();
        let successor = upgraded["pid"].as_i64().unwrap() as i32;
        owner.note_successor(successor);
        assert_eq!(
            policy_of_beats(successor as u32),
            nix::libc::SCHED_RR,
            "after an upgrade {upgrade}"
        );
    }
}

/// Stops the owner, which the standby replaces with the same sessions, and lets it find out.
fn expect_replacement([mut owner, mut standby]: [GatewayProcess; 2], ann: &mut Phone) {
    let opened = ids(&mut owner);
    owner.process.signal(Signal::SIGSTOP).unwrap();
    expect_echo(ann, "packets arrive again");
    assert_eq!(ids(&mut standby), opened);
    assert_continuous(&ann.heard);
    // The former owner sends nothing, and its process ends.
    owner.process.signal(Signal::SIGCONT).unwrap();
    assert_eq!(owner.process.wait(TIMEOUT).unwrap().code(), Some(1));
    expect_echo(ann, "the new owner goes on");
}

/// No node has an agent: a witness on a third host decides.
#[required(Namespaces)]
#[test]
fn witness_lets_the_standby_replace_a_silent_owner() {
    let place = Hosts::lay();
    let (server, mut ann, files) = (ng_server(&place), place.phone(), AgentFiles::new());
    let witness = {
        let _inside = place.client.enter().unwrap();
        files.witness("w1", &format!("{}:7300", place.client.address()))
    };
    let keys = format!(
        "port_legs = true\n[[cluster.witness]]\nname = \"w1\"\naddress = \"{}\"\nsecret_file = \"secret\"\n",
        witness.address
    );
    let [mut owner, standby] = group_without_agent(&place, &server, &keys);
    owner.open("room", &mut ann);
    talk_for(&mut [&mut ann], PACKETS);
    await_replica(&mut owner);
    await_armed(&owner);
    expect_replacement([owner, standby], &mut ann);
    assert_eq!(server.seen().deleted, 0, "no call ends");
}

/// No node has an agent, and there is no witness: the store of the index decides.
#[required(Namespaces, Nats)]
#[test]
fn store_lets_the_standby_replace_a_silent_owner() {
    let place = Hosts::lay();
    let folder = tempfile::tempdir().unwrap();
    let address = (place.client.address(), 4_222).into();
    let mut store = NatsServer::new(address, folder.path()).unwrap();
    index::at(&place.client, || store.start());
    let (server, mut ann) = (ng_server(&place), place.phone());
    let keys =
        format!("port_legs = true\n[index]\nservers = [\"{}\"]\nvotes = true\n", store.url());
    let [mut owner, standby] = group_without_agent(&place, &server, &keys);
    owner.open("room", &mut ann);
    talk_for(&mut [&mut ann], PACKETS);
    await_replica(&mut owner);
    await_armed(&owner);

    index::at(&place.client, || store.kill());
    let warning = "no agent and no witness answers the owner: a silent owner is not replaced";
    wait_until("the loss is reported", || owner.read("/v1/status")["warnings"] == json!([warning]));
    expect_echo(&mut ann, "the owner goes on");
    index::at(&place.client, || store.start());
    wait_until("the store votes again", || owner.read("/v1/status")["warnings"] == json!([]));

    expect_replacement([owner, standby], &mut ann);
    assert_eq!(server.seen().deleted, 0, "no call ends");
}

/// A standby that a node answers fences its silent peer and takes over; one that is cut off does not run the program.
#[required(Namespaces)]
#[test]
fn fence_needs_a_node_that_answers() {
    let place = Hosts::lay();
    let server = ng_server(&place);
    fence_unless_cut_off(&place, &ng_node(&server), "no node answers this gateway");
}

/// The client's host is the router.
#[required(Namespaces)]
#[test]
fn fence_needs_the_default_router_where_no_node_is_probed() {
    let place = Hosts::lay();
    let router = place.client.address().to_string();
    for edge in &place.gateways {
        let _inside = edge.enter().unwrap();
        let words = ["route", "add", "default", "via", &router];
        assert!(Command::new("ip").args(words).status().unwrap().success());
    }
    let node = place.silent_node();
    fence_unless_cut_off(&place, &node.text(), "the default router does not answer: 10.77.0.10");
}

fn fence_unless_cut_off(place: &Hosts, node: &str, refusal: &str) {
    let (mut ann, folder) = (place.phone(), tempfile::tempdir().unwrap());
    let fenced = folder.path().join("fenced");
    let program = format!("echo $0 >> {}", fenced.display());
    let [mut owner, mut standby] = place.group_with_fence(node, &program);
    [&mut owner, &mut standby].into_iter().for_each(await_node);
    owner.open("room", &mut ann);
    let opened = ids(&mut owner);
    talk_for(&mut [&mut ann], PACKETS);
    await_replica(&mut owner);

    place.set_link(1, false);
    wait_until("the standby is the one that is cut off", || {
        standby.process.log().contains(refusal)
    });
    assert!(!fenced.exists());
    expect_echo(&mut ann, "the owner goes on");
    place.set_link(1, true);
    await_node(&mut standby);
    await_replica(&mut owner);

    place.set_link(0, false);
    expect_echo(&mut ann, "packets arrive again");
    assert_eq!(std::fs::read_to_string(&fenced).unwrap(), "edge-1\n");
    assert_eq!(ids(&mut standby), opened);
}

#[required(Namespaces)]
#[test]
fn lost_redundancy_is_reported() {
    let place = Hosts::lay();
    let node = place.node();
    let [mut owner, standby] = place.group(&node);
    await_replica(&mut owner);
    let list = |at: &GatewayProcess| {
        let socket = at.folder().join("admin.sock");
        let mut command = Command::new(evenkeel());
        command.args(["gateway", "list", "--api"]).arg(socket).output().unwrap()
    };
    wait_until("nothing is lost", || list(&owner).status.code() == Some(0));
    let mut events = owner.ask(async |client| client.another().events().await).unwrap();
    standby.process.signal(Signal::SIGSTOP).unwrap();
    wait_until("the loss is reported", || list(&owner).status.code() == Some(1));
    let words = String::from_utf8(list(&owner).stderr).unwrap();
    assert!(words.contains("`edge-2` is not heard: no gateway takes over"), "{words}");
    let warnings = owner.read("/v1/status")["warnings"].clone();
    assert_eq!(warnings, json!(["`edge-2` is not heard: no gateway takes over"]));
    owner.await_log("redundancy lost");
    wait_until("the gauge shows it", || {
        metric(&mut owner, "evenkeel_group_warnings", "") == Some(1)
    });
    wait_until("it is the owner, after a moment of doubt", || {
        metric(&mut owner, "evenkeel_group_role", "") == Some(4)
    });
    wait_until("its peer is down", || {
        metric(&mut owner, "evenkeel_group_member_up", "edge-2") == Some(0)
    });
    assert_eq!(metric(&mut owner, "evenkeel_group_owned", ""), Some(1));
    assert_eq!(metric(&mut owner, "evenkeel_cluster_refused_total", "secret"), Some(0));
    wait_until("the lag of its standby grows", || {
        metric(&mut owner, "evenkeel_group_lag_seconds", "").is_some_and(|seconds| seconds > 0)
    });
    standby.process.signal(Signal::SIGCONT).unwrap();
    wait_until("it is restored", || list(&owner).status.code() == Some(0));
    let mut next = || {
        let event = owner.ask(async |_| tokio::time::timeout(TIMEOUT, events.next()).await);
        let event = event.expect("an event of the group").unwrap().unwrap();
        assert_eq!(event.name, "group");
        [event.data["role"].clone(), event.data["warnings"].clone()]
    };
    let restored = [json!("owner"), json!([])];
    // It may doubt for moments that it is the owner.
    let (warned, mut told) = ([json!("owner"), warnings], Vec::new());
    while !told.contains(&warned) || told.last() != Some(&restored) {
        told.push(next());
    }
}

#[required(Namespaces)]
#[test]
fn history_is_listed_at_the_next_owner() {
    let place = Hosts::lay();
    let (node, mut ann) = (place.node(), place.phone());
    let [mut owner, mut standby] = place.group(&node);
    await_replica(&mut owner);
    owner.open("first", &mut ann);
    let ended = ids(&mut owner);
    owner.ask(async |client| client.close(&ended[0]).await).unwrap();
    owner.open("second", &mut ann);
    let history = |gateway: &mut GatewayProcess| {
        let records = gateway.read("/v1/sessions/history")["sessions"].take();
        let id = |record: &serde_json::Value| record["id"].as_str().unwrap().to_owned();
        records.as_array().unwrap().iter().map(id).collect::<Vec<_>>()
    };
    wait_until("the owner lists it", || history(&mut owner) == ended);
    let feedback = format!("/v1/sessions/{}/feedback", ids(&mut owner).remove(0));
    owner.post(&feedback, &json!({"rating": 2, "words": "choppy at the owner"}));
    let compared = owner.read("/v1/ratings");
    assert_eq!(compared["scenarios"][0]["mean_rating_centi"], 200, "{compared}");
    await_replica(&mut owner);
    standby.await_written(&ended[0]);
    standby.await_written("choppy at the owner");
    owner.process.signal(Signal::SIGKILL).unwrap();
    await_owner(&place, &mut standby);
    assert_eq!(history(&mut standby), ended);
    assert_eq!(standby.read("/v1/ratings"), compared);
    let other = json!({"rating": 5});
    let refused = standby.ask(async |client| client.post(&feedback, &other).await).unwrap_err();
    assert!(refused.to_string().contains("another rating"), "{refused}");
}

#[required(Namespaces)]
#[test]
fn changes_are_listed_at_the_next_owner() {
    let place = Hosts::lay();
    let node = place.node();
    let [mut owner, mut standby] = place.group(&node);
    await_replica(&mut owner);
    standby.post("/v1/nodes/east-a1:drain", &json!({"force": true}));
    let requests = |gateway: &mut GatewayProcess| {
        let mut changes = gateway.read("/v1/changes")["changes"].take();
        let changes = changes.as_array_mut().unwrap();
        changes.retain(|change| change["event"] == "request");
        changes.clone()
    };
    let drained = requests(&mut owner);
    assert_eq!(
        (drained.len(), &drained[0]["request"]),
        (1, &json!("POST /v1/nodes/east-a1:drain"))
    );
    assert_eq!(requests(&mut standby), drained);
    wait_until("the standby has a copy", || {
        let files = std::fs::read_dir(standby.folder().join("evenkeel/kept"));
        let mut files = files.into_iter().flatten().flatten().map(|file| file.path());
        let change = b"east-a1:drain";
        files.any(|path| {
            let bytes = std::fs::read(path).unwrap_or_default();
            bytes.windows(change.len()).any(|part| part == change)
        })
    });
    owner.process.signal(Signal::SIGKILL).unwrap();
    await_owner(&place, &mut standby);
    assert_eq!(requests(&mut standby), drained);
}

/// A reload that the standby follows later adds a policy; its revision continues after a takeover.
#[required(Namespaces)]
#[test]
fn added_policy_continues_at_the_standby() {
    let place = Hosts::lay();
    let node = place.node();
    let mut gateways = place.group(&node);
    await_replica(&mut gateways[0]);
    let text = "[scenario.opera]\n[admission]\nplugin = \"admit-capacity\"\n";
    for gateway in &mut gateways {
        std::fs::write(gateway.folder().join("policies/opera.toml"), text).unwrap();
        gateway.post("/v1/configuration:reload", &json!({}));
    }
    let [owner, standby] = &mut gateways;
    let revision = |gateway: &mut GatewayProcess| {
        let policies = gateway.read("/v1/policies")["policies"].take();
        let mut policies = policies.as_array().unwrap().clone().into_iter();
        let added = policies.find(|policy| policy["policy"] == "opera/admission");
        added.map(|policy| policy["revision"].clone())
    };
    let active = revision(owner);
    assert!(active.as_ref().is_some_and(serde_json::Value::is_string), "{active:?}");
    owner.process.signal(Signal::SIGKILL).unwrap();
    wait_until("the standby owns", || place.has_address(1));
    wait_until("it goes on with the revision", || revision(standby) == active);
}

#[required(Namespaces)]
#[test]
fn standby_that_reaches_no_node_warns() {
    let place = Hosts::lay();
    let mut node = place.node();
    let [mut owner, mut standby] = place.group(&node);
    await_replica(&mut owner);
    node.die();
    let warned = json!("no node answers the standby: its calls would have none");
    wait_until("the rehearsal fails", || {
        standby.read("/v1/gateways")["warnings"].as_array().unwrap().contains(&warned)
    });
}

#[required(Namespaces)]
#[test]
fn standby_without_room_at_its_host_warns() {
    let mut place = Hosts::lay();
    place.limits = "host_sessions = 1\n".to_owned();
    let (node, mut ann) = (place.node(), place.phone());
    let [mut owner, mut standby] = place.group(&node);
    owner.open("room", &mut ann);
    await_replica(&mut owner);
    // As another process of the standby's host writes it.
    let path = standby.folder().join("other.sock.sessions");
    let unfinished = standby.folder().join("other.sock.new");
    let mut options = OpenOptions::new();
    let other = options.write(true).create_new(true).mode(0o600).open(&unfinished).unwrap();
    other.lock().unwrap();
    std::fs::write(&unfinished, r#"{"serves":1,"copies":0}"#).unwrap();
    std::fs::rename(&unfinished, &path).unwrap();
    let mut warns = || {
        let warnings = standby.read("/v1/gateways")["warnings"].to_string();
        warnings.contains("from the host of `edge-1`") && warnings.contains("host_sessions = 1")
    };
    wait_until("the standby warns", &mut warns);
    drop(other);
    wait_until("the host has room again", || !warns());
    assert!(!path.exists());
}

#[required(Namespaces)]
#[test]
fn standby_asks_its_owner_to_hand_over() {
    let place = Hosts::lay();
    let (node, mut ann) = (place.node(), place.phone());
    let [mut owner, mut standby] = place.group(&node);
    owner.open("room", &mut ann);
    let opened = ids(&mut owner);
    await_replica(&mut owner);
    let handed_over = standby.post("/v1/gateway:hand-over", &json!({}));
    assert_eq!(handed_over["gateway"], "edge-2");
    assert_eq!(ids(&mut standby), opened);
    assert!(place.has_address(1));
    expect_echo(&mut ann, "packets arrive again");
}

#[required(Namespaces)]
#[test]
fn spare_replaces_the_standby_and_then_the_owner() {
    let place = Hosts::lay();
    let (node, mut ann) = (place.node(), place.phone());
    let [mut owner, second, third] = place.group_of_three(&node.text());
    owner.open("room", &mut ann);
    let opened = ids(&mut owner);
    expect_echo(&mut ann, "without a fault");
    await_replica(&mut owner);
    let in_role = |owner: &mut GatewayProcess, role: &str| {
        let seen = owner.read("/v1/gateways");
        let mut gateways = seen["gateways"].as_array().unwrap().iter();
        let found = gateways.find(|gateway| gateway["role"] == role)?;
        GATEWAYS.iter().position(|(name, _)| found["gateway"] == *name)
    };
    let mut spare = None;
    wait_until("the third is the spare", || {
        spare = in_role(&mut owner, "spare");
        spare.is_some() && in_role(&mut owner, "standby").is_some()
    });
    let spare = spare.unwrap();
    let (lost, mut last) = if spare == 2 { (second, third) } else { (third, second) };
    let refused = hand_over(&owner, GATEWAYS[spare].0).wait().unwrap();
    assert_eq!(refused.code(), Some(1), "a spare holds no records");
    assert_eq!(ids(&mut last), opened, "relayed");

    lost.process.signal(Signal::SIGSTOP).unwrap();
    wait_until("the spare is the standby", || in_role(&mut owner, "standby") == Some(spare));
    await_replica(&mut owner);
    let mut warnings = || owner.read("/v1/status")["warnings"].to_string();
    wait_until("the loss is reported", || warnings().contains("one gateway fewer"));
    owner.process.signal(Signal::SIGKILL).unwrap();
    expect_echo(&mut ann, "packets arrive again");
    assert!(place.has_address(spare));
    assert_eq!(ids(&mut last), opened);
    assert_continuous(&ann.heard);
    lost.process.signal(Signal::SIGCONT).unwrap();
    await_replica(&mut last);
    assert!(place.has_address(spare), "the former standby follows");
}
