//! Attacks on the API that the gateways of a group open to each other.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use bytes::Bytes;
use evenkeel_client::ApiCall;
use evenkeel_lab::network::Host;
use evenkeel_testkit::http::{HttpAnswer, HttpClient};
use evenkeel_testkit::required;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use ring::hkdf;
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::{default_provider, sign::any_eddsa_type};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde_json::Value;
use tokio_rustls::TlsConnector;

use crate::harness::{self, GatewayProcess, Hosts, await_replica, ids, wait_until};

/// The secret of the harness's groups.
const SECRET: [u8; 32] = [b'c'; 32];

/// PKCS#8 of an Ed25519 key before its 32 bytes (RFC 8410, 7).
const PKCS8_HEAD: [u8; 16] =
    [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// An offer with SDES keys.
const OFFER_WITH_KEYS: &str = r#"{"scenario": "call", "room": "room",
    "ingress": {"udp": {"identity": "declared", "address": "10.77.0.10:5004"}},
    "media": [{"kind": "audio", "payload_types": [{"payload_type": 111, "codec": "opus", "clock_rate": 48000}]}],
    "srtp": {"crypto": ["1 AES_CM_128_HMAC_SHA1_80 inline:PS1uQCVeeCFCanVmcjkpPywjNWhcYD0mXXtxaVBR"]}}"#;

/// An attacker talks to any server.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The key that a member of the group with this secret presents.
fn key(secret: &[u8]) -> CertifiedKey {
    let mut seed = [0; 32];
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"evenkeel cluster 1");
    salt.extract(secret).expand(&[b"link"], hkdf::HKDF_SHA256).unwrap().fill(&mut seed).unwrap();
    let pkcs8 = [&PKCS8_HEAD[..], &seed].concat();
    let key = any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8)).unwrap();
    let public = CertificateDer::from(key.public_key().unwrap().as_ref().to_vec());
    CertifiedKey::new(vec![public], key)
}

