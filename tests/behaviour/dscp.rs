//! Packets leave with the marks of their scenario, towards clients and nodes.

use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use evenkeel_lab::sample_node::PlainRoom;
use evenkeel_media::rtp::RtpHeader;
use nix::cmsg_space;
use nix::sys::socket::sockopt::{IpRecvTos, Ipv6RecvTClass};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt};

use crate::harness::{Node, Phone, TIMEOUT, World, declared, offer, udp_of};

/// Code points of voice and video (RFC 4594).
const MARKS: &str = "dscp = { voice = \"CS5\", video = \"AF31\" }\n";

/// Payload types with their code points.
const VOICE: (u8, u8) = (111, 40);
const VIDEO: (u8, u8) = (96, 26);

/// Has the kernel report the traffic class of each datagram (ip(7), IP_RECVTOS; ipv6(7), IPV6_RECVTCLASS).
fn report_class(socket: &UdpSocket) {
    match socket.local_addr().unwrap() {
        SocketAddr::V4(_) => setsockopt(socket, IpRecvTos, &true).unwrap(),
        SocketAddr::V6(_) => setsockopt(socket, Ipv6RecvTClass, &true).unwrap(),
    }
}

/// Receives an RTP packet. Returns its payload type with the code point, the packet, and the port of its sender.
fn receive(socket: &UdpSocket) -> ((u8, u8), Vec<u8>, u16) {
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    let from = socket.peek_from(&mut [0]).unwrap().1;
    let (mut bytes, mut control) = ([0; 2_048], cmsg_space!(i32));
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let received =
        recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
    let received = received.unwrap();
    let class = received.cmsgs().unwrap().find_map(|message| match message {
        ControlMessageOwned::Ipv4Tos(class) => Some(class),
        ControlMessageOwned::Ipv6TClass(class) => u8::try_from(class).ok(),
        _ => None,
    });
    let length = received.bytes;
    let packet = bytes[..length].to_vec();
    let payload_type = RtpHeader::parse(&packet).unwrap().payload_type;
    ((payload_type, class.expect("the kernel reports the class") >> 2), packet, from.port())
}

#[test]
fn packets_carry_the_marks_of_their_scenario() {
    for host in ["127.0.0.1", "[::1]"] {
        let node = UdpSocket::bind(format!("{host}:0")).unwrap();
        let template = Node::plain("east-a1", "none", PlainRoom::Alone);
        let mut world = World::of(&[]);
        world.listens = format!("[[listen]]\nudp = \"{host}:0\"\nidentity = [\"declared\"]\n");
        world.scenario += MARKS;
        world.nodes = template
            .text()
            .replace(&template.address.to_string(), &node.local_addr().unwrap().to_string());
        let gateway = world.start();
        let mut phone = Phone::on(&format!("{host}:0"), 1);
        phone.sends_video = true;
        [&node, &phone.socket].into_iter().for_each(report_class);
        phone.set_target(udp_of(&gateway.open(offer("room", declared(&phone)))));

        phone.send_media();
        let mut marks = Vec::new();
        for _ in 0..2 {
            let (mark, packet, session) = receive(&node);
            marks.push(mark);
            let session = SocketAddr::new(node.local_addr().unwrap().ip(), session);
            node.send_to(&packet, session).unwrap();
        }
        assert_eq!(marks, [VOICE, VIDEO], "to the node from {host}");
        let marks = [(); 2].map(|()| receive(&phone.socket).0);
        assert_eq!(marks, [VOICE, VIDEO], "to the client at {host}");
    }
}
