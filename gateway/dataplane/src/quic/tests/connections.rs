//! Opening and closing of connections.

use super::hub::FATAL;
use super::*;

#[tokio::test]
async fn connection_without_a_flow_is_closed() {
    let settings = QuicSettings {
        flowless_after: Duration::from_millis(300),
        feedback_every: Duration::from_millis(5),
        ..quiet()
    };
    let mut world = World::start(settings);
    let useful = world.client().await;
    useful.send(FLOW, &rtp(1));
    assert_eq!(world.next_media().await, rtp(1));
    let useless = world.client().await;
    useless.send(STRANGE_FLOW, &rtp(1));
    assert_eq!(useless.close_code().await, roq::ErrorCode::General.code());
    assert_eq!(useful.connection.close_reason(), None);
    assert_eq!(world.count(|counters| &counters.flowless), 1);
}

#[tokio::test]
async fn connection_is_closed_after_its_last_session() {
    let settings = QuicSettings {
        flowless_after: Duration::from_millis(300),
        feedback_every: Duration::from_millis(5),
        ..quiet()
    };
    let mut world = World::start(settings);
    let client = world.client().await;
    client.send(FLOW, &rtp(1));
    assert_eq!(world.next_media().await, rtp(1));
    world.flows.remove(&FlowKey::Roq(FLOW), HOME);
    assert_eq!(client.close_code().await, roq::ErrorCode::General.code());
}

#[tokio::test]
async fn connection_limit_holds_and_frees() {
    let mut world = World::start(QuicSettings { connections_max: 1, ..quiet() });
    let first = world.client().await;
    first.send(FLOW, &rtp(1));
    assert_eq!(world.next_media().await, rtp(1));
    let refused = world.connect(client_config(&world.thread, true)).await.unwrap_err();
    assert!(matches!(refused, ConnectionError::ConnectionClosed(_)), "{refused}");
    assert!(world.count(|counters| &counters.connections_refused) >= 1);
    first.connection.close(VarInt::from_u32(0), b"");
    // Repeats until the endpoint has noticed the close.
    while world.connect(client_config(&world.thread, true)).await.is_err() {}
}

#[tokio::test]
async fn connection_without_a_session_gives_way() {
    let mut world = World::start(QuicSettings { connections_max: 2, ..quiet() });
    let useful = world.client().await;
    useful.send(FLOW, &rtp(1));
    assert_eq!(world.next_media().await, rtp(1));
    let useless = world.client().await;
    useless.send(STRANGE_FLOW, &rtp(1));
    let next = world.client().await;
    // By the close or, if the client answers it, by a stateless reset.
    useless.connection.closed().await;
    next.send(OTHER_FLOW, &rtp(2));
    assert_eq!(world.next_media().await, rtp(2));
    assert_eq!(useful.connection.close_reason(), None);
    assert_eq!(world.count(|counters| &counters.displaced), 1);
    assert_eq!(world.count(|counters| &counters.connections), 2);
}

#[tokio::test]
async fn client_with_another_alpn_is_refused() {
    let world = World::start(quiet());
    for alpn in [vec![], vec![b"roq-13".to_vec()], vec![b"h3-29".to_vec()]] {
        assert!(world.connect(client_speaking(&world.thread, true, alpn)).await.is_err());
    }
}

#[tokio::test]
async fn worker_learns_that_its_client_disconnected() {
    let mut world = World::start(quiet());
    let client = world.client().await;
    client.send(FLOW, &rtp(1));
    assert_eq!(world.next_media().await, rtp(1));
    client.connection.close(VarInt::from_u32(0), b"");
    assert_eq!(world.next_but_path().await, (meta(RingItem::Detached), vec![]));
    assert_eq!(world.count(|counters| &counters.attached), 0);
}

#[tokio::test]
async fn worker_gets_path_reports() {
    let mut world =
        World::start(QuicSettings { feedback_every: Duration::from_millis(5), ..quiet() });
    let client = world.client().await;
    client.send(FLOW, &rtp(1));
    let mut sent_in_all = 0;
    let mut reports = 0;
    while sent_in_all == 0 || reports < 3 {
        let (meta, bytes) = world.next().await;
        if let RingItem::Path(PathReport { rtt_us, lost, sent }) = meta.kind {
            assert_eq!((meta.home, meta.flow, bytes.len()), (HOME, FLOW, 0));
            assert!(rtt_us > 0);
            assert_eq!(lost, 0);
            sent_in_all += sent;
            reports += 1;
        }
    }
}

#[tokio::test]
async fn certificate_files_are_used() {
    let made = rcgen::generate_simple_self_signed(vec!["gateway.example".into()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
    std::fs::write(&chain, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let missing = folder.path().join("missing.pem");
    let files = |chain: &std::path::Path, key: &std::path::Path| {
        let certificate = CertificateSource::Files { chain: chain.to_owned(), key: key.to_owned() };
        QuicSettings { certificate, ..quiet() }
    };

    let world = World::start(files(&chain, &key));
    let digest = sha256(made.cert.der());
    assert_eq!(world.thread.certificate_sha256, digest);
    world.client().await;
    let absent = listen(files(&chain, &missing), None, None).err().unwrap();
    assert!(absent.to_string().contains("missing.pem"));
    assert!(listen(files(&key, &chain), None, None).is_err());
}

#[tokio::test]
async fn first_end_of_the_chain_is_known() {
    let key = rcgen::KeyPair::generate().unwrap();
    let signed = |year| {
        let mut params = rcgen::CertificateParams::new(vec!["gateway.example".into()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 5, 6);
        params.self_signed(&key).unwrap().pem()
    };
    let folder = tempfile::tempdir().unwrap();
    let [chain, key_file] = ["chain.pem", "key.pem"].map(|name| folder.path().join(name));
    std::fs::write(&chain, signed(2033) + &signed(2031)).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let certificate = CertificateSource::Files { chain, key: key_file };
    let world = World::start(QuicSettings { certificate, ..quiet() });
    // 2031-05-06.
    let ends = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_935_792_000);
    assert_eq!(world.thread.certificate_ends, Some(ends));
}

#[tokio::test]
async fn address_in_use_is_named() {
    let world = World::start(quiet());
    let settings = QuicSettings { listen: world.thread.address, ..quiet() };
    let failure = listen(settings, None, None).err().unwrap();
    assert!(failure.to_string().contains(&world.thread.address.to_string()), "{failure}");
}

#[tokio::test]
async fn clients_are_told_of_the_shutdown() {
    let mut world = World::start(quiet());
    let client = world.client().await;
    client.send(FLOW, &rtp(1));
    assert_eq!(world.next_media().await, rtp(1));
    assert!(world.thread.is_running());
    drop(world.thread);
    assert_eq!(client.close_code().await, roq::ErrorCode::NoError.code());
}

#[tokio::test]
async fn panics_end_only_their_connections() {
    let mut world = World::start(quiet());
    let whole = world.client().await;
    whole.send(OTHER_FLOW, &rtp(1));
    assert_eq!(world.next_media().await, rtp(1));
    for _ in 0..12 {
        let broken = world.client().await;
        broken.send(FLOW, &rtp(2));
        assert_eq!(world.next_media().await, rtp(2));
        broken.send(FLOW, FATAL);
        while world.next().await.0.kind != RingItem::Detached {}
    }
    whole.send(OTHER_FLOW, &rtp(3));
    assert_eq!(world.next_media().await, rtp(3));
    assert_eq!(world.count(|counters| &counters.connections), 1);
    assert!(world.thread.is_running());
}