/// Asks the gateway at this address as a member with this secret, or without a key.
fn ask(
    place: &Hosts,
    to: SocketAddr,
    secret: Option<&[u8]>,
    (method, path): (Method, &str),
) -> Result<(u16, Value), String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer));
    let mut config = match secret {
        None => builder.with_no_client_auth(),
        Some(secret) => {
            let keys = AlwaysResolvesClientRawPublicKeys::new(Arc::new(key(secret)));
            builder.with_client_cert_resolver(Arc::new(keys))
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = {
        let _inside = place.client.enter().unwrap();
        TcpStream::connect(to).unwrap()
    };
    stream.set_nonblocking(true).unwrap();
    let asking = async {
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let name = ServerName::try_from("evenkeel").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        let stream = TokioIo::new(stream.map_err(|error| error.to_string())?);
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream)
            .await
            .map_err(|error| format!("{error:?}"))?;
        tokio::spawn(connection);
        let uri = format!("https://evenkeel{path}");
        let request = Request::builder().method(method).uri(uri).body(Empty::<Bytes>::new());
        let response = sender.send_request(request.unwrap()).await;
        let response = response.map_err(|error| format!("{error:?}"))?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
        Ok((status, serde_json::from_slice(&body.to_bytes()).unwrap_or_default()))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(asking)
}

fn addresses(place: &Hosts) -> [SocketAddr; 2] {
    [0, 1].map(|edge: usize| (place.gateways[edge].address(), 7100).into())
}

fn refused_secrets(gateway: &mut GatewayProcess) -> u64 {
    let call = ApiCall { method: Method::GET, path: "/metrics", headers: &[], body: Bytes::new() };
    let reply = gateway.ask(async |client| client.ask(call).await).unwrap();
    let text = String::from_utf8(reply.body.into()).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("evenkeel_cluster_refused_total{"));
    let mut secret = lines.filter(|line| line.contains("\"secret\""));
    secret.next().map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

const LIST: (Method, &str) = (Method::GET, "/v1/sessions");

#[required(Namespaces)]
#[test]
fn strangers_do_not_reach_the_members_api() {
    let place = Hosts::lay();
    let (node, mut ann) = (place.node(), place.phone());
    let [mut owner, mut standby] = place.group(&node);
    await_replica(&mut owner);
    standby.open("room", &mut ann);
    let opened = ids(&mut standby);
    let [at, _] = addresses(&place);
    // A member is served.
    let (status, answer) = ask(&place, at, Some(&SECRET), LIST).unwrap();
    assert_eq!((status, answer["sessions"][0]["id"].as_str()), (200, Some(&*opened[0])));
    assert_eq!(refused_secrets(&mut owner), 0);

    let close = format!("/v1/sessions/{}", opened[0]);
    for secret in [None, Some(&[b'd'; 32][..])] {
        for request in [LIST, (Method::DELETE, &*close)] {
            let answer = ask(&place, at, secret, request);
            assert!(answer.is_err(), "{answer:?}");
        }
    }
    wait_until("the refusals are counted", || refused_secrets(&mut owner) == 2);
    assert_eq!(ids(&mut standby), opened);
}

#[required(Namespaces)]
#[test]
fn member_reaches_calls_and_policies_only() {
    let place = Hosts::lay();
    let node = place.node();
    let [mut owner, _standby] = place.group(&node);
    await_replica(&mut owner);
    let [at, _] = addresses(&place);
    for request in [
        (Method::POST, "/v1/gateway:upgrade"),
        (Method::POST, "/v1/gateway:hand-over"),
        (Method::POST, "/v1/gateway:take-over"),
        (Method::POST, "/v1/configuration:reload"),
        (Method::GET, "/v1/recording"),
        (Method::GET, "/v1/events"),
    ] {
        let (status, answer) = ask(&place, at, Some(&SECRET), request.clone()).unwrap();
        assert_eq!((status, &answer["error"]["code"]), (404, &"not-found".into()), "{request:?}");
    }
    assert_eq!(ask(&place, at, Some(&SECRET), LIST).unwrap().0, 200);
}

#[required(Namespaces)]
#[test]
fn relayed_request_is_not_relayed_again() {
    let place = Hosts::lay();
    let node = place.node();
    let [mut owner, mut standby] = place.group(&node);
    await_replica(&mut owner);
    let [at_owner, at_standby] = addresses(&place);
    for request in [LIST, (Method::DELETE, "/v1/sessions/s1"), (Method::POST, "/v1/sessions")] {
        let (status, answer) = ask(&place, at_standby, Some(&SECRET), request).unwrap();
        assert_eq!((status, &answer["error"]["code"]), (503, &"standby".into()), "{answer}");
    }
    // The owner answers it, and the standby relays its own clients' requests.
    assert_eq!(ask(&place, at_owner, Some(&SECRET), LIST).unwrap().0, 200);
    assert!(ids(&mut standby).is_empty());
}

/// Offers a session at this address over TCP.
fn offer_over_tcp(from: &Host, to: SocketAddr) -> HttpAnswer {
    let stream = {
        let _inside = from.enter().unwrap();
        TcpStream::connect(to).unwrap()
    };
    let token = format!("authorization: Bearer {}", str::from_utf8(harness::SECRET).unwrap());
    let headers = ["evenkeel-private: 1", &token];
    let body = OFFER_WITH_KEYS.as_bytes();
    HttpClient::over(stream).ask("POST /v1/sessions", &headers, body).unwrap()
}

#[required(Namespaces)]
#[test]
fn standby_takes_no_keys_from_another_host() {
    let place = Hosts::lay();
    let node = place.node();
    let [mut owner, mut standby] = place.group_with(&node.text(), |host, world| {
        world.admin = format!("tcp = \"{}:7300\"\ntoken_file = \"secret\"\n", host.address());
    });
    await_replica(&mut owner);
    for edge in &place.gateways[..2] {
        let at = (edge.address(), 7300).into();
        let answer = offer_over_tcp(&place.client, at);
        assert_eq!(answer.status, 400, "{answer}");
        assert!(answer.body.contains("came over TCP from another host"), "{answer}");
    }
    assert!(ids(&mut owner).is_empty());
    // On the standby's Unix socket nobody else saw them.
    let body = Bytes::from_static(OFFER_WITH_KEYS.as_bytes());
    let headers = [];
    let call = ApiCall { method: Method::POST, path: "/v1/sessions", headers: &headers, body };
    let opened = standby.ask(async |client| client.ask(call).await.unwrap().accepted()).unwrap();
    assert_eq!(ids(&mut owner), [opened["id"].as_str().unwrap()]);
}
