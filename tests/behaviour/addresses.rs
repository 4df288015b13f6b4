//! Hosts with several addresses: answers leave from the address that the client sent to.

use std::net::{IpAddr, SocketAddr};

use evenkeel_control::{IngressAnswer, SessionAnswer};
use evenkeel_lab::client::{QuicWay, client_config};
use evenkeel_lab::network::NamespaceNetwork;
use evenkeel_model::{ClientIdentity, IngressProtocol};
use evenkeel_testkit::required;

use crate::harness::{
    Credentials, Gateway, Node, Nominate, Phone, WebrtcPhone, World, declared, offer, quic_of, talk,
};

/// A listener for each kind of client, at all addresses of the host.
fn world(node: &Node, advertise: [&str; 2]) -> World {
    let [first, second] = advertise;
    let advertise = format!(
        "advertise = [{{ address = \"{first}\" }}, {{ address = \"{second}\", carrier = \"second\" }}]"
    );
    let mut world = World::of(&[node]);
    // Half of the clients send to the worker that does not have their session.
    world.limits = "workers = 2\n".into();
    world.listens = format!(
        "[[listen]]\nudp = \"0.0.0.0:0\"\nidentity = [\"declared\"]\n{advertise}\n\
         [[listen]]\nudp = \"[::]:0\"\nidentity = [\"stun\"]\n{advertise}\n\
         [[listen]]\nquic = \"[::]:0\"\n{advertise}\n"
    );
    world
}

/// A phone that receives from this address of the gateway only, as a browser does on a candidate pair.
fn phone_of(gateway: SocketAddr, client: IpAddr, number: u64) -> Phone {
    let mut phone = Phone::on(&SocketAddr::new(client, 0).to_string(), number);
    phone.socket.connect(gateway).unwrap();
    phone.set_target(gateway);
    phone
}

/// The port of a session's listener, and the alternate address.
fn alternate(opened: &SessionAnswer) -> SocketAddr {
    match &opened.ingress {
        IngressAnswer::Udp { addresses, .. } | IngressAnswer::Quic { addresses, .. } => {
            assert_eq!(addresses.len(), 2);
            addresses[1]
        }
    }
}

fn hears_itself(phone: &mut Phone) {
    talk(&mut [phone], "the client hears itself", |phones| phones[0].heard.len() >= 20);
}

/// Calls from a client with ICE at this address, in plain RTP and by WebRTC.
fn call_with_ice(gateway: &Gateway, to: IpAddr, client: IpAddr) {
    let room = |kind: &str| format!("{kind} at {to}");
    let plain = offer(&room("plain"), IngressProtocol::Udp(ClientIdentity::Stun));
    let opened = gateway.open(plain);
    let port = alternate(&opened).port();
    let mut ann = phone_of(SocketAddr::new(to, port), client, 1);
    Credentials::of(&opened).check(&ann, Nominate::Yes);
    hears_itself(&mut ann);
    assert!(Credentials::of(&opened).mapped(&ann).is_some());

    let mut bob = WebrtcPhone::on(phone_of(SocketAddr::new(to, port), client, 2));
    let opened = gateway.open(bob.offer(&room("webrtc")));
    bob.connect(SocketAddr::new(to, port), &Credentials::of(&opened)).unwrap();
    hears_itself(&mut bob.phone);
}

fn call_by_quic(gateway: &Gateway, to: IpAddr, client: IpAddr) {
    let opened = gateway.open(offer(&format!("quic at {to}"), IngressProtocol::Quic));
    let port = alternate(&opened).port();
    let QuicWay { certificate_sha256, .. } = quic_of(&opened);
    let connected = gateway.ask(async {
        let endpoint = quinn::Endpoint::client(SocketAddr::new(client, 0)).unwrap();
        let config = client_config(certificate_sha256);
        let to = SocketAddr::new(to, port);
        endpoint.connect_with(config, to, "evenkeel").unwrap().await.map(|_| ())
    });
    // A client discards packets from another address than that it connects to.
    assert_eq!(connected, Ok(()));
}

/// Calls from a declared client to the alternate address.
fn call_declared(gateway: &Gateway, client: IpAddr) {
    let mut ann = Phone::on(&SocketAddr::new(client, 0).to_string(), 1);
    let opened = gateway.open(offer("declared", declared(&ann)));
    ann.set_target(alternate(&opened));
    ann.socket.connect(ann.target).unwrap();
    hears_itself(&mut ann);
}

#[test]
fn alternate_address_serves_clients() {
    let node = Node::agent("east-a1");
    let gateway = world(&node, ["127.0.0.1", "127.0.0.51"]).start();
    let [client, to] = [[127, 0, 0, 1], [127, 0, 0, 51]].map(IpAddr::from);
    call_declared(&gateway, client);
    call_with_ice(&gateway, to, client);
    call_by_quic(&gateway, to, client);
}

#[required(Namespaces)]
#[test]
fn each_address_of_the_host_serves_clients() {
    let network = NamespaceNetwork::lay().unwrap();
    let host = |name, address: &str| network.host(name, address.parse().unwrap()).unwrap();
    let (edge, phones) = (host("edge", "10.77.0.1"), host("phones", "10.77.0.10"));
    for address in ["10.77.0.51/24", "fd77::1/64", "fd77::51/64"] {
        edge.ip(&format!("addr add {address} dev eth0 nodad")).unwrap();
    }
    phones.ip("addr add fd77::10/64 dev eth0 nodad").unwrap();
    let (node, gateway) = {
        let _inside = edge.enter().unwrap();
        let node = Node::agent("east-a1");
        let gateway = world(&node, ["10.77.0.1", "10.77.0.51"]).start();
        (node, gateway)
    };
    let [v4, v6] = ["10.77.0.10", "fd77::10"].map(|ip| ip.parse().unwrap());
    let _inside = phones.enter().unwrap();
    call_declared(&gateway, v4);
    for (to, client) in [("10.77.0.1", v4), ("10.77.0.51", v4), ("fd77::1", v6), ("fd77::51", v6)] {
        let to = to.parse().unwrap();
        call_with_ice(&gateway, to, client);
        call_by_quic(&gateway, to, client);
    }
    drop(node);
}
