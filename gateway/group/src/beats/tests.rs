use std::net::Ipv4Addr;
use std::time::Duration;

use evenkeel_config::{AddressPlace, GatewayConfig, MovingAddress, PeerSettings, SecretFile};
use evenkeel_fuzz::Corpus;
use evenkeel_telemetry::Telemetry;
use evenkeel_testkit::udp::await_closed;

use super::*;

pub(crate) const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

const NOW: u64 = 1_700_000_000_000_000;

/// A member whose name is lesser than its peer's is preferred.
pub(crate) fn member(
    [name, peer]: [&str; 2],
    [listen, address]: [SocketAddr; 2],
    secrets: &[&str],
) -> GroupSettings {
    let place = AddressPlace::Interface("lo".to_owned());
    let moved = MovingAddress {
        address: Ipv4Addr::new(192, 0, 2, 10).into(),
        prefix: 24,
        place,
        port_legs: false,
    };
    GroupSettings {
        name: name.into(),
        secrets: secrets.iter().map(|text| SecretFile::new(text.repeat(32).into_bytes())).collect(),
        listen,
        preferred: name < peer,
        hold_down: Duration::from_secs(5),
        hold_down_max: Duration::from_secs(300),
        peers: vec![PeerSettings { name: peer.into(), address, agent: None, fence: None }],
        addresses: vec![moved],
    }
}

/// Refusals, and where they are counted.
pub(crate) struct Counted {
    telemetry: Telemetry,
    pub(crate) refusals: RefusalLog,
}

impl Default for Counted {
    fn default() -> Counted {
        let telemetry =
            Telemetry::start(&GatewayConfig::load(None, None, &[]).unwrap(), "test").unwrap();
        let refusals = RefusalLog::new(telemetry.instruments());
        Counted { telemetry, refusals }
    }
}

impl Counted {
    /// The sum of all reasons that contain this text.
    pub(crate) fn count(&self, reason: &str) -> u64 {
        let text = self.telemetry.prometheus().render();
        let lines = text.lines().filter(|line| line.starts_with("evenkeel_cluster_refused_total{"));
        let lines = lines.filter(|line| line.contains(&format!("reason=\"{reason}")));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }
}

fn signed(names: [&str; 2], secrets: &[&str]) -> BeatSigner {
    let member = member(names, [LOOPBACK; 2], secrets);
    BeatSigner::new(&member, &member.peers[0].name, 0)
}

fn left(secrets: &[&str]) -> BeatSigner {
    signed(["edge-1", "edge-2"], secrets)
}

fn right(secrets: &[&str]) -> BeatSigner {
    signed(["edge-2", "edge-1"], secrets)
}

#[test]
fn beat_of_the_peer_is_read() {
    let beat = left(&["a"]).write(b"standby", NOW).to_vec();
    assert_eq!(right(&["a"]).read(&beat, NOW), Ok(&b"standby"[..]));
    let empty = left(&["a"]).write(b"", NOW).to_vec();
    assert_eq!(right(&["a"]).read(&empty, NOW), Ok(&b""[..]));
}

#[test]
fn secret_rotates_without_a_lost_beat() {
    let steps = [&["old"][..], &["old", "new"], &["new", "old"], &["new"]];
    for pair in steps.windows(2) {
        for (sends, reads) in [(pair[0], pair[1]), (pair[1], pair[0]), (pair[1], pair[1])] {
            let beat = left(sends).write(b"x", NOW).to_vec();
            let expected =
                if reads.contains(&sends[0]) { Ok(&b"x"[..]) } else { Err(BeatRefusal::Secret) };
            assert_eq!(right(reads).read(&beat, NOW), expected, "{sends:?} to {reads:?}");
        }
    }
    let beat = left(&["new", "old"]).write(b"x", NOW).to_vec();
    assert_eq!(right(&["old", "new"]).read(&beat, NOW), Ok(&b"x"[..]));
    assert_eq!(right(&["old"]).read(&beat, NOW), Err(BeatRefusal::Secret));
}

