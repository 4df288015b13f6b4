//! Two hosts and a client, each in a network namespace of its own, joined by a bridge.

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use evenkeel_policies::PolicyRecords;
use evenkeel_testkit::required;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, gettid};
use tokio::runtime::{Builder, Runtime};

use super::holder::Holder;
use super::*;

const ONE: &str = "02:00:00:00:00:01";
const OTHER: &str = "02:00:00:00:00:02";
const CLIENT: &str = "02:00:00:00:00:03";

const V4: &str = "192.0.2.10";
const V6: &str = "2001:db8::10";

type Work = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace of its own, which ends with the thread.
struct Host {
    task: Pid,
    work: mpsc::Sender<Work>,
}

impl Host {
    fn new() -> Host {
        let ((work, to_do), (tell, told)) = (mpsc::channel::<Work>(), mpsc::channel());
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tell.send(gettid()).unwrap();
            to_do.into_iter().for_each(|work| work());
        });
        Host { task: told.recv().unwrap(), work }
    }

    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        self.work.send(Box::new(move || _ = tell.send(work()))).unwrap();
        told.recv().unwrap()
    }

    fn ip(&self, words: &str) -> String {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        self.run(move || {
            let output = Command::new("ip").args(&words).output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "ip {words:?}: {errors}");
            String::from_utf8(output.stdout).unwrap()
        })
    }

    fn has(&self, address: &str) -> bool {
        self.ip("-o address show").contains(&format!(" {address}/"))
    }

    /// A member with these addresses, and a thread in place of the holder's process.
    fn member(&self, addresses: &[&str]) -> Addresses {
        let local: Vec<LocalAddress> =
            addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.run(move || {
            let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
            let [ours, mut theirs] =
                [ours, theirs].map(|end| net::UnixStream::from(OwnedFd::from(end)));
            let holder = Holder::open(local.clone()).unwrap();
            thread::spawn(move || holder.serve(&mut theirs));
            Addresses { holder: Some(HolderProcess::over(&local, ours)), hooks: Vec::new() }
        })
    }

    /// A socket at this address, which the host may not have yet.
    fn listen(&self, address: &str) -> UdpSocket {
        let at = SocketAddr::new(address.parse().unwrap(), 9);
        self.run(move || {
            let socket = Socket::new(Domain::for_address(at), Type::DGRAM, None).unwrap();
            evenkeel_dataplane::freebind::allow(&socket, at).unwrap();
            socket.bind(&at.into()).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            socket.into()
        })
    }

    /// Sends a datagram there, for which the kernel has to find the neighbour.
    fn knock(&self, address: &str) {
        let to = SocketAddr::new(address.parse().unwrap(), 9);
        self.run(move || {
            let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
            let mapped = match to {
                SocketAddr::V4(to) => SocketAddr::new(to.ip().to_ipv6_mapped().into(), to.port()),
                SocketAddr::V6(_) => to,
            };
            // Fails while the neighbour is unknown.
            let _ = socket.send_to(b"x", mapped);
        });
    }

    /// The Ethernet address to which packets for this address go.
    fn neighbour(&self, address: &str) -> Option<String> {
        let entry = self.ip(&format!("neigh show {address} dev eth0"));
        let mut words = entry.split_whitespace();
        words.find(|word| *word == "lladdr")?;
        words.next().map(str::to_owned)
    }
}

struct Link {
    one: Host,
    other: Host,
    client: Host,
    _switch: Host,
}

