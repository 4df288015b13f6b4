//! Floods of packets that belong to no session. Clients send their first packets during the flood.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evenkeel_media::rtcp;
use evenkeel_media::stun::{BindingBuilder, StunKey, Transaction, Username};
use evenkeel_model::{ClientIdentity, IngressProtocol};

use crate::harness::{
    Credentials, Gateway, Node, Nominate, Phone, TIMEOUT, WebrtcPhone, World, declared, offer,
    talk, talk_for, udp_of, wait_until,
};

/// 5,000 packets a second.
const BURST: usize = 50;
const EVERY: Duration = Duration::from_millis(10);

/// The longest flood, in packets.
const PACKETS_MAX: usize = 300_000;

/// Clients of each kind. A busy machine may lose a packet of one in a full socket buffer, and one may share the
/// attacker's bucket by chance.
const NEWCOMERS: u8 = 8;
const UNLUCKY_MAX: u32 = 1;

/// A sender of these datagrams in turn, until it is dropped.
struct Flood {
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    fn start(from: &str, to: SocketAddr, datagrams: Vec<Vec<u8>>) -> Flood {
        Flood::through(UdpSocket::bind((from, 0)).unwrap(), to, datagrams)
    }

    fn through(socket: UdpSocket, to: SocketAddr, datagrams: Vec<Vec<u8>>) -> Flood {
        let ending = Arc::<AtomicBool>::default();
        let ended = Arc::clone(&ending);
        let thread = std::thread::spawn(move || {
            let mut due = Instant::now();
            let all = datagrams.iter().cycle().take(PACKETS_MAX);
            for (number, datagram) in all.enumerate() {
                if number % BURST == 0 {
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    due += EVERY;
                }
                socket.send_to(datagram, to).unwrap();
            }
        });
        Flood { ending, thread: Some(thread) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn rtp() -> Vec<u8> {
    Phone::new(66).voice.packet(66)
}

/// A check with a wrong password.
fn failing_check(ufrag: &str) -> Vec<u8> {
    let (mut check, key) = (Vec::new(), StunKey::new("not the password of the session"));
    let username = Username { server_ufrag: ufrag, client_ufrag: "stranger" };
    let probe = BindingBuilder::probe(Transaction([66; 12]));
    BindingBuilder { username: Some(username), key: Some(&key), ..probe }.write(&mut check);
    check
}

/// Waits until the limit of unknown packets has no allowance left.
fn wait_for_limit(gateway: &Gateway) {
    wait_until("the flood is limited", || gateway.drops("limited") > 100);
}

/// A client's number; each has a host address of its own in the attacker's /24.
fn phone(number: u8) -> Phone {
    Phone::on(&format!("127.0.0.{number}:0"), number.into())
}

/// Sends media until the first packet is heard. Returns 1 if earlier ones were lost.
fn first_heard_late(phone: &mut Phone) -> u32 {
    talk(&mut [&mut *phone], "the newcomer hears itself", |phones| !phones[0].heard.is_empty());
    u32::from(phone.heard[0].mark.number > 0)
}

/// Sends checks until one is answered. Returns 1 if earlier ones were not.
fn check_answered_late(phone: &mut Phone, credentials: &Credentials) -> u32 {
    let began = Instant::now();
    let mut late = 0;
    loop {
        credentials.check(phone, Nominate::Yes);
        let sent = Instant::now();
        while sent.elapsed() < Duration::from_secs(2) {
            phone.listen();
            if credentials.mapped(phone).is_some() {
                return late;
            }
        }
        late = 1;
        assert!(began.elapsed() < TIMEOUT, "timed out: the check is answered");
    }
}

#[test]
fn flood_from_prefix_spares_newcomers() {
    let node = Node::agent("east-a1");
    let identities = "[\"declared\", \"declared-ip\", \"stun\"]";
    let mut world = World::of(&[&node]).with_identities(identities);
    world.limits += "misses_per_prefix = 1\n";
    let gateway = world.start();
    let observed = gateway.open(offer("observed", IngressProtocol::Udp(ClientIdentity::Stun)));
    let to = udp_of(&observed);
    let ufrag = Credentials::of(&observed).ufrag;
    let junk = vec![rtp(), failing_check(&ufrag), failing_check("unknown"), vec![0; 60]];
    let _flood = Flood::start("127.0.0.250", to, junk);
    wait_for_limit(&gateway);

    let (mut by_address, mut by_ip, mut by_check) = (0, 0, 0);
    for number in 1..=NEWCOMERS {
        let mut ann = phone(number);
        let opened = gateway.open(offer(&format!("address-{number}"), declared(&ann)));
        ann.set_target(udp_of(&opened));
        by_address += first_heard_late(&mut ann);

        let mut bob = phone(100 + number);
        let ingress = IngressProtocol::Udp(ClientIdentity::DeclaredIp(bob.address().ip()));
        let opened = gateway.open(offer(&format!("ip-{number}"), ingress));
        bob.set_target(udp_of(&opened));
        by_ip += first_heard_late(&mut bob);

        let mut cid = phone(200 + number);
        let opened = gateway
            .open(offer(&format!("check-{number}"), IngressProtocol::Udp(ClientIdentity::Stun)));
        cid.set_target(udp_of(&opened));
        by_check += check_answered_late(&mut cid, &Credentials::of(&opened));
    }
    let late = [by_address, by_ip, by_check];
    assert!(late.iter().all(|late| *late <= UNLUCKY_MAX), "{late:?} of {NEWCOMERS} each were late");
}

#[test]
fn client_hello_floods_spare_calls_and_handshakes() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).with_identities("[\"stun\"]").start();
    let open = |number, room| {
        let client = WebrtcPhone::new(number);
        let opened = gateway.open(client.offer(room));
        (client, udp_of(&opened), Credentials::of(&opened))
    };
    let connected = |number| {
        let (mut client, to, credentials) = open(number, "room");
        client.connect(to, &credentials).unwrap();
        client
    };
    let (mut ann, mut bob) = (connected(1), connected(2));
    // One flood comes from an address that passed a check, the other one from a stranger.
    let (mut eve, to, credentials) = open(6, "other");
    eve.phone.set_target(to);
    credentials.check(&eve.phone, Nominate::Yes);
    let mut hello = Vec::new();
    let now = eve.dtls.next_timeout();
    eve.dtls.handle_timeout(now, &mut |datagram: &[u8]| hello = datagram.to_vec()).unwrap();
    assert!(!hello.is_empty());
    let checked = eve.phone.socket.try_clone().unwrap();
    let _floods = [
        Flood::through(checked, to, vec![hello.clone()]),
        Flood::start("127.0.0.250", to, vec![hello]),
    ];
    wait_until("strangers are refused", || {
        gateway.drops("unknown-source") + gateway.drops("limited") > 1_000
    });
    let heard = [ann.phone.heard.len(), bob.phone.heard.len()];
    talk(&mut [&mut ann.phone, &mut bob.phone], "the call goes on", |phones| {
        (0..2).all(|end| phones[end].heard.len() >= heard[end] + 100)
    });
    let mut cid = connected(3);
    talk(&mut [&mut cid.phone, &mut bob.phone], "a newcomer hears the room", |phones| {
        phones[0].heard.len() >= 10
    });
}

/// The bucket of the prefix `127.second.third.0/24` under a hash without keys, which an attacker can compute.
fn computed_bucket(second: u8, third: u8) -> u64 {
    let prefix = u64::from(u32::from_be_bytes([0, 127, second, third]));
    prefix.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54
}

#[test]
fn computed_collision_spares_newcomers() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    world.listens =
        "[[listen]]\nudp = \"127.0.0.1:0\"\nidentity = [\"open\"]\nscenario = \"call\"\n".into();
    world.limits += "misses_per_prefix = 1\n";
    let gateway = world.start();
    let to = gateway.status().udp[0];
    // RTCP opens no session, so its source stays unknown.
    let mut report = Vec::new();
    rtcp::write_receiver_report(66, &[], &mut report);
    let _flood = Flood::start("127.200.200.250", to, vec![report]);
    wait_for_limit(&gateway);

