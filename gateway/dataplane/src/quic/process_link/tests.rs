use std::net::Ipv4Addr;

use super::*;

const HOME: Home = Home { worker: 3, slot: 70_000, generation: 9 };

fn pair() -> (ProcessLink, ProcessLink) {
    let (here, there) = ProcessLink::pair().unwrap();
    (here, ProcessLink::of(there))
}

fn to_client(priority: PacketPriority, latency_ms: u16) -> RingItem {
    RingItem::ToClient(SendTerms { priority, latency_ms })
}

#[test]
fn items_and_datagrams_arrive_as_sent() {
    let (here, there) = pair();
    let mut buffer = [0; MESSAGE_MAX];
    let report = PathReport { rtt_us: 7, lost: 8, sent: 9 };
    for (kind, bytes) in [
        (RingItem::Rtp, &b"voice"[..]),
        (RingItem::Rtcp, &b"report"[..]),
        (to_client(PacketPriority::Voice, 60), &b"voice"[..]),
        (to_client(PacketPriority::Video, 500), &b"video"[..]),
        (to_client(PacketPriority::VideoRepair, 500), &b"video"[..]),
        (RingItem::Path(report), &[]),
        (RingItem::Attached, &[]),
        (RingItem::Detached, &[]),
    ] {
        let meta = RingMeta { home: HOME, kind, flow: u64::MAX >> 2 };
        here.push(meta, bytes).unwrap();
        assert_eq!(there.receive(&mut buffer), LinkRead::Item(meta, bytes));
    }
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let bytes = [7; SEGMENTS_MAX * DATAGRAM_MAX];
    for (source, local, ecn, segment) in [
        ((Ipv4Addr::LOCALHOST, 4_433).into(), None, None, None),
        ((mapped, 1).into(), Some(mapped.into()), Some(EcnCodepoint::Ce), Some(1_472)),
        (
            SocketAddrV6::new(link_local, 2, 0, 5).into(),
            Some(Ipv4Addr::LOCALHOST.into()),
            Some(EcnCodepoint::Ect0),
            None,
        ),
    ] {
        let client = From { source, local, ecn };
        assert!(there.send_datagram(client, segment, &bytes));
        let expected = LinkRead::Datagram { client, segment, bytes: &bytes };
        assert_eq!(here.receive(&mut buffer), expected);
    }
    assert_eq!(here.receive(&mut buffer), LinkRead::Nothing);
}

#[test]
fn message_of_a_later_version_is_skipped() {
    let (here, there) = pair();
    let mut buffer = [0; MESSAGE_MAX];
    assert!(here.send(&[99; HEADER], b"later"));
    assert!(here.send(&[RTP], b"short"));
    for _ in 0..2 {
        assert_eq!(there.receive(&mut buffer), LinkRead::Unknown);
    }
}

#[test]
fn full_link_refuses_and_its_end_is_read() {
    let (here, there) = pair();
    let meta = RingMeta { home: HOME, kind: RingItem::Rtp, flow: 1 };
    let mut sent = 0;
    while here.push(meta, b"voice").is_ok() {
        sent += 1;
    }
    drop(here);
    let mut buffer = [0; MESSAGE_MAX];
    for _ in 0..sent {
        assert!(matches!(there.receive(&mut buffer), LinkRead::Item(..)));
    }
    assert_eq!(there.receive(&mut buffer), LinkRead::Ended);
    assert_eq!(there.push(meta, b"nobody reads"), Ok(()));
}
