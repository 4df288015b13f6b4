//! A takeover before a real rtpengine with SRTP legs. The gateways reach its control port through tunnels that begin at their
//! loopback addresses, as messages with keys require.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use evenkeel_lab::network::Host;
use evenkeel_lab::process::ChildProcess;
use evenkeel_testkit::capture::{Capture, CapturedDatagram};
use evenkeel_testkit::required;
use nix::sys::signal::Signal;

use super::{PACKETS, await_node};
use crate::harness::{
    GatewayProcess, Hosts, NODE, Phone, assert_continuous, await_replica, ids, talk,
};

/// The port of NG messages.
const NG: u16 = 2_223;
/// The first and the last port of legs, outside the ephemeral range.
const LEGS: [u16; 2] = [20_000, 24_999];

const GATEWAYS_NODE: &str = "[[node]]\nname = \"east-a1\"\nregion = \"east\"\nzone = \"a\"\ncapacity = \"200 Mbit/s\"\n\
     driver = \"rtpengine\"\nng = \"127.0.0.1:2223\"\nsrtp = \"sdes\"\n";

/// Starts rtpengine on the node's host, in user space.
fn daemon(place: &Hosts, folder: &Path) -> ChildProcess {
    let mut command = Command::new("rtpengine");
    // The configuration of the machine is not read.
    command.args(["--config-file=none", "--table=-1", "--num-threads=1", "--foreground"]);
    command.args(["--log-stderr", "--log-level=4"]);
    command.arg(format!("--interface={NODE}")).arg(format!("--listen-ng={NODE}:{NG}"));
    command.arg(format!("--port-min={}", LEGS[0])).arg(format!("--port-max={}", LEGS[1]));
    let _inside = place.node.enter().unwrap();
    ChildProcess::start("rtpengine", &mut command, folder).unwrap()
}

/// The SDES keys that a gateway sent.
type SentKeys = Arc<Mutex<BTreeSet<String>>>;

/// Passes NG messages from the loopback address of this host to rtpengine. The threads end with the process.
fn tunnel(host: &Host) -> SentKeys {
    let _inside = host.enter().unwrap();
    let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, NG)).unwrap();
    let sent = SentKeys::default();
    let keys = Arc::clone(&sent);
    thread::spawn(move || {
        let (mut buffer, mut askers) = ([0; 8_192], BTreeMap::new());
        while let Ok((length, from)) = near.recv_from(&mut buffer) {
            let message = String::from_utf8_lossy(&buffer[..length]);
            let inline = message.split("inline:").skip(1);
            let of_lines = inline.filter_map(|rest| rest.split_whitespace().next());
            keys.lock().unwrap().extend(of_lines.map(str::to_owned));
            let far = askers.entry(from).or_insert_with(|| answer(near.try_clone().unwrap(), from));
            // The gateway repeats a message that is lost.
            let _sent = far.send(&buffer[..length]);
        }
    });
    sent
}

/// A socket to rtpengine. Its answers go to `asker`.
fn answer(near: UdpSocket, asker: SocketAddr) -> UdpSocket {
    let far = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    far.connect((NODE, NG)).unwrap();
    let answers = far.try_clone().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 8_192];
        loop {
            // An error is that of a message before rtpengine listened.
            if let Ok(length) = answers.recv(&mut buffer) {
                let _gone = near.send_to(&buffer[..length], asker);
            }
        }
    });
    far
}

/// A voice packet on a leg.
#[derive(PartialEq)]
enum LegPacket {
    Encrypted,
    Plain,
}

/// Adds the voice packet of a datagram on a leg. Payloads of phones end with equal bytes.
fn take(datagram: &CapturedDatagram<'_>, packets: &mut Vec<LegPacket>) {
    let ports = [datagram.source.port(), datagram.destination.port()];
    let is_leg = ports.iter().any(|port| (LEGS[0]..=LEGS[1]).contains(port));
    let is_voice = datagram.payload.get(1).is_some_and(|kind| kind & 0x7f == 111);
    let is_plain = datagram.payload.windows(10).any(|part| part == [0x5a; 10]);
    if is_leg && is_voice {
        packets.push(if is_plain { LegPacket::Plain } else { LegPacket::Encrypted });
    }
}

/// Lets both talk until each has heard the other.
fn converse(phones: &mut [&mut Phone; 2], what: &str) {
    let goals = phones.each_ref().map(|phone| phone.heard.len() + PACKETS as usize);
    talk(phones, what, |phones| {
        phones.iter().zip(goals).all(|(phone, goal)| phone.heard.len() >= goal)
    });
}

#[required(Rtpengine, Namespaces)]
#[test]
fn srtp_legs_at_rtpengine_get_new_keys() {
    let place = Hosts::lay();
    let folder = tempfile::tempdir().unwrap();
    let _daemon = daemon(&place, folder.path());
    let [first, second] = [0, 1].map(|edge| tunnel(&place.gateways[edge]));
    let legs = {
        let _inside = place.node.enter().unwrap();
        Capture::of_all(take).unwrap()
    };
    let count =
        |kind: LegPacket| legs.read(|packets| packets.iter().filter(|it| **it == kind).count());
    let [mut owner, mut standby] = place.group_before(GATEWAYS_NODE, "port_legs = true\n");
    [&mut owner, &mut standby].into_iter().for_each(await_node);
    let mut ann = place.phone();
    let mut bob = {
        let _inside = place.client.enter().unwrap();
        Phone::on(&format!("{}:0", place.client.address()), 2)
    };
    owner.open("room", &mut ann);
    owner.open("room", &mut bob);
    let sessions = |gateway: &mut GatewayProcess| BTreeSet::from_iter(ids(gateway));
    let opened = sessions(&mut owner);
    converse(&mut [&mut ann, &mut bob], "both hear");
    await_replica(&mut owner);
    let on_legs = || count(LegPacket::Encrypted);
    // A busy host captures some of them late, or not at all.
    while on_legs() < 4 * PACKETS as usize {
        converse(&mut [&mut ann, &mut bob], "the packets are captured");
    }
    let encrypted = on_legs();

    owner.process.signal(Signal::SIGKILL).unwrap();
    converse(&mut [&mut ann, &mut bob], "both hear through the standby");
    assert_eq!(sessions(&mut standby), opened);
    assert_continuous(&ann.heard);
    assert_continuous(&bob.heard);
    while on_legs() - encrypted < 4 * PACKETS as usize {
        converse(&mut [&mut ann, &mut bob], "packets are captured after the takeover");
    }
    assert_eq!(count(LegPacket::Plain), 0, "packets that are not encrypted");
    let (first, second) = (first.lock().unwrap(), second.lock().unwrap());
    assert!(!first.is_empty() && !second.is_empty(), "{} and {} keys", first.len(), second.len());
    assert!(first.is_disjoint(&second), "the standby sent a key of the owner");
}