    let prefixes = (1..=255).flat_map(|second| (0..=255).map(move |third| (second, third)));
    let collides = |&(second, third): &(u8, u8)| {
        (second, third) != (200, 200) && computed_bucket(second, third) == computed_bucket(200, 200)
    };
    // One prefix may share the bucket by chance, hardly both.
    let mut phones =
        prefixes.filter(collides).take(2).zip(1_u8..).map(|((second, third), number)| {
            let mut phone = Phone::on(&format!("127.{second}.{third}.1:0"), number.into());
            phone.set_target(to);
            phone
        });
    let (mut ann, mut bob) = (phones.next().unwrap(), phones.next().unwrap());
    ann.send_media();
    bob.send_media();
    wait_until("a single packet opens a session", || gateway.status().sessions > 0);
    talk(&mut [&mut ann, &mut bob], "its sender hears itself", |phones| {
        phones.iter().any(|phone| !phone.heard.is_empty())
    });
}

#[test]
fn requests_in_one_packet_are_one_at_the_sender() {
    let mut node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).start();
    let (mut ann, mut bob) = (Phone::new(1), Phone::new(2));
    for phone in [&mut ann, &mut bob] {
        let opened = gateway.open(offer("room", declared(phone)));
        phone.set_target(udp_of(&opened));
    }
    ann.sends_video = true;
    talk(&mut [&mut ann, &mut bob], "he sees her", |phones| !phones[1].heard_from(1, 1).is_empty());
    let media = bob.heard_from(1, 1)[0].header.ssrc;
    let mut requests = Vec::new();
    rtcp::write_receiver_report(9, &[], &mut requests);
    (0..90).for_each(|_| rtcp::write_pli(rtcp::Pli { sender: 9, media }, &mut requests));
    ann.other.clear();
    bob.send(&requests);
    talk(&mut [&mut ann, &mut bob], "she is asked", |phones| !phones[0].other.is_empty());
    talk_for(&mut [&mut ann, &mut bob], 10);
    assert_eq!(ann.other.len(), 1);
    drop(gateway);
    let counted = node.kill().pli;
    assert!((1..10).contains(&counted), "{counted} requests at the node");
}
