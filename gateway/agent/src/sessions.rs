//! Sessions whose trunk legs end here: leases that gateways renew.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use evenkeel_media::trunk::Tag;

/// A session's place, for its life.
pub(crate) type Place = u32;

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) tag: Tag,
    pub(crate) room: u64,
    /// Where its packets go: where the last message or bundle about it came from.
    pub(crate) reply_to: SocketAddr,
    pub(crate) expires: Instant,
    /// Until the server took it: the nonce of the last question to open it.
    pub(crate) awaited: Option<u64>,
}

/// All of them, by place and by tag.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    places: Vec<Option<Session>>,
    free: Vec<Place>,
    by_tag: HashMap<Tag, Place>,
}

impl Sessions {
    pub(crate) fn len(&self) -> usize {
        self.by_tag.len()
    }

    pub(crate) fn begin(&mut self, session: Session) -> Place {
        let tag = session.tag;
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() as Place - 1
        });
        self.places[place as usize] = Some(session);
        self.by_tag.insert(tag, place);
        place
    }

    pub(crate) fn end(&mut self, place: Place) -> Option<Session> {
        let session = self.places.get_mut(place as usize)?.take()?;
        self.by_tag.remove(&session.tag);
        self.free.push(place);
        Some(session)
    }

    pub(crate) fn place(&self, tag: Tag) -> Option<Place> {
        self.by_tag.get(&tag).copied()
    }

    pub(crate) fn at(&mut self, place: Place) -> Option<&mut Session> {
        self.places.get_mut(place as usize)?.as_mut()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (Place, &Session)> {
        (0..).zip(&self.places).filter_map(|(place, session)| Some((place, session.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_free_is_taken_again_and_the_tag_before_is_forgotten() {
        let mut sessions = Sessions::default();
        let session = |tag| Session {
            tag: Tag(tag),
            room: 1,
            reply_to: ([192, 0, 2, 1], 9).into(),
            expires: Instant::now(),
            awaited: None,
        };
        let places = [1, 2].map(|tag| sessions.begin(session(tag)));
        assert_ne!(places[0], places[1]);
        assert_eq!(sessions.end(places[0]).unwrap().tag, Tag(1));
        assert!(sessions.end(places[0]).is_none());
        assert_eq!(sessions.begin(session(3)), places[0]);
        assert_eq!((sessions.place(Tag(1)), sessions.place(Tag(3))), (None, Some(places[0])));
        assert_eq!((sessions.len(), sessions.all().count()), (2, 2));
    }
}
