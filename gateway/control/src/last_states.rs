//! The last states of sessions, as the workers of a gateway that stops its packets hand them out.

use std::time::Instant;

use evenkeel_dataplane::worker::{HandedOut, TrunkState};
use tokio::sync::mpsc;

use crate::messages::NotSuspended;
use crate::snapshot::{MediaRecord, MediaStates};
use crate::workers::WORKERS_WITHIN;

/// The last states of a gateway that stops its packets, as the workers hand them out.
#[derive(Debug)]
pub struct LastStates {
    parts: mpsc::Receiver<HandedOut>,
    /// Of each worker that has handed out its sessions.
    trunks: Vec<Option<Vec<TrunkState>>>,
    until: Instant,
}

/// A part of the last states.
#[derive(Debug)]
pub struct LastStatesPart {
    /// The states.
    pub states: MediaStates,
    /// No part follows.
    pub is_last: bool,
}

impl LastStates {
    /// The states that this number of workers hand out from now on.
    pub(crate) fn new(parts: mpsc::Receiver<HandedOut>, workers: usize) -> LastStates {
        let trunks = (0..workers).map(|_| None).collect();
        LastStates { parts, trunks, until: Instant::now() + WORKERS_WITHIN }
    }

    pub async fn next(&mut self) -> Result<LastStatesPart, NotSuspended> {
        loop {
            let part = tokio::time::timeout_at(self.until.into(), self.parts.recv()).await;
            match part.ok().flatten() {
                Some(HandedOut::Sessions(sessions)) => {
                    let record = |state| MediaRecord { state: Box::new(state), sockets: 0 };
                    let media = sessions.into_iter().map(record).collect();
                    let states = MediaStates { media, trunks: Vec::new() };
                    return Ok(LastStatesPart { states, is_last: false });
                }
                Some(HandedOut::Trunks { worker, trunks }) => {
                    self.trunks[usize::from(worker)] = Some(trunks);
                    if self.trunks.iter().all(Option::is_some) {
                        let trunks = self.trunks.drain(..).flatten().collect();
                        let states = MediaStates { media: Vec::new(), trunks };
                        return Ok(LastStatesPart { states, is_last: true });
                    }
                }
                None => {
                    let missing = self.trunks.iter().position(Option::is_none);
                    return Err(NotSuspended::Worker(missing.unwrap_or_default()));
                }
            }
        }
    }
}