#[test]
fn replaced_secrets_refuse_the_previous_one() {
    let (mut sender, mut reader) = (left(&["a"]), right(&["a"]));
    let before = sender.write(b"x", NOW).to_vec();
    assert_eq!(reader.read(&before, NOW), Ok(&b"x"[..]));
    let of_left = member(["edge-1", "edge-2"], [LOOPBACK; 2], &["b", "a"]);
    sender.replace_secrets(&of_left, "edge-2");
    let of_right = |secrets: &[&str]| member(["edge-2", "edge-1"], [LOOPBACK; 2], secrets);
    reader.replace_secrets(&of_right(&["a", "b"]), "edge-1");
    let beat = sender.write(b"y", NOW).to_vec();
    assert_eq!(reader.read(&beat, NOW), Ok(&b"y"[..]));
    assert_eq!(reader.read(&before, NOW), Err(BeatRefusal::Replayed), "times are kept");
    reader.replace_secrets(&of_right(&["b"]), "edge-1");
    let previous = left(&["a"]).write(b"z", NOW + 9).to_vec();
    assert_eq!(reader.read(&previous, NOW), Err(BeatRefusal::Secret));
}

#[test]
fn beat_with_any_changed_byte_is_refused() {
    let beat = left(&["a"]).write(b"standby", NOW).to_vec();
    for place in 0..beat.len() {
        let mut changed = beat.clone();
        changed[place] ^= 1;
        right(&["a"]).read(&changed, NOW).expect_err("a changed beat");
        right(&["a"]).read(&beat[..place], NOW).expect_err("a part of a beat");
    }
    let mut changed = beat.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(right(&["a"]).read(&changed, NOW), Err(BeatRefusal::Forged));
    changed.resize(HEAD_LEN + MAC_LEN + PAYLOAD_MAX + 1, 0);
    assert_eq!(right(&["a"]).read(&changed, NOW), Err(BeatRefusal::Malformed));
}

#[test]
fn beat_to_another_member_is_forged() {
    let beat = left(&["a"]).write(b"x", NOW).to_vec();
    for reader in [["edge-3", "edge-1"], ["edge-2", "edge-3"], ["edge-1", "edge-2"]] {
        assert_eq!(signed(reader, &["a"]).read(&beat, NOW), Err(BeatRefusal::Forged), "{reader:?}");
    }
}

#[test]
fn replayed_or_older_beat_is_refused() {
    let (mut sender, mut reader) = (left(&["a"]), right(&["a"]));
    let [first, second] = [NOW, NOW + 5_000].map(|at| sender.write(b"x", at).to_vec());
    assert!(reader.read(&second, NOW).is_ok());
    assert_eq!(reader.read(&second, NOW), Err(BeatRefusal::Replayed));
    assert_eq!(reader.read(&first, NOW), Err(BeatRefusal::Replayed));
}

#[test]
fn beat_from_before_the_process_is_refused() {
    let member = member(["edge-2", "edge-1"], [LOOPBACK; 2], &["a"]);
    let mut reader = BeatSigner::new(&member, "edge-1", NOW);
    let mut sender = left(&["a"]);
    let [before, after] = [NOW - 1, NOW + 1].map(|at| sender.write(b"x", at).to_vec());
    assert_eq!(reader.read(&before, NOW), Err(BeatRefusal::Replayed));
    assert!(reader.read(&after, NOW).is_ok());
}

#[test]
fn beat_outside_the_time_window_is_refused() {
    let beat = left(&["a"]).write(b"x", NOW).to_vec();
    for (at, ahead_us) in [
        (NOW + SKEW_MAX_US + 1, -(SKEW_MAX_US as i64) - 1),
        (NOW - SKEW_MAX_US - 1, SKEW_MAX_US as i64 + 1),
    ] {
        assert_eq!(right(&["a"]).read(&beat, at), Err(BeatRefusal::Clock { ahead_us }));
    }
    assert!(right(&["a"]).read(&beat, NOW + SKEW_MAX_US).is_ok());
    assert!(right(&["a"]).read(&beat, NOW - SKEW_MAX_US).is_ok());
}

#[test]
fn clock_that_is_set_back_keeps_beats_in_order() {
    let (mut sender, mut reader) = (left(&["a"]), right(&["a"]));
    for at in [NOW, NOW, NOW - 1_000_000] {
        let beat = sender.write(b"x", at).to_vec();
        assert!(reader.read(&beat, NOW).is_ok(), "{at}");
    }
}

