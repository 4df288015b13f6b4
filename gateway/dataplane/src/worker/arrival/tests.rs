use super::*;
use crate::flows::Home;
use crate::mmsg::DATAGRAM_MAX;
use crate::ring;

fn source(address: &str) -> SourceKey {
    SourceKey { listener: 3, address: address.parse().unwrap() }
}

#[test]
fn longest_datagram_fits_behind_its_header() {
    let arrival = ClientArrival { source: source("[2001:db8::1]:65535"), kind: ArrivalKind::Rtp };
    let mut bytes = Vec::new();
    arrival.write(&[7; DATAGRAM_MAX], &mut bytes);
    let (mut sender, _receiver) = ring::channel(8).unwrap();
    let home = Home { worker: 0, slot: 0, generation: 1 };
    let meta = ring::RingMeta { home, kind: ring::RingItem::Relayed, flow: 0 };
    assert_eq!(sender.push(meta, &bytes), Ok(()));
}

#[test]
fn arrival_survives_the_ring() {
    for address in ["10.0.0.9:4000", "[2001:db8::1]:65535"] {
        for kind in [
            ArrivalKind::Rtp,
            ArrivalKind::Rtcp,
            ArrivalKind::Check,
            ArrivalKind::Nomination,
            ArrivalKind::AddressTaken,
        ] {
            let arrival = ClientArrival { source: source(address), kind };
            let mut bytes = vec![9; 4];
            arrival.write(b"packet", &mut bytes);
            assert_eq!(ClientArrival::read(&bytes), Some((arrival, b"packet".as_slice())));
            assert_eq!(ClientArrival::read(&bytes[..HEADER - 1]), None);
        }
    }
}
