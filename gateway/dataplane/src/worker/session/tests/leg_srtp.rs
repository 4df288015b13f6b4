//! Legs to nodes with SRTP.

use evenkeel_media::demux;
use evenkeel_media::srtp::{SOURCES_MAX, SrtpKey, SrtpKeys, SrtpProfile, SrtpReceiver, SrtpSender};

use super::*;
use crate::flows::Flows;
use crate::worker::session::srtp::{RESTART_PACKETS, RUNS_MAX};

const SSRC: u32 = 5;
/// A source of the node.
const OTHER: u32 = 77;

/// A session at a media server that agreed on keys with the gateway.
struct NodeScene {
    bench: Bench,
    hop: Hop,
    node: UdpSocket,
    leg: NodeLeg,
    sender: SrtpSender,
    receiver: SrtpReceiver,
}

impl NodeScene {
    fn new() -> NodeScene {
        let (mut bench, node, hop) = at_node(Srtp::Plain);
        let key = |byte| SrtpKey::generate(SrtpProfile::AeadAes128Gcm, |bytes| bytes.fill(byte));
        let keys = SrtpKeys { client: key(1), gateway: key(2), tag: None };
        let (mut sender, receiver) =
            (SrtpSender::new(&keys.client), SrtpReceiver::new(&keys.gateway));
        sender.lease(OTHER, u64::MAX, u64::MAX).unwrap();
        let address = node.local_addr().unwrap();
        let port = NodePort { address, rtcp_port: address.port() };
        let leg = NodeLeg::Srtp(Box::new(SrtpPort { port, keys: Arc::new(keys) }));
        bench.session.attach(hop, leg.clone());
        NodeScene { bench, hop, node, leg, sender, receiver }
    }

    /// Handles a packet of the client. Returns the datagram that the node receives.
    fn say(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        self.bench.at(1, |session, cx| {
            match demux::classify(packet) {
                demux::DatagramKind::Rtcp => session.handle_client_rtcp(packet, cx),
                _ => session.handle_client_rtp(packet, cx),
            }
            flush_ports(session, cx);
        });
        let mut datagram = [0; 256];
        let length = self.node.recv(&mut datagram).ok()?;
        Some(datagram[..length].to_vec())
    }

    /// Returns the sequence number that the node reads in the next packet with this one.
    fn says(&mut self, sequence: u16) -> Option<u16> {
        let mut datagram = self.say(&video(sequence, SSRC))?;
        let packet = self.receiver.unprotect_rtp(&mut datagram).unwrap();
        assert_eq!(packet, video(sequence, SSRC));
        rtp::ssrc_and_sequence(packet).map(|(_, sequence)| sequence)
    }

    fn protect(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut buffer = packet.to_vec();
        buffer.resize(packet.len() + 20, 0);
        let protected = match demux::classify(packet) {
            demux::DatagramKind::Rtcp => self.sender.protect_rtcp(&mut buffer, packet.len()),
            _ => self.sender.protect_rtp(&mut buffer, packet.len()),
        };
        protected.unwrap().to_vec()
    }

    /// Handles a datagram of the node. Returns the packet that the client receives.
    fn hear(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        let (hop, mut datagram) = (self.hop, datagram.to_vec());
        self.bench.at(1, |session, cx| match session.unprotect_from_node(hop, &mut datagram) {
            Ok(packet) => {
                let packet = packet.to_vec();
                session.handle_node_packet(hop, &packet, cx);
            }
            Err(reason) => cx.egress.count_drop(reason),
        });
        let mut packet = [0; 256];
        let length = self.bench.client.recv(&mut packet).ok()?;
        Some(packet[..length].to_vec())
    }

    /// Continues in this state at another process. Returns whether the session goes on.
    fn go_on(&mut self, state: &SessionState) -> bool {
        let address = self.bench.client.local_addr().unwrap();
        let declared = ClientAddressing::Declared { listener: 0, address, rtcp: address };
        let before = &mut self.bench.session;
        let install = Install {
            route: Arc::clone(&before.route),
            ports: before.nodes.take_ports(),
            state: Some(Box::new(handed_over(state))),
            ..install(declared, Srtp::Plain, 0)
        };
        *before = WorkerSession::new(install);
        before.begin_srtp(self.bench.start)
    }
}

fn report(ssrc: u32) -> Vec<u8> {
    let mut report = Vec::new();
    rtcp::write_receiver_report(ssrc, &[], &mut report);
    report
}

