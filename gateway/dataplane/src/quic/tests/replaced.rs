//! An endpoint that another process replaces.

use std::net::UdpSocket;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::super::endpoint::QuicEndpoint;
use super::super::hub::Hub;
use super::super::socket::QuicSocket;
use super::super::thread::configs;
use super::*;

/// Returns the identity as another process reads it.
fn handed_over(identity: &EndpointIdentity) -> EndpointIdentity {
    rmp_serde::from_slice(&rmp_serde::to_vec_named(identity).unwrap()).unwrap()
}

#[tokio::test]
async fn clients_connect_again_to_the_new_process() {
    let mut old = World::start(quiet());
    let client = old.client().await;
    client.send(FLOW, &rtp(1));
    assert_eq!(old.next_media().await, rtp(1));
    let World { thread, flows, .. } = old;
    let (address, certificate) = (thread.address, thread.certificate_sha256);
    let (identity, socket) = (handed_over(&thread.identity), thread.try_clone_socket().unwrap());
    thread.close_connections();
    match client.connection.closed().await {
        ConnectionError::ApplicationClosed(close) => {
            assert_eq!(close.error_code.into_inner(), roq::ErrorCode::NoError.code());
            assert_eq!(&close.reason[..], b"the gateway is replaced; connect again");
        }
        other => panic!("closed by {other}"),
    }
    assert_eq!(flows.home(&FlowKey::Roq(FLOW)), Some(HOME), "the session lives");

    let mut new = World::on(listen(quiet(), Some(socket), Some(identity)).unwrap(), 1_024);
    assert_eq!((new.thread.address, new.thread.certificate_sha256), (address, certificate));
    let client = new.client().await;
    client.send(FLOW, &rtp(2));
    assert_eq!(new.next_media().await, rtp(2));
}

/// Creates an endpoint without a thread.
fn endpoint(socket: UdpSocket, identity: &EndpointIdentity) -> QuicEndpoint {
    let (settings, mut identity) = (quiet(), identity.clone());
    let tls = identity.tls(&settings.certificate).unwrap();
    let configs = configs(&settings, &identity, tls.config(None));
    let lease = Arc::new(SendLease::forever());
    let hub = Hub::new(Arc::new(Flows::new(1)), Arc::default(), vec![]);
    QuicEndpoint::new(configs, QuicSocket::on(socket).unwrap(), settings, hub, vec![], lease)
}

#[tokio::test]
async fn all_clients_of_a_dead_process_are_reset_at_once() {
    const CLIENTS: usize = 5;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (address, duplicate) = (socket.local_addr().unwrap(), socket.try_clone().unwrap());
    let mut identity = EndpointIdentity::new().unwrap();
    let certificate = identity.tls(&quiet().certificate).unwrap().sha256;
    let mut old = endpoint(socket, &identity);
    let died = Arc::<AtomicBool>::default();
    let dies = Arc::clone(&died);
    let process = std::thread::spawn(move || {
        while !dies.load(Ordering::Relaxed) {
            old.turn(Instant::now());
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let config = client::client_of(certificate);
        let connecting = endpoint.connect_with(config, address, "localhost").unwrap();
        clients.push(Client { connection: connecting.await.unwrap() });
    }
    died.store(true, Ordering::Relaxed);
    process.join().unwrap();

    let mut new = endpoint(duplicate, &handed_over(&identity));
    // No time passes.
    let now = Instant::now();
    clients.iter().for_each(|client| client.send(FLOW, &rtp(1).repeat(10)));
    for client in &clients {
        let error = loop {
            new.turn(now);
            let wait = Duration::from_millis(1);
            if let Ok(error) = tokio::time::timeout(wait, client.connection.closed()).await {
                break error;
            }
            assert!(now.elapsed() < Duration::from_secs(20), "no reset came");
        };
        assert_eq!(error, ConnectionError::Reset);
    }
}

#[test]
fn self_made_certificate_lasts_while_its_names_do() {
    let mut identity = EndpointIdentity::new().unwrap();
    let made = |names: &[&str]| CertificateSource::SelfMade {
        names: names.iter().copied().map(String::from).collect(),
    };
    let first = identity.tls(&made(&["a"])).unwrap().sha256;
    assert_eq!(handed_over(&identity).tls(&made(&["a"])).unwrap().sha256, first);
    assert_ne!(handed_over(&identity).tls(&made(&["a", "b"])).unwrap().sha256, first);
    assert_eq!(format!("{identity:?}"), "Identity { .. }", "no key in logs");
}
