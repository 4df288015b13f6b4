//! Later offers of WebRTC clients: other streams and directions, and restarts of ICE.

use std::sync::Arc;
use std::time::Instant;

use evenkeel_core::{Gateway, Impossible};
use evenkeel_dataplane::worker::{AnsweredMedia, SrtpKeying, WorkerCommand};
use evenkeel_media::continuity::AnnouncedStreams;
use evenkeel_media::fingerprint::CertificateFingerprint;
use evenkeel_model::{ClientIdentity, ClientLabel, MediaDescription, SessionId, StreamKind};
use evenkeel_process::random::fill;

use crate::messages::ControlError;
use crate::offers::IngressAnswer;
use crate::registry::{SessionEntry, SessionRegistry};
use crate::reporting::GatewayEvent;

/// A later offer of a WebRTC client.
#[derive(Clone, PartialEq, Debug)]
pub struct LaterOffer {
    /// The number of the session.
    pub session: SessionId,
    /// The client's ICE user fragment. Another one than before restarts ICE (RFC 8839, section 4.4.1.1.1).
    pub ufrag: Box<str>,
    /// The streams; `None` if they remain.
    pub streams: Option<LaterStreams>,
}

/// The streams of a [`LaterOffer`].
#[derive(Clone, PartialEq, Debug)]
pub struct LaterStreams {
    /// Replaces the description of the session.
    pub media: Arc<MediaDescription>,
    /// The certificates and the answer. The certificates are those of the first offer.
    pub keying: SrtpKeying,
}

/// A later offer that the session follows.
pub(crate) struct Renegotiated {
    /// The addresses and credentials for the answer.
    pub(crate) ingress: IngressAnswer,
    /// For the session's worker.
    pub(crate) command: (u16, WorkerCommand),
    /// `None` if the offer changes nothing.
    pub(crate) event: Option<GatewayEvent>,
}

impl SessionRegistry {
    /// Follows a later offer, in the core too. After an error packets pass as before.
    pub(crate) fn renegotiate(
        &mut self,
        offer: LaterOffer,
        gateway: &mut Gateway,
        now: Instant,
    ) -> Result<Renegotiated, ControlError> {
        let LaterOffer { session, ufrag, streams } = offer;
        let described = gateway.views().streams(session);
        let (labels, present) =
            described.ok_or(ControlError::Impossible(Impossible::NoSuchSession))?;
        let (labels, present) = (labels.clone(), Arc::clone(present));
        let entry = self.get(session).ok_or(ControlError::Unavailable)?;
        let (certificates, before) = dtls(entry.srtp()).ok_or(ControlError::NotWebrtc)?;
        let ice_restarted = before.ufrag != ufrag;
        let mut answered = before.clone();
        // Without a description, the client's password of a restart is unknown.
        let mut password = if ice_restarted { Default::default() } else { before.password.clone() };
        let mut media = None;
        if let Some(streams) = streams {
            let offered = dtls(Some(&streams.keying)).ok_or(ControlError::NotWebrtc)?;
            if offered.0 != certificates {
                return Err(ControlError::OtherCertificate);
            }
            if let Some(kind) = added_kind(entry, &streams.media) {
                return Err(ControlError::OpenedWithout(kind));
            }
            let mut announced = (*offered.1.announced).clone();
            // A session of an older version has none.
            if *before.announced != AnnouncedStreams::default() {
                announced.seed = before.announced.seed;
                announced.in_sync.clone_from(&before.announced.in_sync);
            }
            password = offered.1.password.clone();
            answered = AnsweredMedia {
                ufrag: before.ufrag.clone(),
                password: before.password.clone(),
                announced: Arc::new(announced),
                ..offered.1.clone()
            };
            media = Some(streams.media);
        }
        let streams_changed =
            media.as_ref().is_some_and(|media| *media != present) || answered != *before;
        (answered.ufrag, answered.password) = (ufrag, password);
        let home = entry.home;
        let (_, listener) = self.listener(&ClientIdentity::Stun).ok_or(ControlError::NoListener)?;
        let addresses = listener.addresses.rtp_of_client(ClientLabel::Carrier.value(&labels));
        if let Some(media) = &media {
            let changed = gateway.handle_streams(session, Arc::clone(media), now);
            changed.map_err(ControlError::Impossible)?;
        }
        if ice_restarted {
            self.restart_ice(session, &mut fill)?;
        }
        let answered = Arc::new(answered);
        if let Some(entry) = self.get_mut(session) {
            entry.set_answered(Arc::clone(&answered));
        }
        gateway.records().note_session(session);
        let media = media.unwrap_or(present);
        let command = WorkerCommand::Renegotiate { home, media, answered };
        let ice = self.ice_of(session);
        let ingress = IngressAnswer::Udp { addresses, rtcp: Vec::new(), ice };
        let event = (streams_changed || ice_restarted).then_some(GatewayEvent::Renegotiated {
            session,
            streams_changed,
            ice_restarted,
        });
        Ok(Renegotiated { ingress, command: (home.worker, command), event })
    }
}

/// The certificates and the answer of a WebRTC client.
fn dtls(keying: Option<&SrtpKeying>) -> Option<(&[CertificateFingerprint], &AnsweredMedia)> {
    match keying? {
        SrtpKeying::Dtls { fingerprints, answered, .. } => Some((fingerprints, answered)),
        SrtpKeying::Sdes(_) => None,
    }
}

/// A kind of these streams with a format for which a node's driver has not opened the session.
fn added_kind(entry: &SessionEntry, media: &MediaDescription) -> Option<StreamKind> {
    let opened = &entry.brief()?.media;
    let formats = media
        .streams
        .iter()
        .flat_map(|stream| stream.payload_types.iter().map(|payload| (stream.kind, payload)));
    let mut added = formats.filter(|(_, payload)| {
        opened.payload_type(payload.number).is_none_or(|(_, known)| known != *payload)
    });
    added.next().map(|(kind, _)| kind)
}