#[test]
fn packets_are_encrypted_on_the_leg_only() {
    let mut scene = NodeScene::new();
    let packet = video(1, SSRC);
    let mut datagram = scene.say(&packet).unwrap();
    assert_eq!(datagram.len(), packet.len() + 16);
    assert_ne!(datagram[rtp::HEADER_LEN..packet.len()], packet[rtp::HEADER_LEN..]);
    assert_eq!(scene.receiver.unprotect_rtp(&mut datagram).unwrap(), packet);
    let mut datagram = scene.say(&report(SSRC)).unwrap();
    assert_eq!(scene.receiver.unprotect_rtcp(&mut datagram).unwrap(), report(SSRC));

    let datagram = scene.protect(&video(100, OTHER));
    assert_eq!(scene.hear(&datagram), Some(video(100, OTHER)));
    let datagram = scene.protect(&report(OTHER));
    assert_eq!(scene.hear(&datagram).unwrap().len(), report(OTHER).len());
}

#[test]
fn key_frame_request_of_the_gateway_is_encrypted() {
    let mut scene = NodeScene::new();
    let voice_only = MediaLimits { withheld: 1 << 96, ..MediaLimits::default() };
    scene.bench.at(0, |session, cx| session.set_limits(voice_only, cx));
    scene.bench.at(0, |session, cx| session.set_limits(MediaLimits::default(), cx));
    let datagram = scene.protect(&video(1, OTHER));
    scene.hear(&datagram).unwrap();
    scene.bench.at(1, flush_ports);
    let mut datagram = [0; 256];
    let length = scene.node.recv(&mut datagram).unwrap();
    let request = scene.receiver.unprotect_rtcp(&mut datagram[..length]).unwrap();
    assert!(rtcp::packets(request).all(|packet| packet.is_ok()));
}

#[test]
fn unauthentic_packets_of_a_node_are_dropped() {
    let mut scene = NodeScene::new();
    let datagram = scene.protect(&video(1, OTHER));
    for byte in 0..datagram.len() {
        let mut forged = datagram.clone();
        forged[byte] ^= 1;
        assert_eq!(scene.hear(&forged), None, "byte {byte}");
    }
    assert_eq!(scene.hear(&video(1, OTHER)), None, "plain RTP");
    assert!(scene.bench.drops(DropReason::SrtpForged) >= datagram.len() as u64 - 4);
    assert!(scene.hear(&datagram).is_some());
    assert_eq!(scene.hear(&datagram), None);
    assert_eq!(scene.bench.drops(DropReason::SrtpReplayed), 1);
}

#[test]
fn leg_uses_no_index_twice() {
    let mut scene = NodeScene::new();
    assert_eq!(scene.says(1), Some(1));
    assert_eq!(scene.says(1), None, "the client sent it twice");
    assert_eq!(scene.bench.drops(DropReason::Stale), 1);
    let (hop, leg) = (scene.hop, scene.leg.clone());
    scene.bench.session.attach(hop, leg);
    assert_eq!(scene.says(1), None, "the same leg again");
    assert_eq!(scene.says(2), Some(2));
    assert_eq!(scene.says(0), Some(0), "overtaken");
}

/// The hops for which the session has asked for other keys.
fn asked(scene: &mut NodeScene) -> Vec<Hop> {
    let reports = std::iter::from_fn(|| scene.bench.reports.try_recv().ok());
    let hops = reports.filter_map(|report| match report {
        WorkerReport::StreamRestarted { session: SessionId(1), hop } => Some(hop),
        _ => None,
    });
    hops.collect()
}

#[test]
fn restarted_stream_gets_other_keys() {
    let mut scene = NodeScene::new();
    assert_eq!(scene.says(30_000), Some(30_000));
    for sequence in 1..u16::from(RESTART_PACKETS) {
        assert_eq!(scene.says(sequence), None);
    }
    assert_eq!(asked(&mut scene), []);
    assert_eq!(scene.says(RESTART_PACKETS.into()), None);
    assert_eq!(asked(&mut scene), [scene.hop]);
    let NodeLeg::Srtp(mut leg) = scene.leg.clone() else { panic!() };
    let other = SrtpKey::generate(SrtpProfile::AeadAes128Gcm, |bytes| bytes.fill(3));
    scene.receiver = SrtpReceiver::new(&other);
    leg.keys = Arc::new(SrtpKeys { gateway: other, ..(*leg.keys).clone() });
    scene.bench.session.attach(scene.hop, NodeLeg::Srtp(leg));
    assert_eq!(scene.says(9), Some(9));
}

