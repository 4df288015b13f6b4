mod effect;

use super::*;
use crate::ledger::{ReceivedPacket, RoomParticipant, SentPacket};

const MS: u64 = 1_000_000;

/// Two rooms with a sender that sends every 20 ms; the receiver of the second room gets nothing after 100 ms.
fn window() -> ObservationWindow {
    let mut ledger = PacketLedger::default();
    for session in 1..=4_u64 {
        let room = session.div_ceil(2);
        ledger.join(RoomParticipant { session, room, from_ns: 0, until_ns: u64::MAX });
    }
    for number in 0..20 {
        let at_ns = number * 20 * MS;
        for sender in [1, 3] {
            let (stream, timestamp, clock_rate) = (0, 0, 48_000);
            let session = sender;
            ledger.sent(SentPacket { session, stream, number, at_ns, timestamp, clock_rate });
            if sender == 1 || at_ns < 100 * MS {
                let (receiver, sent_ns, sequence) = (sender + 1, at_ns, number as u16);
                let (node, ssrc) = (7, 9);
                ledger.arrived(ReceivedPacket {
                    receiver,
                    sender,
                    stream,
                    number,
                    node,
                    sent_ns,
                    at_ns,
                    ssrc,
                    sequence,
                    timestamp,
                });
            }
        }
    }
    let by_id = [("s31".to_owned(), 3), ("s41".to_owned(), 4)].into();
    ObservationWindow { ledger, events: Vec::new(), by_id, span: 0..400 * MS }
}

#[test]
fn who_is_forgotten_is_in_no_figure() {
    let fault = InjectedFault { at_ns: 100 * MS, scope: Scope::Nodes([7].into()) };
    let mut window = window();
    let before = window.effect_of(&fault);
    assert_eq!((before.hit, before.unheard, before.lost), (2, 1, 15));
    let sessions = ["s31", "s41"].map(|id| window.by_id[id]).into();
    window.forget(&sessions);
    let after = window.effect_of(&fault);
    assert_eq!((after.hit, after.unheard, after.lost), (1, 0, 0));
}
