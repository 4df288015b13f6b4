//! The client's side of an offer.

use evenkeel_dataplane::worker::SrtpKeying;
use evenkeel_model::{IngressProtocol, MediaDescription};

/// The client's side of a session.
pub(super) struct ClientMedia {
    pub(super) ingress: IngressProtocol,
    pub(super) media: MediaDescription,
    pub(super) keying: Option<SrtpKeying>,
}