fn link() -> Link {
    let switch = Host::new();
    switch.ip("link add br0 type bridge forward_delay 0");
    switch.ip("link set br0 up");
    let [one, other, client] = [ONE, OTHER, CLIENT].map(|hardware| {
        let host = Host::new();
        let (port, number) = (format!("port{}", host.task), &hardware[16..]);
        let peer = format!("peer name eth0 address {hardware} netns {}", host.task);
        switch.ip(&format!("link add {port} type veth {peer}"));
        switch.ip(&format!("link set {port} master br0 up"));
        host.ip("link set lo up");
        host.ip("link set eth0 up");
        host.ip(&format!("address add 192.0.2.{number}/24 dev eth0"));
        host.ip(&format!("address add 2001:db8::{number}/64 dev eth0 nodad"));
        host
    });
    Link { one, other, client, _switch: switch }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Although the first host still has the address.
#[required(Namespaces)]
#[test]
fn neighbours_follow_the_address() {
    let link = link();
    let (runtime, addresses) = (runtime(), ["192.0.2.10/32@eth0", "2001:db8::10/128@eth0"]);
    link.one.ip("address add 192.0.2.10/32 dev eth0");
    link.one.ip("address add 2001:db8::10/128 dev eth0 nodad");
    let mut other = link.other.member(&addresses);
    let sockets = [V4, V6].map(|address| link.other.listen(address));
    for address in [V4, V6] {
        wait_until("the client finds the first owner", || {
            link.client.knock(address);
            link.client.neighbour(address).as_deref() == Some(ONE)
        });
    }
    runtime.block_on(other.hold()).unwrap();
    for (address, socket) in [V4, V6].into_iter().zip(sockets) {
        wait_until("the client's entry follows", || {
            link.client.neighbour(address).as_deref() == Some(OTHER)
        });
        wait_until("a datagram reaches the other owner", || {
            // Nothing renews the address meanwhile, and it may have lapsed on a busy machine.
            runtime.block_on(other.hold()).unwrap();
            link.client.knock(address);
            let arrives = matches!(socket.recv(&mut [0; 8]), Ok(1));
            arrives && link.one.has(address) && link.other.has(address)
        });
    }
}

/// The kernel keeps packets for a neighbour that does not answer yet.
#[required(Namespaces)]
#[test]
fn packets_that_wait_for_neighbours_are_dropped() {
    let link = link();
    let runtime = runtime();
    let mut one = link.one.member(&["192.0.2.10/32@eth0"]);
    runtime.block_on(one.hold()).unwrap();
    let arrives = |port: u16, released: bool, one: &mut Addresses| {
        let at = SocketAddr::new("192.0.2.3".parse().unwrap(), port);
        let client = link.client.run(move || UdpSocket::bind(at).unwrap());
        client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        link.client.ip("link set eth0 arp off");
        link.one.ip("neigh flush all");
        link.one.run(move || UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", at).unwrap());
        let waits = || link.one.ip("neigh show 192.0.2.3 dev eth0").contains("INCOMPLETE");
        wait_until("the packet waits", waits);
        let order = async {
            if released { one.release().await } else { one.order(AddressOrder::DropWaiting).await }
        };
        runtime.block_on(order).unwrap();
        assert!(!waits());
        link.client.ip("link set eth0 arp on");
        client.recv(&mut [0; 8]).is_ok()
    };
    assert!(!arrives(9, false, &mut one));
    assert!(!arrives(10, true, &mut one));
}

/// An announcement may be lost. The entry of another host is repaired without a packet from the client.
#[required(Namespaces)]
#[test]
fn announcements_are_repeated() {
    let link = link();
    let runtime = runtime();
    let mut one = link.one.member(&["192.0.2.10/32@eth0"]);
    runtime.block_on(one.hold()).unwrap();
    link.client.ip(&format!("neigh replace {V4} lladdr {OTHER} dev eth0 nud permanent"));
    assert_eq!(link.client.neighbour(V4).as_deref(), Some(OTHER));
    link.client.ip(&format!("neigh change {V4} lladdr {OTHER} dev eth0 nud stale"));
    wait_until("the entry is repaired", || {
        runtime.block_on(one.order(AddressOrder::Renew)).unwrap();
        link.client.neighbour(V4).as_deref() == Some(ONE)
    });
}

#[required(Namespaces)]
#[test]
fn address_lapses_unless_it_is_renewed() {
    let link = link();
    let (runtime, addresses) = (runtime(), ["192.0.2.10/24@eth0", "2001:db8::10/64@eth0"]);
    let mut one = link.one.member(&addresses);
    let is_there = || [V4, V6].map(|address| link.one.has(address));
    runtime.block_on(one.hold()).unwrap();
    let renewed_for = Instant::now() + 2 * VALID_FOR;
    while Instant::now() < renewed_for {
        assert_eq!(is_there(), [true; 2]);
        runtime.block_on(one.order(AddressOrder::Renew)).unwrap();
        thread::sleep(Duration::from_millis(500));
    }
    wait_until("the addresses lapse", || is_there() == [false; 2]);

    // Another member may have it.
    assert!(matches!(runtime.block_on(one.order(AddressOrder::Renew)), Err(AddressError::Lapsed)));
    assert_eq!(is_there(), [false; 2]);
    runtime.block_on(one.hold()).unwrap();
    assert_eq!(is_there(), [true; 2]);
    runtime.block_on(one.order(AddressOrder::Renew)).unwrap();
}

#[required(Namespaces)]
#[test]
fn announced_addresses_are_removed_unless_the_member_owns_them() {
    let link = link();
    let runtime = runtime();
    let mut one = link.one.member(&["192.0.2.10/24@eth0"]);
    runtime.block_on(one.hold()).unwrap();
    let other = link.other.member(&["192.0.2.10/24@eth0"]);
    let lease = Arc::new(SendLease::forever());
    let mut keeper = runtime.block_on(async { AddressKeeper::start(other, lease) });
    let socket = link.other.listen(V4);
    let mut announce = || {
        keeper.announce();
        assert_eq!(runtime.block_on(keeper.sign()), KeeperSign::Announced);
        link.client.knock(V4);
        assert_eq!(socket.recv(&mut [0; 2]).unwrap(), 1, "a packet waits at the standby");
        assert!(link.one.has(V4), "the owner still sends from it");
    };
    announce();
    let tick = || runtime.block_on(async { tokio::time::sleep(Duration::from_millis(10)).await });
    wait_until("another member owns them", || {
        tick();
        !link.other.has(V4)
    });
    announce();
    keeper.hold();
    let announced = Instant::now();
    while announced.elapsed() < AHEAD_FOR + VALID_FOR {
        tick();
        assert!(link.other.has(V4));
    }
    runtime.block_on(keeper.release());
    assert!(!link.other.has(V4));
}

#[required(Namespaces)]
#[test]
fn released_addresses_are_removed() {
    let link = link();
    let (runtime, addresses) = (runtime(), ["192.0.2.10/24@eth0", "2001:db8::10/64@eth0"]);
    let mut one = link.one.member(&addresses);
    let is_there = || [V4, V6].map(|address| link.one.has(address));
    for _ in 0..2 {
        runtime.block_on(one.hold()).unwrap();
        assert_eq!(is_there(), [true; 2]);
        runtime.block_on(one.release()).unwrap();
        assert_eq!(is_there(), [false; 2]);
    }
    runtime.block_on(one.release()).unwrap();
    assert!(matches!(runtime.block_on(one.order(AddressOrder::Renew)), Err(AddressError::Lapsed)));

    let held = Instant::now();
    runtime.block_on(one.hold()).unwrap();
    drop(one);
    wait_until("the end of the gateway removes them", || is_there() == [false; 2]);
    assert!(held.elapsed() < VALID_FOR, "the kernel did");
    assert!(link.one.has("192.0.2.1") && link.one.has("2001:db8::1"), "the host keeps its own");
}

#[required(Namespaces)]
#[test]
fn second_host_with_the_address_is_reported() {
    let link = link();
    let runtime = runtime();
    let mut one = link.one.member(&["192.0.2.10/32@eth0", "192.0.2.11/32@eth0"]);
    link.other.ip("address add 192.0.2.10/32 dev eth0");
    runtime.block_on(one.hold()).unwrap();
    let mut found = None;
    wait_until("the other host is found", || {
        found = runtime.block_on(one.order(AddressOrder::Renew)).err();
        found.is_some()
    });
    let expected =
        format!("group address 192.0.2.10 at eth0 is also at {OTHER}, another host of the link");
    assert_eq!(found.unwrap().to_string(), expected);
    assert!(link.one.has(V4), "it is renewed");
}

#[required(Namespaces)]
#[test]
fn default_router_shows_that_the_link_works() {
    let link = link();
    let runtime = runtime();
    let mut one = link.one.member(&["192.0.2.10/24@eth0"]);
    let mut refused =
        || runtime.block_on(one.ask_router()).err().map(|refused| refused.to_string());
    let none = "group addresses: no default router at the interfaces of the group's addresses";
    wait_until("no router is known", || refused().as_deref() == Some(none));
    link.one.ip("route add default via 192.0.2.3");
    // On a busy machine an answer may be late.
    wait_until("the router answers", || refused().is_none());
    link.client.ip("link set eth0 down");
    let silent = "group addresses: the default router does not answer: 192.0.2.3";
    wait_until("the router is silent", || refused().as_deref() == Some(silent));
    runtime.block_on(one.hold()).unwrap();
}

#[required(Namespaces)]
#[test]
fn member_starts_without_the_addresses() {
    let link = link();
    link.one.ip("address add 192.0.2.10/24 dev eth0");
    link.one.ip("address add 2001:db8::10/64 dev eth0 nodad");
    let _member = link.one.member(&["192.0.2.10/24@eth0", "2001:db8::10/64@eth0"]);
    assert!(!link.one.has(V4) && !link.one.has(V6));
    assert!(link.one.has("192.0.2.1") && link.one.has("2001:db8::1"), "the host keeps its own");
}

#[required(Namespaces)]
#[test]
fn one_failure_leaves_the_other_addresses() {
    let link = link();
    let runtime = runtime();
    link.one.ip("link add eth1 type veth peer name eth2");
    let mut one = link.one.member(&["192.0.2.10/32@eth0", "198.51.100.10/32@eth1"]);
    link.one.ip("link delete eth1");
    let failure = runtime.block_on(one.hold()).unwrap_err();
    let expected = "group addresses: 198.51.100.10 at eth1 has no interface";
    assert!(failure.to_string().starts_with(expected), "{failure}");
    assert!(link.one.has(V4));
}

#[required(Namespaces)]
#[test]
fn holder_names_the_interfaces_that_it_found() {
    let link = link();
    let refused = |address: &str| {
        let address = address.parse().unwrap();
        link.one.run(move || Holder::open(vec![address]).err().unwrap())
    };
    assert_eq!(refused("192.0.2.10/24@eth9"), "no interface eth9 for 192.0.2.10; found eth0, lo");
}

#[test]
fn holder_without_capabilities_is_refused() {
    let refused = thread::spawn(|| {
        caps::clear(None, caps::CapSet::Effective).unwrap();
        Holder::open(vec!["192.0.2.10/24@lo".parse().unwrap()]).err().unwrap()
    });
    let refused = refused.join().unwrap();
    assert!(refused.starts_with("CAP_NET_ADMIN is missing; start the gateway with"), "{refused}");
}

#[test]
fn late_answer_is_not_taken_for_another() {
    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    let [ours, mut theirs] = [ours, theirs].map(|end| net::UnixStream::from(OwnedFd::from(end)));
    let mut process = HolderProcess::over(&[], ours);
    let late = message(process.number, &answer(&Err(AddressError::Lapsed)));
    let answering = thread::spawn(move || {
        let mut order = [0; MESSAGE_MAX];
        let length = theirs.read(&mut order).unwrap();
        let (number, word) = read_message(&order[..length]).unwrap();
        assert_eq!(word, "hold");
        io::Write::write_all(&mut theirs, &late).unwrap();
        let failed = answer(&Err(AddressError::Refused("a reason".into())));
        io::Write::write_all(&mut theirs, &message(number, &failed)).unwrap();
    });
    let runtime = runtime();
    let failure = runtime.block_on(process.order(AddressOrder::Hold)).unwrap_err();
    assert_eq!(failure.to_string(), "group addresses: a reason");
    answering.join().unwrap();
    assert!(matches!(
        runtime.block_on(process.order(AddressOrder::Renew)),
        Err(AddressError::Ended)
    ));
}

#[test]
fn hooks_are_called_and_release_waits_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("calls");
    let script = format!("sleep 0.05; echo \"$@\" >> {}", file.display());
    let words = ["/bin/sh", "-c", &script, "hook"].map(str::to_owned).to_vec();
    let hooked = MovingAddress {
        address: V6.parse().unwrap(),
        prefix: 128,
        place: AddressPlace::Hook(words),
        port_legs: false,
    };
    let mut addresses = Addresses::start(&[hooked], None).unwrap();
    let runtime = runtime();
    runtime.block_on(addresses.hold()).unwrap();
    assert!(!file.exists(), "nothing waits for the hook");
    wait_until("the hook has acquired", || file.exists());
    runtime.block_on(addresses.order(AddressOrder::Renew)).unwrap();
    runtime.block_on(addresses.release()).unwrap();
    let calls = std::fs::read_to_string(file).unwrap();
    assert_eq!(calls, format!("acquire {V6}\nrelease {V6}\n"));
}

#[test]
fn changed_addresses_are_not_inherited() {
    let address = |address: &str| MovingAddress {
        address: address.parse().unwrap(),
        prefix: 32,
        place: AddressPlace::Interface("lo".into()),
        port_legs: false,
    };
    let (ours, _theirs) = net::UnixStream::pair().unwrap();
    let name = name(&local(&[address(V4)]));
    let mut inherited = Inherited::default();
    assert!(matches!(
        Addresses::inherit(&[address(V4)], &mut inherited),
        Err(AddressError::Changed)
    ));
    let mut inherited =
        Inherited::of([(name.clone(), ours.into())], None, PolicyRecords::default());
    assert!(matches!(
        Addresses::inherit(&[address("192.0.2.11")], &mut inherited),
        Err(AddressError::Changed)
    ));
    let addresses = Addresses::inherit(&[address(V4)], &mut inherited).unwrap();
    assert_eq!(addresses.duplicate().unwrap().unwrap().0, name);
}
