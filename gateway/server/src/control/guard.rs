//! The shrinking-list guard: an empty or shrunken list of nodes is no news that nodes are gone. It may as well be a file that
//! was cut off, or a discovery that failed; so more than some go only where a person says so.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Of the nodes, so many may go within [`WITHIN`], per cent.
const LIMIT_PERCENT: usize = 30;

/// What went within this counts together, or many small steps would be no step at all.
const WITHIN: Duration = Duration::from_secs(60);

/// Lists that came within this are one, so that little is kept however fast they come.
const TOGETHER: Duration = Duration::from_secs(1);

/// What went lately.
#[derive(Default, Debug)]
pub(super) struct Guard {
    lately: VecDeque<Taken>,
}

/// A list that was taken.
#[derive(Debug)]
struct Taken {
    at: Instant,
    /// Nodes there were before.
    of: usize,
    went: usize,
}

/// More nodes would go than may.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{removing} of {of} nodes would go{}, which is more than {LIMIT_PERCENT} % within a minute; nothing changed. Nodes that are missing from a list may be running all the same: where they are meant to go, say `evenkeel reload --force`",
    .before.checked_sub(1).map_or(String::new(), |_| format!(" after {before} that went already"))
)]
pub struct Shrinks {
    /// So many would go.
    pub removing: usize,
    /// So many went within the last minute.
    pub before: usize,
    /// Of so many that there were a minute ago.
    pub of: usize,
}

impl Guard {
    /// Whether so many of the nodes that are `known` may go.
    ///
    /// # Errors
    /// Where they are too many.
    pub(super) fn check(
        &mut self,
        removing: usize,
        known: usize,
        now: Instant,
    ) -> Result<(), Shrinks> {
        let lately = |taken: &Taken| now.saturating_duration_since(taken.at) < WITHIN;
        self.lately.retain(lately);
        let of = self.lately.front().map_or(known, |first| first.of);
        let before: usize = self.lately.iter().map(|taken| taken.went).sum();
        let shrinks = (before + removing) * 100 > of * LIMIT_PERCENT;
        if removing > 0 && shrinks { Err(Shrinks { removing, before, of }) } else { Ok(()) }
    }

    /// A list was taken, of which so many go. Where a person said so, counting begins anew.
    pub(super) fn note(&mut self, went: usize, known: usize, forced: bool, now: Instant) {
        if forced {
            self.lately.clear();
            return;
        }
        match self.lately.back_mut() {
            Some(last) if now.saturating_duration_since(last.at) < TOGETHER => last.went += went,
            _ => self.lately.push_back(Taken { at: now, of: known, went }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Takes a list if it may: of how many would go, how many are there.
    fn takes(guard: &mut Guard, removing: usize, known: usize, now: Instant) -> bool {
        let may = guard.check(removing, known, now).is_ok();
        if may {
            guard.note(removing, known, false, now);
        }
        may
    }

    #[test]
    fn up_to_thirty_per_cent_may_go_at_once() {
        let now = Instant::now();
        for (removing, known, may) in [
            (0, 0, true),
            (1, 3, false),
            (1, 4, true),
            (3, 10, true),
            (4, 10, false),
            (1, 1, false),
        ] {
            assert_eq!(
                takes(&mut Guard::default(), removing, known, now),
                may,
                "{removing}/{known}"
            );
        }
    }

    #[test]
    fn small_steps_within_a_minute_are_one() {
        let (mut guard, start) = (Guard::default(), Instant::now());
        assert!(takes(&mut guard, 2, 10, start));
        assert!(takes(&mut guard, 1, 8, start + 20 * SECOND));
        assert!(!takes(&mut guard, 1, 7, start + 40 * SECOND));
        assert!(!takes(&mut guard, 1, 7, start + 59 * SECOND), "what was refused does not count");
        assert!(takes(&mut guard, 1, 7, start + 61 * SECOND), "1 went lately, of 8");
        assert!(!takes(&mut guard, 1, 6, start + 62 * SECOND));
    }

    #[test]
    fn nodes_that_came_first_do_not_hide_that_others_go() {
        let (mut guard, start) = (Guard::default(), Instant::now());
        assert!(takes(&mut guard, 0, 4, start));
        assert!(!takes(&mut guard, 4, 104, start + SECOND));
        assert!(takes(&mut guard, 1, 104, start + SECOND));
    }

    #[test]
    fn what_a_person_wants_counts_no_more() {
        let (mut guard, start) = (Guard::default(), Instant::now());
        assert!(takes(&mut guard, 1, 4, start));
        guard.note(2, 3, true, start + SECOND);
        assert!(takes(&mut guard, 1, 8, start + 2 * SECOND));
    }

    #[test]
    fn however_fast_lists_come_little_is_kept() {
        let (mut guard, start) = (Guard::default(), Instant::now());
        for ms in 0..200_000 {
            let now = start + Duration::from_millis(ms);
            assert!(guard.check(0, 9, now).is_ok());
            guard.note(0, 9, false, now);
        }
        assert!(guard.lately.len() <= 61, "{}", guard.lately.len());
    }

    #[test]
    fn the_words_say_how_many_what_may_be_and_what_to_do() {
        let said = |before| Shrinks { removing: 2, before, of: 4 }.to_string();
        assert!(said(0).starts_with("2 of 4 nodes would go, which is more than 30 % within"));
        assert!(said(1).starts_with("2 of 4 nodes would go after 1 that went already, which"));
        assert!(said(0).ends_with("say `evenkeel reload --force`"));
    }
}
