use super::*;
use crate::flows::Home;
use crate::mmsg::DATAGRAM_MAX;
use crate::ring;

#[test]
fn packets_leave_in_order_at_the_end_of_a_pass() {
    let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let (first, second) = (bind(), bind());
    let addresses = [&first, &second].map(|socket| socket.local_addr().unwrap());
    for socket in [&first, &second] {
        socket.set_nonblocking(true).unwrap();
    }
    let now = Instant::now();
    let stats = WorkerStats::new(now, 2);
    let mut ports = SessionPorts::new(bind(), None).unwrap();
    let queue = |ports: &mut SessionPorts, node: u32, byte| {
        let to = addresses[node as usize];
        ports.queue(RtpSide::Rtp, NodeId(node), to, 0, &[byte], |ports| ports.flush(&stats, now))
    };
    let came = |socket: &UdpSocket| {
        let mut bytes = [0; 8];
        std::iter::from_fn(|| socket.recv(&mut bytes).ok().map(|_| bytes[0])).collect::<Vec<_>>()
    };
    assert!(queue(&mut ports, 0, 1));
    assert!(!queue(&mut ports, 0, 2), "a flush is due already");
    assert_eq!(came(&first), [0; 0]);
    assert!(!queue(&mut ports, 1, 3), "a packet for another node flushes those before");
    assert_eq!(came(&first), [1, 2]);
    ports.flush(&stats, now);
    assert_eq!(came(&second), [3]);
    assert!(queue(&mut ports, 1, 4), "the next pass");
}

fn source(address: &str) -> SourceKey {
    SourceKey { listener: 3, address: address.parse().unwrap() }
}

#[test]
fn longest_datagram_fits_behind_its_header() {
    let arrival = ClientArrival {
        source: source("[2001:db8::1]:65535"),
        local: None,
        kind: ArrivalKind::Rtp,
    };
    let mut bytes = Vec::new();
    arrival.write(&[7; DATAGRAM_MAX], &mut bytes);
    let (mut sender, _receiver) = ring::channel(8).unwrap();
    let home = Home { worker: 0, slot: 0, generation: 1 };
    let meta = ring::RingMeta { home, kind: ring::RingItem::Relayed, flow: 0 };
    assert_eq!(sender.push(meta, &bytes), Ok(()));
}

#[test]
fn arrival_survives_the_ring() {
    let of = |local: &str| Some(local.parse().unwrap());
    for (address, local) in [
        ("10.0.0.9:4000", None),
        ("10.0.0.9:4000", of("10.0.0.2")),
        ("[2001:db8::1]:65535", of("2001:db8::2")),
    ] {
        for kind in [
            ArrivalKind::Rtp,
            ArrivalKind::Rtcp,
            ArrivalKind::Check,
            ArrivalKind::Nomination,
            ArrivalKind::AddressTaken,
        ] {
            let arrival = ClientArrival { source: source(address), local, kind };
            let mut bytes = vec![9; 4];
            arrival.write(b"packet", &mut bytes);
            assert_eq!(ClientArrival::read(&bytes), Some((arrival, b"packet".as_slice())));
            assert_eq!(ClientArrival::read(&bytes[..HEADER - 1]), None);
        }
    }
}
