//! A client of the shared index's store that writes what gateways do not.

use std::net::TcpListener;

use evenkeel_testkit::nats::NatsServer;
use tempfile::tempdir;

use super::memory_kib;
use crate::harness::{GatewayProcess, Node, Phone, World, wait_until};

const BUCKET: &str = "evenkeel";
const SESSIONS: &str = "edge.session.*";

/// Entries of a megabyte each; a gateway that keeps them grows by 390 MB.
const FORGED: u32 = 400;

const GROWTH_MAX_KIB: u64 = 100 << 10;

#[test]
fn forged_index_entries_take_little_memory() {
    let folder = tempdir().unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut store = match NatsServer::new(address, folder.path()) {
        Ok(store) => store,
        Err(reason) => {
            eprintln!("forged_index_entries_take_little_memory skipped: {reason}");
            return;
        }
    };
    store.start();
    store.create(BUCKET);
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    world.nodes += &format!("[index]\nname = \"edge\"\nservers = [\"{}\"]\n", store.url());
    let mut gateway = GatewayProcess::start(&world);
    let mut ann = Phone::new(1);
    gateway.open("room", &mut ann);
    wait_until("the session is listed", || store.keys(BUCKET, SESSIONS).len() == 1);
    let listed = store.keys(BUCKET, SESSIONS);
    let id = gateway.pid().as_raw() as u32;
    let before = memory_kib(id, "VmHWM:");
    let value = "x".repeat(1_000_000);
    for number in 0..FORGED {
        let group = if number % 2 == 0 { "edge" } else { "other" };
        store.put(BUCKET, &format!("{group}.session.s{}", 1_000 + number), &value);
        store.put(BUCKET, &format!("other.member.m{number}"), &value);
    }
    wait_until("forged sessions are removed", || store.keys(BUCKET, SESSIONS) == listed);
    let members = gateway.read("/v1/index/gateways");
    assert_eq!(members["gateways"].as_array().unwrap().len(), 1, "{members}");
    let grown = memory_kib(id, "VmHWM:") - before;
    assert!(grown < GROWTH_MAX_KIB, "{grown} KiB");
}
