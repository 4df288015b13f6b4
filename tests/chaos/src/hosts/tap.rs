//! Packets of voice that reach a host, with the kernel's receive times.

use std::collections::BTreeMap;

use evenkeel_lab::TestHeader;
use evenkeel_lab::network::Host;
use evenkeel_media::demux::{self, DatagramKind};
use evenkeel_media::{rtp, trunk};
use evenkeel_testkit::capture::Capture;

/// A packet of voice that passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Passed {
    /// The sender, from the test header.
    pub(crate) session: u64,
    /// Nanoseconds since the Unix epoch.
    at_ns: u64,
}

/// Records the voice that reaches this host, on trunk legs without encryption and on port legs.
pub(super) fn open(host: &Host) -> Result<Capture<Passed>, String> {
    let _inside = host.enter()?;
    Capture::of_received(|datagram, passed| {
        let at_ns = datagram.at_ns;
        senders(datagram.payload, |session| passed.push(Passed { session, at_ns }));
    })
}

/// The sessions of the packets of voice in a datagram.
fn senders(datagram: &[u8], mut found: impl FnMut(u64)) {
    let mut of_packet = |packet: &[u8]| {
        let header = rtp::RtpHeader::parse(packet).ok();
        let mark = header.and_then(|header| TestHeader::read(header.payload(packet)));
        // Packets of video would hide pauses of voice.
        mark.filter(|mark| mark.stream == 0).into_iter().for_each(|mark| found(mark.session));
    };
    match demux::classify(datagram) {
        DatagramKind::Rtp => of_packet(datagram),
        DatagramKind::Bundle => {
            let packets = trunk::entries(datagram).map_while(Result::ok).map(|(_, packet)| packet);
            packets
                .filter(|packet| demux::classify(packet) == DatagramKind::Rtp)
                .for_each(of_packet);
        }
        _ => {}
    }
}

/// The longest pause of each session between these times, nanoseconds. The end of the span ends the last pause.
pub(crate) fn longest_pauses(passed: &[Passed], from_ns: u64, until_ns: u64) -> Vec<u64> {
    let mut times: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for passed in passed.iter().filter(|passed| passed.at_ns < until_ns) {
        times.entry(passed.session).or_default().push(passed.at_ns);
    }
    let longest = |times: &Vec<u64>| {
        let ends = times[1..].iter().chain([&until_ns]);
        let pauses = times.iter().zip(ends).filter(|(_, end)| **end > from_ns);
        pauses.map(|(begin, end)| end - begin).max().unwrap_or(0)
    };
    times.values().map(longest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_are_read_from_bundles_and_packets() {
        let of_stream = |session, stream| {
            let mut payload = Vec::new();
            TestHeader { session, number: 0, sent_ns: 0, node: 0, stream }.write(&mut payload);
            let fields = rtp::Fields {
                payload_type: 111,
                marker: false,
                sequence: 1,
                timestamp: 1,
                ssrc: 1,
            };
            let mut packet = Vec::new();
            rtp::write(&fields, &payload, &mut packet);
            packet
        };
        let packet = |session| of_stream(session, 0);
        let mut bundle = trunk::Bundle::new(1_200);
        assert!([7, 9].iter().all(|&session| bundle.push(trunk::Tag(1), &packet(session))));
        let found = |datagram: &[u8]| {
            let mut found = Vec::new();
            senders(datagram, |session| found.push(session));
            found
        };
        assert_eq!(found(bundle.as_bytes()), [7, 9]);
        assert_eq!(found(&packet(3)), [3]);
        assert_eq!(found(&of_stream(3, 1)), [0; 0], "video");
        assert_eq!(found(b"\xe1signed"), [0; 0]);
    }

    #[test]
    fn longest_pause_ends_after_the_fault() {
        let of = |session, times: &[u64]| -> Vec<Passed> {
            times.iter().map(|&at_ns| Passed { session, at_ns }).collect()
        };
        let passed = [of(1, &[0, 50, 60, 80]), of(2, &[0, 20, 90, 150])].concat();
        assert_eq!(longest_pauses(&passed, 55, 100), [20, 70]);
    }
}
