//! The sessions at home at a worker, by slot. They are lent, one at a time, so that it is known whose packet it was where
//! handling one ends in a panic.

use super::session::Session;
use crate::flows::Home;

#[derive(Default)]
pub(super) struct Sessions {
    slots: Vec<Option<Box<Session>>>,
    /// Who is lent. Only a panic leaves somebody here.
    lent: Option<u32>,
}

impl Sessions {
    /// Lends the session at home here, if it is still the same.
    pub(super) fn lend<T>(&mut self, home: Home, act: impl FnOnce(&mut Session) -> T) -> Option<T> {
        self.lend_if(home.slot, |session| session.home == home, act)
    }

    /// Lends whoever has this slot.
    pub(super) fn lend_slot<T>(
        &mut self,
        slot: u32,
        act: impl FnOnce(&mut Session) -> T,
    ) -> Option<T> {
        self.lend_if(slot, |_| true, act)
    }

    fn lend_if<T>(
        &mut self,
        slot: u32,
        is_it: impl FnOnce(&Session) -> bool,
        act: impl FnOnce(&mut Session) -> T,
    ) -> Option<T> {
        let session = self.slots.get_mut(slot as usize)?.as_deref_mut()?;
        if !is_it(session) {
            return None;
        }
        self.lent = Some(slot);
        let done = act(session);
        self.lent = None;
        Some(done)
    }

    /// Whether it is there, and still the same.
    pub(super) fn has(&self, home: Home) -> bool {
        let session = self.slots.get(home.slot as usize).and_then(Option::as_deref);
        session.is_some_and(|session| session.home == home)
    }

    /// It has its slot from now on.
    pub(super) fn put(&mut self, session: Session) {
        let place = session.home.slot as usize;
        if self.slots.len() <= place {
            self.slots.resize_with(place + 1, || None);
        }
        self.slots[place] = Some(Box::new(session));
    }

    /// Nobody has its slot any more.
    pub(super) fn remove(&mut self, home: Home) -> Option<Box<Session>> {
        if self.has(home) { self.slots[home.slot as usize].take() } else { None }
    }

    /// After a panic: whoever was lent, and is not lent again.
    pub(super) fn remove_lent(&mut self) -> Option<Box<Session>> {
        self.slots[self.lent.take()? as usize].take()
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use evenkeel_core::Srtp;

    use super::*;
    use crate::worker::Client;
    use crate::worker::session::tests::install;

    fn three() -> Sessions {
        let mut sessions = Sessions::default();
        (0..3)
            .for_each(|slot| sessions.put(Session::new(install(Client::Stun, Srtp::Plain, slot))));
        sessions
    }

    fn home(slot: u32) -> Home {
        install(Client::Stun, Srtp::Plain, slot).home
    }

    #[test]
    fn a_slot_that_is_used_again_is_another_home() {
        let mut sessions = three();
        let before = Home { generation: home(1).generation - 1, ..home(1) };
        assert_eq!(sessions.lend(home(1), |session| session.home), Some(home(1)));
        assert_eq!(sessions.lend(before, |_| ()), None);
        assert!(sessions.has(home(1)) && !sessions.has(before));
        assert!(sessions.remove(before).is_none() && sessions.remove(home(1)).is_some());
        assert_eq!(sessions.lend_slot(1, |_| ()), None);
    }

    #[test]
    fn who_was_lent_in_a_panic_is_known_and_nobody_else_is() {
        let mut sessions = three();
        sessions.lend(home(0), |_| ());
        assert!(sessions.remove_lent().is_none(), "all went well");
        let panics = AssertUnwindSafe(|| sessions.lend::<()>(home(1), |_| panic!("oh")));
        catch_unwind(panics).unwrap_err();
        assert_eq!(sessions.remove_lent().map(|session| session.home), Some(home(1)));
        assert!(sessions.remove_lent().is_none(), "once");
        assert!(sessions.has(home(0)) && !sessions.has(home(1)) && sessions.has(home(2)));
    }
}
