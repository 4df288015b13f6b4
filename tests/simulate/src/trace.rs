//! The printed trace of a world.

use std::time::Instant;

use evenkeel_model::{CoreEvent, Hop};

/// Prints events, if enabled.
#[derive(Default)]
pub(crate) struct Trace {
    began: Option<Instant>,
}

impl Trace {
    pub(crate) fn printing(began: Instant) -> Trace {
        Trace { began: Some(began) }
    }

    pub(crate) fn say(&self, now: Instant, text: impl FnOnce() -> String) {
        if let Some(began) = self.began {
            println!("{:10.6} {}", (now - began).as_secs_f64(), text());
        }
    }

    pub(crate) fn event(&self, now: Instant, event: &CoreEvent) {
        match event {
            CoreEvent::Decided { .. } | CoreEvent::Degraded { .. } => {}
            CoreEvent::Node { hop, from, to, witnesses, rooms, .. } => self.say(now, || {
                let names: Vec<&str> =
                    witnesses.iter().map(|(witness, _)| witness.name()).collect();
                format!("{} {} -> {} by {names:?}, {rooms} rooms", at(hop), from.name(), to.name())
            }),
            CoreEvent::Moved { room, sessions, cause, by, from, to, .. } => self.say(now, || {
                let to = to.as_ref().map_or("nowhere".to_owned(), at);
                let from = at(from);
                format!(
                    "room {room} ({} sessions) {from} -> {to} for {}, by {by}",
                    sessions.len(),
                    cause.name()
                )
            }),
            CoreEvent::Opened { session, room, hop, .. } => {
                self.say(now, || format!("{session} of {room} is live at {}", at(hop)));
            }
            other => self.say(now, || format!("{other:?}")),
        }
    }
}

fn at(hop: &Hop) -> String {
    format!("{}/{}", hop.node, hop.incarnation)
}
