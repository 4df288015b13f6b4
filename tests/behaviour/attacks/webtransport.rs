//! Pages without a session of their own, beside one that is heard.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use evenkeel_lab::client::{QuicProtocol, config_for, connect_frame, control_stream};
use evenkeel_media::roq::{self, FlowId};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};

use crate::harness::webtransport::{HearingPage, webtransport_session};
use crate::harness::{Gateway, Node, Phone, World};

/// H3_EXCESSIVE_LOAD (RFC 9114, section 8.1).
const EXCESSIVE_LOAD: u32 = 0x107;

/// A gateway with a page that hears itself.
struct Stage {
    gateway: Gateway,
    victim: HearingPage,
    _node: Node,
}

/// A page's connection, with its control stream.
struct Page {
    connection: Connection,
    _control: SendStream,
    _endpoint: Endpoint,
}

impl Stage {
    fn set() -> Stage {
        let node = Node::agent("east-a1");
        let gateway = World::of(&[&node]).with_quic().start();
        let victim = HearingPage::begin(&gateway, "room");
        Stage { gateway, victim, _node: node }
    }

    async fn page(&self) -> Page {
        let here: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let endpoint = Endpoint::client(here).unwrap();
        let way = self.victim.way();
        let config = config_for(way.certificate_sha256, QuicProtocol::Webtransport);
        let connecting = endpoint.connect_with(config, way.gateway, "evenkeel").unwrap();
        let connection = connecting.await.unwrap();
        let mut control = connection.open_uni().await.unwrap();
        control.write_all(&control_stream()).await.unwrap();
        Page { connection, _control: control, _endpoint: endpoint }
    }
}

impl Page {
    async fn request(&self, bytes: &[u8]) -> (SendStream, RecvStream) {
        let (mut request, response) = self.connection.open_bi().await.unwrap();
        request.write_all(bytes).await.unwrap();
        (request, response)
    }

    /// Sends a request, and reads its answer to the end, which is that of a refusal.
    async fn is_refused(&self, path: &str) {
        let (_request, mut response) = self.request(&connect_frame(path)).await;
        assert!(!response.read_to_end(1_000).await.unwrap().is_empty(), "{path}");
    }
}

#[test]
fn guessed_tokens_and_paths_open_no_session() {
    let stage = Stage::set();
    let token = stage.victim.way().flow_to_gateway;
    let neighbours = (1..=50).map(|step| format!("/roq?token={}", token ^ step));
    let paths = [
        "/roq".to_owned(),
        "/roq?token=".into(),
        format!("/roq?token={token}x"),
        format!("/roq?token=-{token}"),
        format!("/roq?token={}", u64::MAX),
        format!("/roq?token={}", stage.victim.way().flow_from_gateway),
        format!("/roq/?token={token}"),
        format!("/ROQ?token={token}"),
        format!("/?token={token}"),
        format!("/v1/sessions?token={token}"),
    ];
    let all: Vec<String> = paths.into_iter().chain(neighbours).collect();
    stage.gateway.ask(async {
        let page = stage.page().await;
        for path in &all {
            page.is_refused(path).await;
        }
    });
    stage.gateway.await_quic_counts(&["webtransport-refused"], |count| count == all.len() as u64);
    assert_eq!(stage.gateway.quic_count("webtransport-opened"), 1);
    stage.victim.hears_on();
}

#[test]
fn page_has_two_requests_in_progress() {
    let stage = Stage::set();
    stage.gateway.ask(async {
        let page = stage.page().await;
        // A request never ends.
        let begun = &connect_frame("/roq")[..2];
        let held = [page.request(begun).await, page.request(begun).await];
        let mut third = pin!(page.connection.open_bi());
        // The answer on another connection comes after any credit for this one.
        stage.page().await.is_refused("/other").await;
        let polled = third.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Pending), "{polled:?}");
        drop(held);
    });
    stage.victim.hears_on();
}

#[test]
fn oversized_headers_close_the_connection() {
    let stage = Stage::set();
    // A length of 16,385 bytes (RFC 9000, section 16), of which none follow.
    let announced = [0x01, 0x80, 0, 0x40, 0x01];
    stage.gateway.ask(async {
        for _ in 0..20 {
            let page = stage.page().await;
            let _request = page.request(&announced).await;
            match page.connection.closed().await {
                ConnectionError::ApplicationClosed(closed) => {
                    assert_eq!(closed.error_code, quinn::VarInt::from_u32(EXCESSIVE_LOAD));
                }
                other => panic!("closed by {other}"),
            }
        }
    });
    stage.gateway.await_quic_counts(&["http3-errors"], |count| count == 20);
    stage.victim.hears_on();
}

#[test]
fn datagrams_of_other_flows_reach_no_session() {
    const DATAGRAMS: u64 = 50;
    let stage = Stage::set();
    let own = webtransport_session(&stage.gateway, "other-room");
    let victim = stage.victim.way();
    let mut voice = Phone::new(6).voice;
    let page = stage.gateway.ask(stage.page());
    let mut datagram = |quarter_id: u8, flow: u64| {
        let mut datagram = vec![quarter_id];
        roq::write_datagram(FlowId::new(flow).unwrap(), &voice.packet(6), &mut datagram);
        page.connection.send_datagram_wait(datagram.into())
    };
    // Before its session is open.
    stage.gateway.ask(async {
        for _ in 0..DATAGRAMS {
            datagram(0, victim.flow_to_gateway).await.unwrap();
        }
    });
    stage.gateway.await_quic_counts(&["webtransport-sessionless"], |count| count == DATAGRAMS);
    stage.gateway.ask(async {
        let path = format!("/roq?token={}", own.flow_to_gateway);
        let (_request, mut response) = page.request(&connect_frame(&path)).await;
        response.read_exact(&mut [0; 2]).await.unwrap();
        for step in 1..=DATAGRAMS {
            datagram(0, victim.flow_to_gateway).await.unwrap();
            datagram(0, own.flow_to_gateway ^ step).await.unwrap();
            datagram(1, own.flow_to_gateway).await.unwrap();
        }
        // Its own packets arrive after them.
        let heard = loop {
            datagram(0, own.flow_to_gateway).await.unwrap();
            let pace = Duration::from_millis(20);
            if let Ok(heard) = tokio::time::timeout(pace, page.connection.read_datagram()).await {
                break heard.unwrap();
            }
        };
        let (flow, _) = roq::read_datagram(heard.strip_prefix(&[0]).unwrap()).unwrap();
        assert_eq!(flow.number(), own.flow_from_gateway);
    });
    stage
        .gateway
        .await_quic_counts(&["webtransport-sessionless", "unknown-flow-datagrams"], |count| {
            count == 2 * DATAGRAMS
        });
    stage.victim.hears_on();
    let tally = stage.victim.tally();
    assert_eq!((tally.foreign, tally.unreadable), (0, 0));
}
