//! A client of the shared index's store that writes what gateways do not.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use evenkeel_testkit::nats::NatsServer;
use evenkeel_testkit::required;
use tempfile::tempdir;

use super::memory_kib;
use crate::harness::{GatewayProcess, Node, Phone, TIMEOUT, World, wait_until, wait_within};

const BUCKET: &str = "evenkeel";
const SESSIONS: &str = "edge.session.*";

/// Entries of a megabyte each; a gateway that keeps them grows by 390 MB.
const FORGED: u32 = 400;

const GROWTH_MAX_KIB: u64 = 100 << 10;

/// The gateway, and the bytes that one connection sends in 50 ms. Without a limit of the line it takes 440 MiB in the 3 s until pings
/// end the connection.
const PEAK_MAX_KIB: u64 = 250 << 10;

#[required(Nats)]
#[test]
fn forged_index_entries_take_little_memory() {
    let folder = tempdir().unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut store = NatsServer::new(address, folder.path()).unwrap();
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

/// Serves one connection: a greeting, then a message with an endless first line.
fn serve_endless_line(mut connection: TcpStream) -> io::Result<()> {
    let info = r#"INFO {"server_id":"s","server_name":"s","version":"2.11.0","proto":1,"go":"go","host":"127.0.0.1","port":4222,"headers":true,"max_payload":1048576}"#;
    write!(connection, "{info}\r\n")?;
    let mut lines = BufReader::new(connection.try_clone()?).lines();
    while lines.next().transpose()?.is_some_and(|line| line != "PING") {}
    write!(connection, "PONG\r\nMSG ")?;
    let part = vec![b'x'; 1 << 20];
    loop {
        connection.write_all(&part)?;
    }
}

#[test]
fn endless_line_of_a_store_takes_little_memory() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&connections);
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            counted.fetch_add(1, Ordering::Relaxed);
            // Ends with the connection.
            std::thread::spawn(move || serve_endless_line(connection));
        }
    });
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    world.nodes += &format!("[index]\nname = \"edge\"\nservers = [\"nats://{address}\"]\n");
    let mut gateway = GatewayProcess::start(&world);
    let id = gateway.pid().as_raw() as u32;
    // It does so after seconds each time.
    wait_within(3 * TIMEOUT, "the gateway gives up", || connections.load(Ordering::Relaxed) >= 4);
    let peak = memory_kib(id, "VmHWM:");
    assert!(peak < PEAK_MAX_KIB, "{peak} KiB");
    gateway.open("room", &mut Phone::new(1));
}
