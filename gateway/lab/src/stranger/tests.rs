use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::*;
use crate::sample_node::{SampleNode, SampleNodeOptions};
use crate::tests::quic_server;

/// Starts a sample node with a secret. Returns its address, and a function that ends it.
fn node() -> (SocketAddr, impl FnOnce() -> crate::sample_node::SampleNodeCounters) {
    let mut options = SampleNodeOptions::new("127.0.0.1:0".parse().unwrap(), "n1");
    options.secret = Some(NodeSecret::new(b"the secret of the gateway", "n1").unwrap());
    let node = SampleNode::bind(options).unwrap();
    let (address, ending) = (node.address(), node.ending());
    let thread = std::thread::spawn(move || node.run().unwrap());
    (address, move || {
        ending.store(true, Ordering::Relaxed);
        thread.join().unwrap()
    })
}

fn wait(stranger: &mut Stranger, done: impl Fn(&StrangerReport) -> bool) -> StrangerReport {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let report = stranger.report().unwrap();
        if done(&report) {
            return report;
        }
        assert!(Instant::now() < deadline, "{report:?}");
        std::thread::yield_now();
    }
}

#[test]
fn wrong_tags_and_secrets_get_no_answer() {
    let (address, end) = node();
    let mut stranger = Stranger::new(1);
    stranger.send_bundles(address, 10).unwrap();
    stranger.send_messages(address, 5).unwrap();
    // Once the node answers this question, it has read all earlier packets.
    let witness = UdpSocket::bind("127.0.0.1:0").unwrap();
    witness.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    witness.send_to(&[demux::ECHO, 1], address).unwrap();
    witness.recv(&mut [0; 8]).unwrap();
    let report = stranger.report().unwrap();
    assert_eq!((report.sent, report.learned()), (15, 0));
    let counters = end();
    assert_eq!((counters.unknown_tag, counters.refused.key, counters.packets_out), (10, 5, 0));
}

#[test]
fn accepted_stranger_is_reported() {
    let (address, _end) = node();
    let mut stranger = Stranger::new(1);
    stranger.send_rtp(address, 3).unwrap();
    let report = wait(&mut stranger, |report| report.came == 3);
    assert_eq!((report.sent, report.learned()), (3, 3));
    // A plain node answers every check.
    stranger.send_checks(address, "somebody", 2).unwrap();
    let report = wait(&mut stranger, |report| report.believed == 2);
    assert_eq!(report.sent, 3 + 2 * 2);
}

#[test]
fn refused_check_is_not_taken_for_belief() {
    let gateway = UdpSocket::bind("127.0.0.1:0").unwrap();
    gateway.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut stranger = Stranger::new(1);
    stranger.send_checks(gateway.local_addr().unwrap(), "somebody", 1).unwrap();
    let mut buffer = [0; 2_048];
    let (length, source) = gateway.recv_from(&mut buffer).unwrap();
    let request = stun::BindingRequest::parse(&buffer[..length]).unwrap();
    assert!(request.message.verify(&StunKey::new("the real password of it")).is_err());
    let mut refusal = Vec::new();
    stun::write_unknown(request.message.transaction(), std::iter::empty(), None, &mut refusal);
    gateway.send_to(&refusal, source).unwrap();
    let report = wait(&mut stranger, |report| report.refused == 1);
    assert_eq!(report.learned(), 0);
    let (length, _) = gateway.recv_from(&mut buffer).unwrap();
    let header = rtp::RtpHeader::parse(&buffer[..length]).unwrap();
    assert_eq!(TestHeader::read(header.payload(&buffer[..length])).unwrap().session, SESSION);
}

#[derive(Clone, Copy)]
enum ServerManner {
    Strict,
    Careless,
}

async fn receive(connection: Connection, manners: ServerManner) {
    let code = |code: ErrorCode| quinn::VarInt::from_u64(code.code()).unwrap();
    loop {
        tokio::select! {
            datagram = connection.read_datagram() => match (datagram, manners) {
                (Ok(_), ServerManner::Strict) => {}
                (Ok(datagram), ServerManner::Careless) => connection.send_datagram(datagram).unwrap(),
                (Err(_), _) => return,
            },
            stream = connection.accept_uni() => match (stream, manners) {
                (Ok(mut stream), ServerManner::Strict) => stream.stop(code(ErrorCode::UnknownFlow)).unwrap(),
                (Ok(mut stream), ServerManner::Careless) => stream.stop(code(ErrorCode::General)).unwrap(),
                (Err(_), _) => return,
            },
            stream = connection.accept_bi() => match (stream, manners) {
                (Ok(_), ServerManner::Strict) => connection.close(code(ErrorCode::StreamCreation), b""),
                (Ok(_), ServerManner::Careless) => connection.close(code(ErrorCode::NoError), b""),
                (Err(_), _) => return,
            },
        }
    }
}

fn knocked(manners: ServerManner) -> QuicReport {
    let server = quic_server::start(move |connection| receive(connection, manners));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(knock_quic(server.address, server.certificate_sha256, 3, 1)).unwrap()
}

#[test]
fn conforming_gateway_stops_and_closes() {
    let expected = QuicReport {
        datagrams: 3,
        streams: 3,
        streams_stopped: 3,
        kept: true,
        closed_for_bidirectional: true,
        came: 0,
    };
    assert_eq!(knocked(ServerManner::Strict), expected);
}

#[test]
fn gateway_without_manners_is_found_out() {
    let report = knocked(ServerManner::Careless);
    assert_eq!((report.streams_stopped, report.closed_for_bidirectional), (0, false));
    assert!(report.came > 0);
}
