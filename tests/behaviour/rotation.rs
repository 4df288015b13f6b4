//! Secrets that are rotated while calls go on, by the commands of `docs/security.md`.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use evenkeel_testkit::binary::evenkeel;
use evenkeel_testkit::http::HttpClient;
use evenkeel_testkit::required;
use nix::sys::signal::{Signal, kill};
use serde_json::json;

use crate::harness::whip::{WEBRTC, Whip, claims, hears_on, location, signed};
use crate::harness::{
    GatewayProcess, Hosts, Node, SECRET, World, assert_continuous, await_replica, ids, talk,
    talk_for, wait_until,
};
use crate::upgrade::Calls;
use crate::whip::client;

/// Packets of a phone between two steps.
const PACKETS: u64 = 25;
const PAGE: &str = include_str!("../../docs/security.md");

/// The blocks of commands below this heading.
fn commands<const STEPS: usize>(heading: &str) -> [&'static str; STEPS] {
    let (_, section) = PAGE.split_once(&format!("\n### {heading}\n")).expect("the heading stands");
    let section = section.split("\n##").next().unwrap_or_default();
    let blocks = section.split("```bash\n").skip(1);
    let blocks: Vec<&str> = blocks.filter_map(|rest| rest.split("```").next()).collect();
    blocks.try_into().unwrap_or_else(|blocks| panic!("{heading}: {blocks:?}"))
}

/// Runs commands of the page in the gateway's folder.
fn run(gateway: &GatewayProcess, commands: &str) {
    let folder = evenkeel().parent().unwrap().display();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap());
    let mut shell = Command::new("bash");
    shell.args(["-euc", commands]).current_dir(gateway.folder()).env("PATH", path);
    let done = shell.env("EVENKEEL_API", gateway.folder().join("admin.sock")).output().unwrap();
    assert!(done.status.success(), "{commands}: {done:?}");
}

/// The secrets of a file of the gateway.
fn secrets(gateway: &GatewayProcess, file: &str) -> Vec<String> {
    let text = fs::read_to_string(gateway.folder().join(file)).unwrap();
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Starts a gateway with this secret in a file.
fn start(world: &World, file: &str, secret: &str) -> GatewayProcess {
    GatewayProcess::start_on(world, Command::new(evenkeel()), |folder| {
        fs::write(folder.join(file), secret).unwrap();
    })
}

/// Free until the gateway binds it.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn assert_nothing_waits(gateway: &mut GatewayProcess) {
    assert_eq!(gateway.read("/v1/status")["configuration"]["requires_restart"], json!([]));
}

#[required(Administration)]
#[test]
fn api_tokens_rotate_during_a_call() {
    let (node, address, old) = (Node::agent("east-a1"), free_address(), "the token of last year");
    let mut world = World::of(&[&node]);
    world.admin = format!("tcp = \"{address}\"\ntoken_file = \"admin.token\"\n");
    let mut gateway = start(&world, "admin.token", old);
    let mut calls = Calls::open(&mut gateway, 1);
    let is_accepted = |token: &str| {
        let token = format!("authorization: Bearer {token}");
        let stream = TcpStream::connect(address).unwrap();
        let answer = HttpClient::over(stream).ask("GET /v1/status", &[&token], b"");
        answer.unwrap().status == 200
    };
    let [add, remove] = commands("Tokens of the API");
    run(&gateway, add);
    let tokens = secrets(&gateway, "admin.token");
    let [_, new] = &tokens[..] else { panic!("{tokens:?}") };
    let new = &**new;
    assert_eq!([old, new].map(is_accepted), [true, true]);
    run(&gateway, &format!("evenkeel session list --api {address} --token admin.token"));
    calls.talk(PACKETS);
    run(&gateway, remove);
    assert_eq!([old, new].map(is_accepted), [false, true]);
    calls.talk(PACKETS);
    calls.assert_whole();
    assert_nothing_waits(&mut gateway);
}

