//! A ledger that several threads write while another reads it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{PacketLedger, ReceivedPacket, SentPacket};

/// A ledger behind a buffer. Writers wait only for the buffer, never for a reader of the ledger, because waiting would
/// delay packets.
#[derive(Clone, Default)]
pub struct Books {
    ledger: Arc<Mutex<PacketLedger>>,
    tray: Arc<Mutex<Tray>>,
}

#[derive(Default)]
struct Tray {
    sent: Vec<SentPacket>,
    arrived: Vec<ReceivedPacket>,
}

impl Books {
    /// Moves these records into the buffer, and leaves both lists empty.
    pub(crate) fn note(&self, sent: &mut Vec<SentPacket>, arrived: &mut Vec<ReceivedPacket>) {
        if sent.is_empty() && arrived.is_empty() {
            return;
        }
        let mut tray = lock(&self.tray);
        tray.sent.append(sent);
        tray.arrived.append(arrived);
    }

    /// The ledger with everything recorded so far.
    pub(crate) fn open(&self) -> MutexGuard<'_, PacketLedger> {
        let mut ledger = lock(&self.ledger);
        let Tray { sent, arrived } = std::mem::take(&mut *lock(&self.tray));
        sent.into_iter().for_each(|packet| ledger.sent(packet));
        arrived.into_iter().for_each(|arrival| ledger.arrived(arrival));
        ledger
    }

    /// Returns everything recorded so far, and continues with the same members and no packets.
    pub(crate) fn turn(&self) -> PacketLedger {
        let mut ledger = self.open();
        let next = ledger.next_page();
        std::mem::replace(&mut *ledger, next)
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
