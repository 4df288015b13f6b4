//! DTLS of clients between the workers and the thread of handshakes.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use evenkeel_media::fingerprint::CertificateFingerprint;
use evenkeel_model::SessionId;

use super::sockets::ClientPath;
use crate::flows::Home;

/// Inputs that wait for the thread. A client repeats a datagram for which there is no room.
const INPUTS_MAX: usize = 1_024;

/// Datagrams of one session that wait for the thread: a flight of a client has up to five.
const WAITING_MAX: usize = 16;

/// A session with DTLS.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct DtlsSession {
    pub(crate) id: SessionId,
    pub(crate) home: Home,
}

/// An input of a worker.
#[derive(Debug)]
pub struct HandshakeInput(pub(crate) InputKind);

#[derive(Debug)]
pub(crate) enum InputKind {
    /// DTLS from an address of the client that passed a check.
    Datagram(HandshakeDatagram),
    /// The session has ended.
    Ended(DtlsSession),
}

#[derive(Debug)]
pub(crate) struct HandshakeDatagram {
    pub(crate) session: DtlsSession,
    pub(crate) path: ClientPath,
    /// The certificates that the client may show.
    pub(crate) fingerprints: Arc<[CertificateFingerprint]>,
    /// The handshake has ended, perhaps in another process.
    pub(crate) is_keyed: bool,
    pub(crate) bytes: Box<[u8]>,
    /// Held until the thread has handled the datagram.
    pub(crate) _place: WaitingPlace,
}

/// The places of a session's datagrams in the queue, so that it cannot fill the queue of all.
#[derive(Default, Debug)]
pub(crate) struct WaitingPlaces(Arc<()>);

/// A place of one datagram, until this is dropped.
#[derive(Debug)]
pub(crate) struct WaitingPlace {
    _counted: Arc<()>,
}

impl WaitingPlaces {
    /// `None` if [`WAITING_MAX`] are taken.
    pub(crate) fn take(&self) -> Option<WaitingPlace> {
        let taken = Arc::strong_count(&self.0) - 1;
        (taken < WAITING_MAX).then(|| WaitingPlace { _counted: Arc::clone(&self.0) })
    }
}

/// DTLS to a client.
#[derive(Debug)]
pub struct HandshakeFlight {
    pub(crate) home: Home,
    pub(crate) to: ClientPath,
    pub(crate) bytes: Box<[u8]>,
}

/// Creates the channel from the workers to the thread.
pub fn handshake_channel() -> (Sender<HandshakeInput>, Receiver<HandshakeInput>) {
    crossbeam_channel::bounded(INPUTS_MAX)
}
