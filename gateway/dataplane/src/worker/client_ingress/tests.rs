use std::net::UdpSocket;
use std::time::{Duration, Instant};

use super::super::session::tests::{install, ways};
use super::*;
use crate::worker::command::Client;
use evenkeel_core::{Board, Srtp};

/// Two sessions that clients prove by checks, at home at one worker, and a socket that clients send from.
struct Bench {
    flows: Arc<Flows>,
    ingress: Ingress,
    ways: Ways,
    board: Board,
    sessions: [Session; 2],
    client: UdpSocket,
    start: Instant,
}

const MISSES: u32 = 200;

impl Bench {
    fn new() -> Bench {
        let start = Instant::now();
        let flows = Arc::new(Flows::new(100));
        let sessions = [1, 2].map(|slot| {
            let install = install(Client::Stun, Srtp::Plain, slot);
            let entry = Entry {
                password: Some(password(slot).as_bytes().into()),
                ..Entry::of(install.home)
            };
            flows.insert(Key::Ufrag(ufrag(slot)), entry).unwrap();
            Session::new(install)
        });
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_nonblocking(true).unwrap();
        let ingress = Ingress::new(Arc::clone(&flows), vec![false], MISSES, start);
        let (ways, board) = (ways(start).0, Board::new(1));
        Bench { flows, ingress, ways, board, sessions, client, start }
    }

    fn from(&self) -> From {
        (0, self.client.local_addr().unwrap())
    }

    fn judge(&mut self, ms: u64, side: Side, datagram: &[u8]) -> Option<(Home, Kind)> {
        let (from, now) = (self.from(), self.start + Duration::from_millis(ms));
        self.ingress.judge(from, side, datagram, &self.ways, now)
    }

    /// The client sends this; whose address it took, if it came to a session that took one.
    fn send(&mut self, ms: u64, datagram: &[u8]) -> Option<Home> {
        let (home, kind) = self.judge(ms, Side::Rtp, datagram)?;
        let now = self.start + Duration::from_millis(ms);
        let Bench { ingress, ways, board, sessions, client, .. } = self;
        let arrival = Arrival { listener: 0, source: client.local_addr().unwrap(), kind };
        let loan = &mut Loan { ways, board, now };
        let session = sessions.iter_mut().find(|session| session.home == home).unwrap();
        let taken = ingress.deliver(session, arrival, datagram, loan);
        if let Some(session) = sessions.iter_mut().find(|session| Some(session.home) == taken) {
            session.lost((0, arrival.source));
        }
        ways.flush(now);
        taken
    }

    /// Whether a check was answered since this was asked last.
    fn answered(&self) -> bool {
        self.client.recv(&mut [0; 256]).is_ok()
    }

    fn holder(&self) -> Option<Home> {
        let (listener, address) = self.from();
        self.flows.home(&Key::Udp { listener, address })
    }

    fn drops(&self, reason: Reason) -> u64 {
        self.ways.stamps.drops(reason)
    }
}

fn password(slot: u32) -> String {
    format!("password of session {slot}")
}

fn ufrag(slot: u32) -> Ufrag {
    Ufrag::new(format!("ufrag{slot}").as_bytes()).unwrap()
}

fn check_with(slot: u32, password: &str) -> Vec<u8> {
    let server_ufrag = format!("ufrag{slot}");
    let username = stun::Username { server_ufrag: &server_ufrag, client_ufrag: "c" };
    let key = stun::Key::new(password);
    let mut datagram = Vec::new();
    let probe = stun::Binding::probe(stun::Transaction([7; 12]));
    stun::Binding { username: Some(username), key: Some(&key), ..probe }.write(&mut datagram);
    datagram
}

/// A check with an attribute behind the name, and an integrity that holds.
fn check_with_attribute(slot: u32, kind: u16) -> Vec<u8> {
    let username = format!("ufrag{slot}:x");
    assert_eq!(username.len() % 4, 0, "so that it needs no padding");
    let mut datagram = [&[0, 1, 0, 0][..], &stun::MAGIC_COOKIE.to_be_bytes(), &[7; 12]].concat();
    let mut append = |kind: u16, value: &[u8]| {
        datagram.extend_from_slice(&kind.to_be_bytes());
        datagram.extend_from_slice(&(value.len() as u16).to_be_bytes());
        datagram.extend_from_slice(value);
    };
    append(0x0006, username.as_bytes());
    append(kind, &[]);
    // RFC 8489, 14.5: over the header with a length that ends with the integrity, 24 bytes.
    datagram[3] = (datagram.len() - 20 + 24) as u8;
    let key =
        ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password(slot).as_bytes());
    let integrity = ring::hmac::sign(&key, &datagram);
    datagram.extend_from_slice(&[0, 8, 0, 20]);
    datagram.extend_from_slice(integrity.as_ref());
    datagram
}