#[test]
fn only_a_sent_beat_is_believed_once_from_icmp() {
    let mut sender = left(&["a"]);
    let beat = sender.write(b"standby", NOW).to_vec();
    let mut forged = beat.clone();
    forged[HEAD_LEN] ^= 1;
    assert!(!sender.was_sent(&forged));
    assert!(!sender.was_sent(&beat[..HEAD_LEN + MAC_LEN - 1]), "the signature is cut off");
    assert!(!sender.was_sent(right(&["a"]).write(b"standby", NOW)), "of another sender");
    assert!(sender.was_sent(&beat[..HEAD_LEN + MAC_LEN]));
    assert!(!sender.was_sent(&beat), "a second time");
    for (later, is_kept) in [(QUOTABLE_MAX - 1, true), (QUOTABLE_MAX, false)] {
        let beat = sender.write(b"standby", NOW).to_vec();
        (0..later).for_each(|_| _ = sender.write(b"standby", NOW));
        assert_eq!(sender.was_sent(&beat), is_kept, "before {later} others");
    }
}

#[test]
fn fuzz_beat() {
    let beat = left(&["a"]).write(b"standby", NOW).to_vec();
    Corpus::of("beat").with(beat.clone()).check(|datagram| {
        let (mut sender, mut reader) = (left(&["a"]), right(&["a"]));
        let read = reader.read(datagram, NOW);
        assert!(read.is_err() || datagram == beat, "{datagram:?}");
        assert!(!sender.was_sent(datagram));
    });
}

async fn heard(beats: &mut Beats) -> BeatInput {
    let heard = tokio::time::timeout(Duration::from_secs(10), beats.recv());
    heard.await.expect("the peer is heard")
}

/// Two members that have heard each other.
async fn pair(counted: &Counted) -> (Beats, Beats) {
    let bind = || Beats::bind(&member(["edge-1", "edge-2"], [LOOPBACK; 2], &["a"])).unwrap();
    let sockets = [bind(), bind()];
    let [one, two] = sockets.each_ref().map(|socket| socket.local_addr().unwrap());
    let [left, right] = sockets;
    let settings = member(["edge-1", "edge-2"], [one, two], &["a"]);
    let mut left = Beats::start(left, &settings, counted.refusals.clone()).unwrap();
    let settings = member(["edge-2", "edge-1"], [two, one], &["a"]);
    let mut right = Beats::start(right, &settings, counted.refusals.clone()).unwrap();
    left.send(PeerId(0), b"owner");
    assert_eq!(heard(&mut right).await, BeatInput::Beat(PeerId(0), b"owner".to_vec()));
    right.send(PeerId(0), b"standby");
    assert_eq!(heard(&mut left).await, BeatInput::Beat(PeerId(0), b"standby".to_vec()));
    (left, right)
}

#[tokio::test]
async fn forged_beats_leave_turns_to_others() {
    let counted = Counted::default();
    let (mut left, right) = pair(&counted).await;
    for _ in 0..3 * READ_PER_TURN {
        right.socket.send(b"no beat").await.unwrap();
    }
    // One datagram was read before.
    for turn in [READ_PER_TURN - 1, 2 * READ_PER_TURN - 1] {
        let (ready, mut other) = tokio::sync::mpsc::channel(1);
        ready.try_send(()).unwrap();
        // Each turn of a task has a budget of tokio's, and the datagrams that were sent took a part of it.
        tokio::task::yield_now().await;
        tokio::select! {
            biased;
            heard = left.recv() => panic!("{heard:?}"),
            _ = other.recv() => {}
        }
        assert_eq!(counted.count("malformed"), turn as u64);
    }
}

#[tokio::test]
async fn closed_port_of_the_peer_is_reported() {
    let counted = Counted::default();
    let (mut left, mut right) = pair(&counted).await;
    let one = left.socket.local_addr().unwrap();
    let stranger = UdpSocket::bind(LOOPBACK).unwrap();
    stranger.send_to(b"no beat", one).unwrap();
    right.socket.send(b"no beat").await.unwrap();
    right.send(PeerId(0), b"last");
    assert_eq!(heard(&mut left).await, BeatInput::Beat(PeerId(0), b"last".to_vec()));
    // The kernel drops datagrams of other hosts before they are read.
    assert_eq!((counted.count("malformed"), counted.count("")), (1, 1));
    let two = right.socket.local_addr().unwrap();
    drop(right);
    await_closed(two);
    for _ in 0..2 {
        left.send(PeerId(0), b"owner");
        assert_eq!(heard(&mut left).await, BeatInput::Closed(PeerId(0)));
    }
}
