//! A client that can send, the state that it reports, and the records of its thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel_process::lock;
use serde::Serialize;
use tokio::time::{Instant, Sleep, sleep_until};

use super::talker::{ClientTally, DeviceFault, Persona, Talker, Transmit};
use super::webrtc::WebrtcTally;
use crate::clock;
use crate::ledger::{Books, ReceivedPacket, SentPacket};

/// A command to a thread of clients. `W` is the way of their packets.
pub(super) enum FleetCommand<W> {
    Join(Persona, W),
    Leave(u64),
    DeviceFault(u64, DeviceFault),
}

/// A client as its thread last reported it.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct ClientState {
    /// Time from which the client could send, nanoseconds since the Unix epoch: at once with a declared address, after
    /// the first answered check with STUN, after the handshake with QUIC or as a WebRTC client.
    pub(crate) ready_ns: Option<u64>,
    /// The reason why the client cannot send any more.
    pub(crate) failed: Option<String>,
    /// Counters, updated every second, and exact once the client has stopped sending.
    pub tally: ClientTally,
    /// Events of a WebRTC client's transport, up to date.
    pub webrtc: WebrtcTally,
}

/// States of all clients that have joined, by session. Clients that left stay in it.
pub(super) type Roster = Arc<Mutex<BTreeMap<u64, ClientState>>>;

/// The records of a client thread, before they are in the ledger, and the states of its clients.
pub(super) struct ClientReports {
    pub(super) books: Books,
    pub(super) roster: Roster,
    pub(super) sent: Vec<SentPacket>,
    pub(super) arrived: Vec<ReceivedPacket>,
}

pub(super) type SharedReports = Rc<RefCell<ClientReports>>;

impl ClientReports {
    pub(super) fn enter(&mut self) {
        self.books.note(&mut self.sent, &mut self.arrived);
    }

    pub(super) fn tell(&self, session: u64, change: impl FnOnce(&mut ClientState)) {
        change(lock(&self.roster).entry(session).or_default());
    }
}

impl Drop for ClientReports {
    fn drop(&mut self) {
        self.enter();
    }
}

/// A client that can send, with the reports of its thread.
pub(super) struct LiveClient {
    session: u64,
    pub(super) talker: Talker,
    reports: SharedReports,
}

impl LiveClient {
    pub(super) fn new(persona: Persona, reports: &SharedReports) -> Self {
        let (session, now_ns) = (persona.session, clock::now_ns());
        reports.borrow().tell(session, |state| state.ready_ns = Some(now_ns));
        let talker = Talker::new(persona, now_ns);
        Self { session, talker, reports: Rc::clone(reports) }
    }

    pub(super) fn handle_packet(&mut self, packet: &[u8], at_ns: u64) {
        let arrival = self.talker.handle_packet(packet, at_ns);
        self.reports.borrow_mut().arrived.extend(arrival);
    }

    pub(super) fn send_due<E>(
        &mut self,
        mut send: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut packet = Vec::with_capacity(1_500);
        let mut reported = false;
        while let Some(transmit) = self.talker.poll_transmit(clock::now_ns(), &mut packet) {
            match transmit {
                Transmit::Rtp(sent) => self.reports.borrow_mut().sent.push(sent),
                Transmit::Rtcp => reported = true,
            }
            send(&packet)?;
            packet.clear();
        }
        if reported {
            self.tell();
        }
        Ok(())
    }

    pub(super) fn tell(&self) {
        self.reports.borrow().tell(self.session, |state| state.tally = self.talker.tally);
    }
}

/// A timer that is set anew only when its time changes, since that is dear.
pub(super) struct ReusedTimer {
    at_ns: u64,
    sleep: Pin<Box<Sleep>>,
}

impl ReusedTimer {
    pub(super) fn new() -> Self {
        Self { at_ns: 0, sleep: Box::pin(sleep_until(Instant::now())) }
    }

    /// Waits until this time: nanoseconds since the Unix epoch.
    pub(super) async fn ring(&mut self, at_ns: u64) {
        if self.at_ns != at_ns {
            self.at_ns = at_ns;
            let wait = Duration::from_nanos(at_ns.saturating_sub(clock::now_ns()));
            self.sleep.as_mut().reset(Instant::now() + wait);
        }
        self.sleep.as_mut().await;
        // The clock may have been set back meanwhile.
        self.at_ns = 0;
    }
}