fn check(slot: u32) -> Vec<u8> {
    check_with(slot, &password(slot))
}

fn media() -> Vec<u8> {
    let mut packet = Vec::new();
    let fields =
        rtp::Fields { payload_type: 96, marker: false, sequence: 1, timestamp: 1, ssrc: 1 };
    rtp::write(&fields, b"frame", &mut packet);
    packet
}

#[test]
fn a_client_that_comes_again_from_its_address_is_the_new_sessions_once_the_old_is_silent() {
    let mut bench = Bench::new();
    let [first, second] = [0, 1].map(|at: usize| bench.sessions[at].home);
    bench.send(0, &check(1));
    assert!(bench.answered());
    bench.send(1_000, &media());
    bench.send(3_000, &check(2));
    assert!(!bench.answered(), "the address may be forged while its holder goes on checking");
    assert_eq!(bench.holder(), Some(first));
    assert_eq!(bench.send(6_000, &check(2)), Some(first));
    assert!(bench.answered());
    assert_eq!(bench.holder(), Some(second));
    bench.send(6_001, &media());
    assert_eq!(
        bench.sessions.each_ref().map(|session| session.final_totals(Instant::now()).packets_up),
        [1, 1]
    );
    assert!(bench.sessions[0].learned().is_empty());
}

#[test]
fn an_address_that_was_declared_is_neither_taken_nor_answered() {
    let mut bench = Bench::new();
    let declared = Home { worker: 0, slot: 9, generation: 1 };
    let (listener, address) = bench.from();
    bench.flows.insert(Key::Udp { listener, address }, Entry::of(declared)).unwrap();
    bench.send(60_000, &check(1));
    assert!(!bench.answered());
    assert_eq!(bench.holder(), Some(declared));
}

#[test]
fn an_address_is_learned_at_the_sessions_home_alone() {
    let mut bench = Bench::new();
    let home = bench.sessions[0].home;
    assert_eq!(bench.judge(0, Side::Rtp, &check(1)), Some((home, Kind::Check)));
    assert_eq!(bench.holder(), None, "whoever read it may not be the one to forget it");
}

#[test]
fn checks_that_fail_are_looked_at_so_often_only_from_known_addresses_too() {
    let mut bench = Bench::new();
    bench.send(0, &check(1));
    bench.send(0, &media());
    (0..1_000).for_each(|_| assert_eq!(bench.judge(1, Side::Rtp, &check_with(1, "guess")), None));
    assert_eq!(bench.drops(Reason::BadIntegrity), 2 * u64::from(MISSES));
    bench.send(2, &media());
    assert_eq!(
        bench.sessions[0].final_totals(Instant::now()).packets_up,
        2,
        "its media is not kept out"
    );
    assert!(bench.judge(20, Side::Rtp, &check(1)).is_some(), "nor are its checks, for long");
}

#[test]
fn no_check_is_taken_where_rtcp_alone_is_due() {
    let mut bench = Bench::new();
    assert_eq!(bench.judge(0, Side::Rtcp, &check(1)), None);
    assert_eq!(bench.drops(Reason::UnknownSource), 1);
}

#[test]
fn a_check_that_asks_for_what_we_do_not_know_is_told_so_and_teaches_nothing() {
    let mut bench = Bench::new();
    let mut datagram = check_with_attribute(1, 0x7fff);
    bench.send(0, &datagram);
    let mut answer = [0; 256];
    let length = bench.client.recv(&mut answer).unwrap();
    let response = stun::Response::parse(&answer[..length]).unwrap();
    assert_eq!(response.outcome(), stun::Outcome::Refused(420));
    assert_eq!(bench.holder(), None);
    *datagram.last_mut().unwrap() ^= 1;
    bench.send(1, &datagram);
    assert!(!bench.answered(), "strangers are told nothing");
}

#[test]
fn what_is_at_hand_is_looked_up_again_after_a_second() {
    let mut bench = Bench::new();
    let (from, home) = (bench.from(), bench.sessions[0].home);
    let key = Key::Udp { listener: from.0, address: from.1 };
    bench.flows.insert(key, Entry::of(home)).unwrap();
    let voice = [0x80, 111, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    let mut heard = |ms, removed: bool| {
        if removed {
            bench.flows.remove(&key, home);
        }
        bench.ingress.forget(bench.start + Duration::from_millis(ms));
        bench.judge(ms, Side::Rtp, &voice).map(|(home, _)| home)
    };
    assert_eq!(heard(0, false), Some(home));
    assert_eq!(heard(999, true), Some(home), "it is at hand");
    assert_eq!(heard(1_000, false), None);
}