#[required(Administration)]
#[test]
fn whip_keys_rotate_during_a_session() {
    let (node, address, old) =
        (Node::agent("east-a1"), free_address(), str::from_utf8(SECRET).unwrap());
    let mut world = World::of(&[&node]).with_identities("[\"stun\"]");
    world.admin =
        WEBRTC.replace("127.0.0.1:0", &address.to_string()).replace("secret", "token.key");
    let mut gateway = start(&world, "token.key", old);
    let whip = Whip::at(address);
    let (mut publisher, answer) = client(&whip, 1, "/whip/call/room", "publish");
    let (mut viewer, _) = client(&whip, 2, "/whep/call/room", "view");
    hears_on(&mut publisher.phone, &mut viewer.phone);
    let end = |session: &str, key: &str| {
        let token = signed("{\"alg\":\"HS256\"}", &claims("token-1"), key.as_bytes());
        whip.ask(&format!("DELETE {session}"), &token, "").0
    };
    // No session has this URL: the token is verified first.
    let answers = |keys: [&str; 2]| keys.map(|key| end("/whip/call/room/none", key));
    let [add, remove] = commands("The key of WHIP and WHEP");
    run(&gateway, add);
    let keys = secrets(&gateway, "token.key");
    let [_, new] = &keys[..] else { panic!("{keys:?}") };
    let new = &**new;
    assert_eq!(answers([old, new]), [404, 404]);
    hears_on(&mut publisher.phone, &mut viewer.phone);
    run(&gateway, remove);
    assert_eq!(answers([old, new]), [401, 404]);
    hears_on(&mut publisher.phone, &mut viewer.phone);
    assert_nothing_waits(&mut gateway);
    assert_eq!(end(location(&answer), new), 200, "the next key ends a session of the previous one");
}

#[required(Namespaces, Administration)]
#[test]
fn group_secrets_rotate_during_a_call() {
    let place = Hosts::lay();
    let (node, mut ann) = (place.node(), place.phone());
    let [mut owner, mut standby] = place.group(&node);
    owner.open("room", &mut ann);
    await_replica(&mut owner);
    let cuts = |gateway: &GatewayProcess| {
        let log = gateway.process.log();
        let words = ["disconnected from another gateway", "refused from another gateway"];
        words.map(|words| log.matches(words).count())
    };
    let cuts_before = [&owner, &standby].map(cuts);
    let [add, swap, remove] = commands("The secret of a group");
    let file = owner.folder().join("cluster.secret");
    let old = fs::read_to_string(&file).unwrap();
    // The standby would refuse the owner's beats.
    fs::write(&file, format!("{}\n{old}", "n".repeat(32))).unwrap();
    kill(owner.pid(), Signal::SIGHUP).unwrap();
    owner.await_log("the first secret of [cluster] is a new one");
    let refused = owner.upgrade(json!({})).join().unwrap().unwrap_err().to_string();
    assert!(refused.contains("`secret_file` of [cluster] changed"), "{refused}");

    fs::write(&file, &old).unwrap();
    for (step, commands) in [add, swap, remove].into_iter().enumerate() {
        run(&owner, commands);
        fs::copy(&file, standby.folder().join("cluster.secret")).unwrap();
        for member in [&owner, &standby] {
            run(member, "evenkeel reload");
            wait_until("the secrets are replaced", || {
                member.process.log().matches("secrets of the group reloaded").count() > step
            });
            talk_for(&mut [&mut ann], PACKETS);
        }
    }
    let secrets = secrets(&owner, "cluster.secret");
    assert!(secrets.len() == 1 && secrets[0] != old, "{secrets:?}");
    await_replica(&mut owner);
    assert_eq!([&owner, &standby].map(cuts), cuts_before, "the link has gone on");
    assert_nothing_waits(&mut owner);

    // The next process knows the new secret alone.
    let upgraded = owner.upgrade(json!({})).join().unwrap().unwrap();
    owner.note_successor(upgraded["pid"].as_i64().unwrap() as i32);
    await_replica(&mut owner);
    let opened = ids(&mut owner);
    kill(owner.pid(), Signal::SIGKILL).unwrap();
    let heard = ann.heard.len();
    talk(&mut [&mut ann], "packets arrive again", |phones| {
        phones[0].heard.len() >= heard + PACKETS as usize
    });
    assert_eq!(ids(&mut standby), opened);
    assert_continuous(&ann.heard);
}