#[test]
fn streams_restarted_together_get_other_keys() {
    let mut scene = NodeScene::new();
    let ssrcs: Vec<u32> = (0..=RUNS_MAX as u32).map(|number| SSRC + number).collect();
    for ssrc in &ssrcs {
        assert!(scene.say(&video(30_000, *ssrc)).is_some());
        assert!(scene.say(&video(1, *ssrc)).is_none(), "a late packet");
    }
    let [voice, .., picture] = ssrcs[..] else { panic!() };
    for sequence in 1..=RESTART_PACKETS.into() {
        assert_eq!(asked(&mut scene), []);
        assert!(scene.say(&video(sequence, voice)).is_none());
        assert!(scene.say(&video(sequence, picture)).is_none());
    }
    assert_eq!(asked(&mut scene), [scene.hop; 2]);
}

#[test]
fn stream_above_the_limit_gets_other_keys() {
    let mut scene = NodeScene::new();
    for ssrc in 0..SOURCES_MAX as u32 {
        assert!(scene.say(&video(1, ssrc)).is_some(), "{ssrc}");
    }
    let further = SOURCES_MAX as u32;
    for sequence in 1..=RESTART_PACKETS.into() {
        assert_eq!(asked(&mut scene), []);
        assert!(scene.say(&video(sequence, further)).is_none());
        assert!(scene.say(&report(further)).is_none());
    }
    assert_eq!(asked(&mut scene), [scene.hop]);
    assert_eq!(scene.bench.drops(DropReason::Stale), 0);
}

#[test]
fn packets_sent_twice_need_no_other_keys() {
    let mut scene = NodeScene::new();
    for sequence in 1..40 {
        assert_eq!((scene.says(sequence), scene.says(sequence)), (Some(sequence), None));
    }
    for sequence in [3, 5, 7, 9, 11, 13, 15, 17, 19] {
        assert_eq!(scene.says(sequence), None, "late ones");
    }
    assert_eq!(asked(&mut scene), []);
}

#[test]
fn next_process_goes_on_above_used_indices() {
    let mut scene = NodeScene::new();
    let heard = scene.protect(&video(100, OTHER));
    scene.hear(&heard).unwrap();
    assert_eq!((scene.says(1), scene.says(3)), (Some(1), Some(3)));
    scene.say(&report(SSRC)).unwrap();
    let at = scene.bench.egress.indices.view(scene.bench.start);
    let state = scene.bench.session.hand_over(&Flows::new(4), at);
    assert!(scene.go_on(&state));
    assert_eq!((scene.says(2), scene.says(3), scene.says(4)), (None, None, Some(4)));
    let mut datagram = scene.say(&report(SSRC)).unwrap();
    assert!(scene.receiver.unprotect_rtcp(&mut datagram).is_ok(), "the next index of SRTCP");
    assert_eq!(scene.hear(&heard), None, "received before");
    let datagram = scene.protect(&video(101, OTHER));
    assert!(scene.hear(&datagram).is_some());
}

#[test]
fn older_copy_of_the_counters_sends_nothing() {
    let mut scene = NodeScene::new();
    assert_eq!(scene.says(1), Some(1));
    let at = scene.bench.egress.indices.view(scene.bench.start);
    let state = scene.bench.session.copy(&Flows::new(4), None, at);
    assert!(state.copied);
    assert!(!scene.go_on(&state), "the session ends");
    assert_eq!(scene.says(2), None);
    assert_eq!(scene.bench.drops(DropReason::SrtpIndex), 1);
}

#[test]
fn copy_for_a_standby_has_no_leg_with_srtp() {
    let mut scene = NodeScene::new();
    assert_eq!(scene.says(1), Some(1));
    scene.bench.egress.indices.follow(scene.bench.start);
    let at = scene.bench.egress.indices.view(scene.bench.start);
    let state = scene.bench.session.copy(&Flows::new(4), Some(1), at);
    assert!(state.legs.is_empty());
    assert!(scene.go_on(&state));
    assert_eq!(scene.say(&video(2, SSRC)), None, "it waits for a new leg");
    assert_eq!(scene.bench.drops(DropReason::NotOpened), 0, "it is kept until then");
}

#[test]
fn process_that_handed_out_the_session_sends_nothing() {
    let mut scene = NodeScene::new();
    scene.bench.egress.is_handed_out = true;
    assert_eq!(scene.says(1), None);
    scene.bench.egress.is_handed_out = false;
    assert_eq!(scene.says(2), Some(2));
}
