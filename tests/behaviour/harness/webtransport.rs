//! Pages: clients of the lab by WebTransport.

use evenkeel_control::IngressAnswer;
use evenkeel_lab::client::{ClientFleet, ClientPath, ClientTally, Persona, QuicProtocol, QuicWay};
use evenkeel_lab::ledger::Books;
use evenkeel_model::IngressProtocol;

use super::{Gateway, offer, quic_of, wait_until};

/// The number of the page's session in the lab.
const SESSION: u64 = 1;

/// A page with a session of its own, which hears itself.
pub(crate) struct HearingPage {
    way: QuicWay,
    fleet: ClientFleet,
}

impl HearingPage {
    pub(crate) fn begin(gateway: &Gateway, room: &str) -> HearingPage {
        let way = webtransport_session(gateway, room);
        let fleet = ClientFleet::start(&Books::default()).unwrap();
        let persona = Persona { session: SESSION, seed: 1, voice: true, video: false };
        fleet.join(persona, ClientPath::Quic(way));
        let page = HearingPage { way, fleet };
        page.hears_on();
        page
    }

    /// Destination of the page.
    pub(crate) fn way(&self) -> QuicWay {
        self.way
    }

    pub(crate) fn tally(&self) -> ClientTally {
        self.fleet.state(SESSION).unwrap().tally
    }

    /// Waits until the page has heard more of itself.
    pub(crate) fn hears_on(&self) {
        let before = self.tally().packets_received;
        wait_until("the page hears itself", || self.tally().packets_received >= before + 20);
    }
}

/// Opens a session of WebTransport.
pub(crate) fn webtransport_session(gateway: &Gateway, room: &str) -> QuicWay {
    let opened = gateway.open(offer(room, IngressProtocol::Quic));
    let IngressAnswer::Quic { short_lived_sha256, .. } = &opened.ingress else { panic!() };
    QuicWay {
        protocol: QuicProtocol::Webtransport,
        certificate_sha256: short_lived_sha256[0],
        ..quic_of(&opened)
    }
}
