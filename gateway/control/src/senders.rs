//! The senders of rooms, by which answers to WebRTC clients and events name streams.

use std::collections::BTreeSet;
use std::sync::Arc;

use evenkeel_dataplane::worker::{AnsweredMedia, ClientStream};
use evenkeel_media::continuity::{AnnouncedSection, AnnouncedSender, AnnouncedStreams};
use evenkeel_model::{Labels, MediaDescription, SessionId, StreamKind, participant};

/// Limit of an id (RFC 8830, section 2).
const STREAM_ID_MAX: usize = 64;

/// A session that sends to its room.
#[derive(Clone, Debug)]
pub(crate) struct RoomSender {
    id: Arc<str>,
    streams: Vec<ClientStream>,
}

impl RoomSender {
    pub(crate) fn new(
        session: SessionId,
        labels: &Labels,
        streams: Vec<ClientStream>,
    ) -> RoomSender {
        RoomSender { id: stream_id(session, participant(labels)).into(), streams }
    }
}

/// The streams that a client sends. `answered` is absent without WebRTC; an older version recorded no streams in it.
pub(crate) fn sent_streams(
    answered: Option<&AnsweredMedia>,
    media: &MediaDescription,
) -> Vec<ClientStream> {
    match answered {
        Some(answered) if !answered.sends.is_empty() || !answered.may_send => {
            answered.sends.clone()
        }
        Some(_) | None => {
            let stream = |kind| ClientStream { kind, ssrcs: Vec::new() };
            media.streams.iter().map(|media| stream(media.kind)).collect()
        }
    }
}

/// The id of the streams of a session in answers: its own, and behind a dot the participant, in which each byte that no id may
/// contain stands as `%` and two digits.
fn stream_id(session: SessionId, participant: Option<&str>) -> String {
    let mut id = session.to_string();
    let bytes = participant.into_iter().flat_map(str::bytes);
    for (index, byte) in bytes.enumerate() {
        let is_plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
        let written = match is_plain {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        };
        let dot = if index == 0 { "." } else { "" };
        if id.len() + dot.len() + written.len() > STREAM_ID_MAX {
            break;
        }
        id.push_str(dot);
        id.push_str(&written);
    }
    id
}

/// Gives each m-line the sender of its stream: the one in the answer before, while it sends; else the first one without an m-line of
/// the kind. Without the SSRCs of senders several new ones of a kind cannot be told apart, and have no name.
pub(crate) fn name_senders(
    announced: &mut AnnouncedStreams,
    before: &AnnouncedStreams,
    media: &MediaDescription,
    senders: &[RoomSender],
    keeps_ssrc: bool,
) {
    let kind_of = |section: &AnnouncedSection| {
        let payload_type = media.payload_type(*section.payload_types.first()?)?;
        Some(payload_type.0)
    };
    let mut unnamed: Vec<(&RoomSender, &ClientStream)> = senders
        .iter()
        .flat_map(|sender| sender.streams.iter().map(move |stream| (sender, stream)))
        .collect();
    for section in &mut announced.sections {
        let earlier = before.sections.iter().find(|earlier| earlier.index == section.index);
        let earlier = earlier.and_then(|earlier| earlier.sender.as_ref());
        let kind = kind_of(section);
        section.sender = earlier.and_then(|earlier| {
            take(&mut unnamed, |sender, stream| {
                sender.id == earlier.stream && Some(stream.kind) == kind
            })
        });
    }
    let several = |kind: StreamKind| {
        let of_kind = unnamed.iter().filter(|(_, stream)| stream.kind == kind);
        of_kind.map(|(sender, _)| &sender.id).collect::<BTreeSet<_>>().len() > 1
    };
    let unknown: Vec<StreamKind> =
        StreamKind::ALL.iter().copied().filter(|kind| !keeps_ssrc && several(*kind)).collect();
    unnamed.retain(|(_, stream)| !unknown.contains(&stream.kind));
    for section in announced.sections.iter_mut().filter(|section| section.sender.is_none()) {
        let kind = kind_of(section);
        section.sender = take(&mut unnamed, |_, stream| Some(stream.kind) == kind);
    }
}

fn take(
    unnamed: &mut Vec<(&RoomSender, &ClientStream)>,
    is_wanted: impl Fn(&RoomSender, &ClientStream) -> bool,
) -> Option<AnnouncedSender> {
    let place = unnamed.iter().position(|(sender, stream)| is_wanted(sender, stream))?;
    let (sender, stream) = unnamed.remove(place);
    Some(AnnouncedSender { stream: Arc::clone(&sender.id), ssrcs: stream.ssrcs.clone() })
}

/// A stream that a session sends to its room, for an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoomStream {
    /// The number of the session.
    pub session: SessionId,
    /// The name of the room.
    pub room: Arc<str>,
    /// The label `participant` of the session's offer.
    pub participant: Option<Arc<str>>,
    /// Voice or pictures.
    pub kind: StreamKind,
    /// The id of the stream in answers.
    pub id: Arc<str>,
}

/// The streams of a session that has this description, one for each kind.
pub(crate) fn described_streams(
    session: SessionId,
    room: &Arc<str>,
    labels: &Labels,
    streams: &[ClientStream],
) -> Vec<RoomStream> {
    let kinds: BTreeSet<StreamKind> = streams.iter().map(|stream| stream.kind).collect();
    let participant = participant(labels);
    let id: Arc<str> = stream_id(session, participant).into();
    let stream = |kind| RoomStream {
        session,
        room: Arc::clone(room),
        participant: participant.map(Arc::from),
        kind,
        id: Arc::clone(&id),
    };
    kinds.into_iter().map(stream).collect()
}

#[cfg(test)]
mod tests;
