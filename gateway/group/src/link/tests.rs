use std::io::Read as StdRead;
use std::net::TcpStream as StdStream;
use std::os::fd::AsRawFd;

use evenkeel_config::{NodeConfig, NodeSrtp};
use evenkeel_fuzz::Corpus;
use evenkeel_ownership::PeerId;
use evenkeel_process::descriptors;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::super::beats::tests::{Counted, LOOPBACK, member};
use super::frame::FRAME_MAX;
use super::handshakes::HANDSHAKES_MAX;
use super::*;

const NAMES: [&str; 2] = ["edge-1", "edge-2"];

/// Two members, and their listening sockets.
struct Pair {
    clusters: [GroupSettings; 2],
    listeners: [StdListener; 2],
    settings: [GatewayConfig; 2],
    counted: [Counted; 2],
}

/// The only other member.
fn linked() -> (watch::Sender<LinkedPeer>, watch::Receiver<LinkedPeer>) {
    watch::channel(LinkedPeer { id: PeerId(0), has_records: true })
}

fn tls_of(cluster: &GroupSettings) -> watch::Sender<LinkTls> {
    watch::Sender::new(LinkTls::of(&cluster.secrets).unwrap())
}

fn api_of(cluster: &GroupSettings) -> PeerApi {
    PeerApi::new(cluster, linked().1, tls_of(cluster).subscribe())
}

impl Pair {
    fn of(names: [[&str; 2]; 2], secrets: [&[&str]; 2]) -> Pair {
        let bind = || Link::bind(&member(NAMES, [LOOPBACK; 2], &["a"])).unwrap();
        let listeners = [bind(), bind()];
        let [one, two] = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
        let mut clusters =
            [member(names[0], [one, two], secrets[0]), member(names[1], [two, one], secrets[1])];
        clusters[0].preferred = true;
        clusters[1].preferred = false;
        let settings = [settings(), settings()];
        Pair { clusters, listeners, settings, counted: Default::default() }
    }

    fn sound() -> Pair {
        let [left, right] = NAMES;
        Pair::of([[left, right], [right, left]], [&["a"], &["a"]])
    }

    fn start(&self, at: usize) -> Link {
        self.start_with(at, mpsc::channel(1).0)
    }

    fn start_with(&self, at: usize, streams: mpsc::Sender<PeerStream>) -> Link {
        let listener = self.listeners[at].try_clone().unwrap();
        let refusals = self.counted[at].refusals.clone();
        let (settings, cluster) = (&self.settings[at], &self.clusters[at]);
        let (linked, tls) = (linked().0, tls_of(cluster));
        Link::start(listener, settings, cluster, refusals, streams, linked, tls).unwrap()
    }

    fn both(&self) -> [Link; 2] {
        [self.start(0), self.start(1)]
    }

    /// The reasons for which both ends refuse.
    async fn refused(&self) -> [LinkRefusal; 2] {
        let [mut left, mut right] = self.both();
        tokio::join!(refused(&mut left), refused(&mut right)).into()
    }
}

fn settings() -> GatewayConfig {
    GatewayConfig::load(None, None, &[]).unwrap()
}

