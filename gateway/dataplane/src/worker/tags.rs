//! Tags of trunk legs: each says where its session is found, and is a secret of it all the same.

use evenkeel_core::{Hop, NodeId};
use evenkeel_media::trunk::Tag;

use super::session::Session;
use super::sessions::Sessions;

/// Bits that are drawn. The 24 above them name a session's slot at its worker: 16 million, more than a gateway may hold.
const DRAWN_BITS: u32 = 40;

/// A tag for a leg of the session in this slot.
pub fn tag(slot: u32, drawn: u64) -> Tag {
    Tag(u64::from(slot) << DRAWN_BITS | drawn & ((1 << DRAWN_BITS) - 1))
}

/// Lends the session with a leg to the node that has this tag, and says at which hop. Whoever had the slot before had
/// other tags.
pub(super) fn lend<T>(
    sessions: &mut Sessions,
    node: NodeId,
    tag: Tag,
    act: impl FnOnce(&mut Session, Hop) -> T,
) -> Option<T> {
    let lent = sessions.lend_slot((tag.0 >> DRAWN_BITS) as u32, |session| {
        let hop = session.hop_of(tag).filter(|hop| hop.node == node)?;
        Some(act(session, hop))
    });
    lent.flatten()
}

#[cfg(test)]
mod tests {
    use evenkeel_core::{Incarnation, Srtp};

    use super::*;
    use crate::worker::session::tests::install;
    use crate::worker::{Client, Leg};

    fn hop(node: u32) -> Hop {
        Hop { node: NodeId(node), incarnation: Incarnation(1) }
    }

    fn session(slot: u32, tags: &[(u32, Tag)]) -> Session {
        let mut session = Session::new(install(Client::Stun, Srtp::Plain, slot));
        tags.iter().for_each(|&(node, tag)| session.attach(hop(node), Leg::Trunk(tag)));
        session
    }

    #[test]
    fn a_tag_leads_to_its_session_and_hop_from_its_own_node_only() {
        let tags = [tag(1, 77), tag(1, 78)];
        let mut sessions = Sessions::default();
        sessions.put(session(1, &[(0, tags[0]), (1, tags[1])]));
        let mut at =
            |node, tag| lend(&mut sessions, NodeId(node), tag, |s, hop| (s.home.slot, hop));
        assert_eq!([at(0, tags[0]), at(1, tags[1])], [Some((1, hop(0))), Some((1, hop(1)))]);
        assert_eq!(at(1, tags[0]), None, "another node");
        assert_eq!(at(0, tag(1, 79)), None, "guessed");
        assert_eq!([at(0, tag(0, 77)), at(0, tag(2, 77))], [None, None], "nobody is there");
    }

    #[test]
    fn a_tag_does_not_outlive_its_leg_nor_its_session() {
        let (old, new) = (tag(0, 1 << 40 | 1), tag(0, 2));
        let mut sessions = Sessions::default();
        sessions.put(session(0, &[(0, old)]));
        let there = |sessions: &mut _, tag| lend(sessions, NodeId(0), tag, |_, hop| hop);
        assert_eq!(there(&mut sessions, old), Some(hop(0)));
        sessions.lend_slot(0, |session| session.attach(hop(0), Leg::Trunk(new)));
        assert_eq!([old, new].map(|tag| there(&mut sessions, tag)), [None, Some(hop(0))]);
        sessions.put(session(0, &[]));
        assert_eq!(there(&mut sessions, new), None, "the slot is another's");
    }
}
