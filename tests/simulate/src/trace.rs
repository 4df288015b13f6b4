//! What happens, for people to read.

use std::time::Instant;

use evenkeel_core::{Event, Hop};

/// Says what happens while a world plays, or says nothing.
#[derive(Default)]
pub(crate) struct Trace {
    began: Option<Instant>,
}

impl Trace {
    pub(crate) fn spoken(began: Instant) -> Trace {
        Trace { began: Some(began) }
    }

    pub(crate) fn say(&self, now: Instant, words: impl FnOnce() -> String) {
        if let Some(began) = self.began {
            println!("{:10.6} {}", (now - began).as_secs_f64(), words());
        }
    }

    pub(crate) fn event(&self, now: Instant, event: &Event) {
        match event {
            Event::Decided { .. } | Event::Degraded { .. } => {}
            Event::Node { hop, from, to, witnesses, rooms, .. } => self.say(now, || {
                let words: Vec<&str> =
                    witnesses.iter().map(|(witness, _)| witness.name()).collect();
                format!("{} {} -> {} by {words:?}, {rooms} rooms", at(hop), from.name(), to.name())
            }),
            Event::Moved { room, sessions, cause, by, from, to, .. } => self.say(now, || {
                let to = to.as_ref().map_or("nowhere".to_owned(), at);
                let from = at(from);
                format!(
                    "room {room} ({} sessions) {from} -> {to} for {}, by {by}",
                    sessions.len(),
                    cause.name()
                )
            }),
            Event::Opened { session, room, hop, .. } => {
                self.say(now, || format!("{session} of {room} is live at {}", at(hop)));
            }
            other => self.say(now, || format!("{other:?}")),
        }
    }
}

fn at(hop: &Hop) -> String {
    format!("{}/{}", hop.node, hop.incarnation)
}