/// Settings with these nodes.
fn nodes(text: &[(&str, u16)]) -> Vec<NodeConfig> {
    let node = |(name, port): &(&str, u16)| {
        format!(
            "[[node]]\nname = \"{name}\"\naddress = \"10.0.1.11:{port}\"\nregion = \"east\"\nzone = \"a\"\n\
             driver = \"plain\"\ncapacity = \"1 Mbit/s\"\n"
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("evenkeel.toml");
    std::fs::write(&file, text.iter().map(node).collect::<String>()).unwrap();
    GatewayConfig::load(Some(&file), None, &evenkeel_drivers::kinds(evenkeel_drivers::DRIVERS))
        .unwrap()
        .nodes
}

async fn next(link: &mut Link) -> LinkEvent {
    let event = timeout(Duration::from_secs(20), link.recv());
    event.await.expect("an event of the link")
}

async fn until(link: &mut Link, wanted: impl Fn(&LinkEvent) -> bool) -> LinkEvent {
    loop {
        let event = next(link).await;
        if wanted(&event) {
            return event;
        }
    }
}

async fn refused(link: &mut Link) -> LinkRefusal {
    loop {
        match next(link).await {
            LinkEvent::Refused(refused) => return refused,
            LinkEvent::Connected => panic!("connected"),
            _ => {}
        }
    }
}

/// Sends the frame on each connection until it arrives. Connections that cross are replaced.
async fn deliver(from: &mut Link, to: &mut Link, frame: &LinkFrame) {
    from.send(frame);
    loop {
        tokio::select! {
            event = next(from) => {
                if event == LinkEvent::Connected {
                    from.send(frame);
                }
            }
            event = next(to) => {
                if event == LinkEvent::Frame(frame.clone()) {
                    return;
                }
            }
        }
    }
}

#[tokio::test]
async fn frames_cross_in_both_directions() {
    let [mut left, mut right] = Pair::sound().both();
    let long = LinkFrame::Batch((0..3_000_000_u32).map(|at| at as u8).collect());
    for frame in [long, LinkFrame::Acknowledged(u64::MAX - 1), LinkFrame::HandOver] {
        deliver(&mut left, &mut right, &frame).await;
        deliver(&mut right, &mut left, &frame).await;
    }
    let empty = LinkFrame::Batch(Vec::new());
    deliver(&mut left, &mut right, &empty).await;
}

#[tokio::test(start_paused = true)]
async fn unanswered_syn_is_not_waited_for() {
    // Linux drops the SYN of a connection beyond the backlog of 0 and one more.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(LOOPBACK).unwrap();
    let listener = socket.listen(0).unwrap();
    let peer = listener.local_addr().unwrap();
    let _waiting = StdStream::connect(peer).unwrap();
    let api = api_of(&member(NAMES, [LOOPBACK, peer], &["a"]));
    let since = Instant::now();
    let error = api.connect().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(since.elapsed() < Duration::from_secs(1), "the kernel repeats the SYN after 1 s");
}

#[tokio::test]
async fn rotated_secrets_connect_in_either_order() {
    let [left, right] = NAMES;
    for secrets in [
        [&["old"][..], &["old", "new"][..]],
        [&["old", "new"][..], &["new", "old"][..]],
        [&["new", "old"][..], &["old", "new"][..]],
        [&["new"][..], &["new", "old"][..]],
    ] {
        let pair = Pair::of([[left, right], [right, left]], secrets);
        let [mut left, mut right] = pair.both();
        deliver(&mut left, &mut right, &LinkFrame::Acknowledged(1)).await;
    }
}

#[tokio::test]
async fn replaced_secrets_hold_for_connections_to_come() {
    let pair = Pair::sound();
    let [mut left, mut right] = pair.both();
    deliver(&mut left, &mut right, &LinkFrame::Acknowledged(1)).await;
    let next = member(NAMES, [LOOPBACK; 2], &["b"]).secrets;
    for link in [&left, &right] {
        link.replace_secrets(&next).unwrap();
    }
    deliver(&mut left, &mut right, &LinkFrame::Acknowledged(2)).await;
    left.restart();
    deliver(&mut left, &mut right, &LinkFrame::Acknowledged(3)).await;
    let refused = api_of(&pair.clusters[1]).connect().await.unwrap_err();
    let inner = refused.get_ref().and_then(|inner| inner.downcast_ref());
    assert!(inner.is_some_and(tls::is_another_secret), "the previous secret: {refused}");
}

#[tokio::test]
async fn wrong_secret_is_reported_at_both_ends() {
    let [left, right] = NAMES;
    let pair = Pair::of([[left, right], [right, left]], [&["a"], &["b"]]);
    assert_eq!(pair.refused().await, [LinkRefusal::Secret, LinkRefusal::Secret]);
    assert!(pair.counted.iter().all(|counted| counted.count("secret") > 0));
    // This member signs with a secret that the peer does not know yet.
    let pair = Pair::of([[left, right], [right, left]], [&["new", "old"], &["old"]]);
    assert_eq!(pair.refused().await, [LinkRefusal::Secret, LinkRefusal::Secret]);
}

#[tokio::test]
async fn equal_names_are_reported_at_both_ends() {
    let pair = Pair::of([NAMES, NAMES], [&["a"], &["a"]]);
    let same = LinkRefusal::SameName { name: "edge-1".to_owned() };
    assert_eq!(pair.refused().await, [same.clone(), same]);
}

#[tokio::test]
async fn unknown_peer_is_reported_at_both_ends() {
    let pair = Pair::of([NAMES, ["edge-3", "edge-1"]], [&["a"], &["a"]]);
    let [left, right] = pair.refused().await;
    let words = |refused: LinkRefusal| refused.to_string();
    assert_eq!(words(left), "the member `edge-3` connected, the configured peer is `edge-2`");
    let right = words(right);
    assert_eq!(right, "`edge-1` is configured with the peer `edge-2`, and this member is `edge-3`");
}

#[tokio::test]
async fn configurations_that_differ_are_reported_at_both_ends() {
    type Change = fn(&mut Pair);
    let changes: [(Change, &str, &str); 4] = [
        (
            |pair| pair.clusters[1].preferred = true,
            "`preferred` in [cluster] differs from that of `edge-2`: true at both members",
            "`preferred` in [cluster] differs from that of `edge-1`: true at both members",
        ),
        (
            |pair| {
                pair.settings[0].limits.workers = Some(2);
                pair.settings[1].limits.workers = Some(3);
            },
            "`workers` in [limits] differs from that of `edge-2`: 2 here, 3 there",
            "`workers` in [limits] differs from that of `edge-1`: 3 here, 2 there",
        ),
        (
            |pair| pair.clusters[1].addresses[0].prefix = 32,
            "[[cluster.address]] differs from that of `edge-2`: `192.0.2.10/24` only here, `192.0.2.10/32` only there",
            "[[cluster.address]] differs from that of `edge-1`: `192.0.2.10/32` only here, `192.0.2.10/24` only there",
        ),
        (
            |pair| pair.settings[0].listens[0].address = "192.0.2.10:5004".parse().unwrap(),
            "[[listen]] differs from that of `edge-2`: `udp 192.0.2.10:5004 192.0.2.10:5005` only here",
            "[[listen]] differs from that of `edge-1`: `udp 192.0.2.10:5004 192.0.2.10:5005` only there",
        ),
    ];
    for (change, here, there) in changes {
        let mut pair = Pair::sound();
        change(&mut pair);
        let refused = pair.refused().await.map(|refused| refused.to_string());
        assert_eq!(refused, [here, there]);
    }
}

#[tokio::test]
async fn differing_nodes_are_reported_until_they_agree() {
    let mut pair = Pair::sound();
    pair.settings[0].nodes = nodes(&[("east-a1", 4000), ("east-a2", 4001)]);
    pair.settings[1].nodes = nodes(&[("east-a1", 4002)]);
    let [mut left, mut right] = pair.both();
    let differ = |event: &LinkEvent| matches!(event, LinkEvent::Differs(Some(_)));
    let (here, there) = tokio::join!(until(&mut left, differ), until(&mut right, differ));
    let words = |words: &str| LinkEvent::Differs(Some(words.to_owned()));
    assert_eq!(
        here,
        words(
            "node `east-a1` is plain 10.0.1.11:4000 in east/a here and plain 10.0.1.11:4002 in east/a there, \
             node `east-a2` only here"
        )
    );
    let LinkEvent::Differs(Some(there)) = there else { panic!("{there:?}") };
    assert!(there.ends_with("node `east-a2` only there"), "{there}");
    pair.settings[1].nodes = pair.settings[0].nodes.clone();
    right.apply(&pair.settings[1]);
    let equal = |event: &LinkEvent| *event == LinkEvent::Differs(None);
    tokio::join!(until(&mut left, equal), until(&mut right, equal));
}

#[tokio::test]
async fn differing_srtp_of_a_node_is_reported() {
    let mut pair = Pair::sound();
    pair.settings[0].nodes = nodes(&[("east-a1", 4000)]);
    pair.settings[1].nodes = nodes(&[("east-a1", 4000)]);
    pair.settings[1].nodes[0].srtp = NodeSrtp::Passthrough;
    let [mut left, mut right] = pair.both();
    let differ = |event: &LinkEvent| matches!(event, LinkEvent::Differs(Some(_)));
    let (here, _) = tokio::join!(until(&mut left, differ), until(&mut right, differ));
    let text = "node `east-a1` is plain 10.0.1.11:4000 in east/a here and plain 10.0.1.11:4000 in east/a \
                with `srtp = \"passthrough\"` there";
    assert_eq!(here, LinkEvent::Differs(Some(text.to_owned())));
}

#[tokio::test]
async fn differing_scenarios_are_reported() {
    let mut pair = Pair::sound();
    let mut opera = pair.settings[0].sets[0].clone();
    opera.name = "opera".into();
    opera.bindings.clear();
    opera.scenarios.truncate(1);
    opera.scenarios[0].name = "opera".into();
    pair.settings[0].sets.push(opera);
    let [mut left, mut right] = pair.both();
    let differ = |event: &LinkEvent| matches!(event, LinkEvent::Differs(Some(_)));
    let (here, there) = tokio::join!(until(&mut left, differ), until(&mut right, differ));
    let words = |words: &str| LinkEvent::Differs(Some(words.to_owned()));
    assert_eq!(here, words("scenario `opera` only here"));
    assert_eq!(there, words("scenario `opera` only there"));
}

#[tokio::test]
async fn restarted_peer_connects_again() {
    let pair = Pair::sound();
    let [mut left, mut right] = pair.both();
    deliver(&mut left, &mut right, &LinkFrame::Acknowledged(1)).await;
    drop(right);
    until(&mut left, |event| *event == LinkEvent::Disconnected).await;
    assert!(!left.send(&LinkFrame::Acknowledged(2)));
    let mut right = pair.start(1);
    deliver(&mut left, &mut right, &LinkFrame::Acknowledged(3)).await;
    deliver(&mut right, &mut left, &LinkFrame::Acknowledged(4)).await;
    left.restart();
    until(&mut left, |event| *event == LinkEvent::Disconnected).await;
    deliver(&mut left, &mut right, &LinkFrame::Acknowledged(5)).await;
}

#[tokio::test]
async fn peer_that_does_not_read_is_disconnected() {
    let pair = Pair::sound();
    let [mut left, mut right] = pair.both();
    deliver(&mut left, &mut right, &LinkFrame::Acknowledged(1)).await;
    assert!(left.has_room());
    let batch = LinkFrame::Batch(vec![0; 4 << 20]);
    let sent = (0..100).take_while(|_| left.send(&batch)).count();
    assert!((1..100).contains(&sent), "{sent} frames of 4 MiB");
    assert!(!left.has_room());
    until(&mut left, |event| *event == LinkEvent::Disconnected).await;
    deliver(&mut left, &mut right, &LinkFrame::Acknowledged(2)).await;
}

#[tokio::test]
async fn frame_beyond_the_limit_is_not_sent() {
    let [mut left, mut right] = Pair::sound().both();
    deliver(&mut left, &mut right, &LinkFrame::Acknowledged(1)).await;
    assert!(!left.send(&LinkFrame::Batch(vec![0; FRAME_MAX + 1])));
    deliver(&mut left, &mut right, &LinkFrame::Acknowledged(2)).await;
}

/// The connection of a peer that is not a link.
async fn connected(pair: &Pair) -> tokio_rustls::client::TlsStream<TcpStream> {
    connected_with(pair, &hello_of_peer(pair)).await
}

fn hello_of_peer(pair: &Pair) -> Hello {
    Hello::of(&pair.settings[1], &pair.clusters[1], "edge-1", 1)
}

async fn connected_with(pair: &Pair, hello: &Hello) -> tokio_rustls::client::TlsStream<TcpStream> {
    let stream = TcpStream::connect(pair.clusters[0].listen).await.unwrap();
    let tls = LinkTls::of(&pair.clusters[1].secrets).unwrap();
    let connector = TlsConnector::from(tls.client);
    let mut stream = connector.connect(ServerName::try_from(NAME).unwrap(), stream).await.unwrap();
    frame::write(&mut stream, &hello.encode()).await.unwrap();
    frame::read_hello(&mut stream).await.unwrap();
    stream
}

#[tokio::test]
async fn peer_that_cannot_announce_is_not_asked_to() {
    for announces in [true, false] {
        let pair = Pair::sound();
        let mut left = pair.start(0);
        assert!(!left.ask_to_announce(), "without a connection");
        let mut hello = hello_of_peer(&pair);
        hello.announces = announces;
        let _peer = connected_with(&pair, &hello).await;
        until(&mut left, |event| *event == LinkEvent::Connected).await;
        assert_eq!(left.ask_to_announce(), announces);
    }
}

#[test]
fn hello_of_an_earlier_version_announces_nothing() {
    let hello = serde_json::to_value(hello_of_peer(&Pair::sound())).unwrap();
    let serde_json::Value::Object(mut fields) = hello else { panic!("{hello}") };
    assert_eq!(fields.remove("announces"), Some(true.into()));
    let earlier: Hello = serde_json::from_value(fields.into()).unwrap();
    assert!(!earlier.announces);
}

#[tokio::test]
async fn announced_length_beyond_the_limit_ends_the_connection() {
    let pair = Pair::sound();
    let mut left = pair.start(0);
    let mut peer = connected(&pair).await;
    until(&mut left, |event| *event == LinkEvent::Connected).await;
    let length = FRAME_MAX as u32 + 1;
    peer.write_all(&length.to_be_bytes()).await.unwrap();
    peer.write_all(&[2]).await.unwrap();
    until(&mut left, |event| *event == LinkEvent::Disconnected).await;
}

#[tokio::test]
async fn first_frame_is_a_short_hello() {
    let long: [u8; 5] = [0, 32, 0, 0, 1];
    let error = frame::read_hello(&mut &long[..]).await.unwrap_err();
    assert_eq!(error.to_string(), "a frame of 2097152 bytes, at most 1048576");
    let idle = frame::idle();
    let error = frame::read_hello(&mut &idle[..]).await.unwrap_err();
    assert_eq!(error.to_string(), "the first frame is no hello");
}

#[test]
fn fuzz_cluster_frame() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let cluster = member(NAMES, [LOOPBACK; 2], &["a"]);
    let hello = Hello::of(&settings(), &cluster, "edge-2", 7).encode();
    let frames = [
        LinkFrame::Batch(vec![1, 2, 3]),
        LinkFrame::Acknowledged(7),
        LinkFrame::Announce,
        LinkFrame::Announced,
    ];
    let frames = frames.iter().map(|frame| frame.encode().unwrap());
    let corpus = Corpus::of("cluster_frame").with(frame::idle()).with(hello);
    frames.fold(corpus, Corpus::with).check(|bytes| {
        runtime.block_on(async {
            let mut rest = bytes;
            while frame::read(&mut rest).await.is_ok() {}
            let _ = frame::read_hello(&mut &bytes[..]).await;
        });
    });
}

#[tokio::test]
async fn silent_peer_is_disconnected() {
    let pair = Pair::sound();
    let mut left = pair.start(0);
    let _peer = connected(&pair).await;
    until(&mut left, |event| *event == LinkEvent::Connected).await;
    until(&mut left, |event| *event == LinkEvent::Disconnected).await;
}

#[tokio::test]
async fn strangers_keep_no_member_from_its_peer() {
    let pair = Pair::sound();
    let strangers: Vec<_> = (0..4 * HANDSHAKES_MAX)
        .map(|_| StdStream::connect(pair.clusters[0].listen).unwrap())
        .collect();
    let [mut left, mut right] = pair.both();
    deliver(&mut right, &mut left, &LinkFrame::Acknowledged(1)).await;
    drop(strangers);
}

#[tokio::test]
async fn half_open_handshake_gives_its_place_to_the_peer() {
    let pair = Pair::sound();
    let (streams, mut handed) = mpsc::channel(1);
    let _left = pair.start_with(0, streams);
    let strangers: Vec<_> =
        (0..HANDSHAKES_MAX).map(|_| StdStream::connect(pair.clusters[0].listen).unwrap()).collect();
    let api = api_of(&pair.clusters[1]);
    while api.connect().await.is_err() {}
    handed.recv().await.unwrap();
    let mut last = strangers.last().unwrap();
    last.set_nonblocking(true).unwrap();
    let waits = StdRead::read(&mut last, &mut [0]).unwrap_err();
    assert_eq!(waits.kind(), io::ErrorKind::WouldBlock, "only the oldest one is closed");
}

#[tokio::test]
async fn connections_are_closed_early() {
    let pair = Pair::sound();
    let (streams, mut handed) = mpsc::channel(1);
    let _left = pair.start_with(0, streams);
    let dialed = api_of(&pair.clusters[1]).connect().await.unwrap();
    let accepted = handed.recv().await.unwrap();
    for stream in [dialed, accepted] {
        assert!(stream.get_ref().0.as_raw_fd() >= descriptors::early(), "{stream:?}");
    }
}

#[tokio::test]
async fn connection_of_the_peers_api_is_handed_over() {
    let pair = Pair::sound();
    let (streams, mut handed) = mpsc::channel(1);
    let mut left = pair.start_with(0, streams);
    let mut right = pair.start(1);
    let mut api = api_of(&pair.clusters[1]).connect().await.unwrap();
    api.write_all(b"request").await.unwrap();
    let mut stream = handed.recv().await.unwrap();
    let mut request = [0; 7];
    stream.read_exact(&mut request).await.unwrap();
    assert_eq!(&request, b"request");
    // The members are connected beside it.
    deliver(&mut left, &mut right, &LinkFrame::Acknowledged(1)).await;
}

#[tokio::test]
async fn api_with_another_secret_is_not_handed_over() {
    let [left, right] = NAMES;
    let pair = Pair::of([[left, right], [right, left]], [&["a"], &["b"]]);
    let (streams, mut handed) = mpsc::channel(1);
    let mut left = pair.start_with(0, streams);
    let refused = api_of(&pair.clusters[1]).connect().await.unwrap_err();
    assert!(
        refused
            .get_ref()
            .is_some_and(|inner| inner.downcast_ref().is_some_and(tls::is_another_secret))
    );
    until(&mut left, |event| *event == LinkEvent::Refused(LinkRefusal::Secret)).await;
    assert!(handed.try_recv().is_err());
}
