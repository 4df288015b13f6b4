//! Interning of media and labels of offers, which are equal for clients of one kind.

use std::collections::VecDeque;
use std::sync::Arc;

use evenkeel_model::{Labels, MediaDescription};

use super::messages::OfferedSession;

/// Maximum entries; the oldest is replaced. This is enough for a few kinds of clients in a few regions.
const KINDS_MAX: usize = 32;

#[derive(Default, Debug)]
pub(super) struct RequestInterner {
    scenarios: Kinds<Arc<str>>,
    labels: Kinds<Labels>,
    media: Kinds<Arc<MediaDescription>>,
}

impl RequestInterner {
    /// Replaces parts of the request by equal shared values.
    pub(super) fn share(&mut self, wanted: OfferedSession) -> OfferedSession {
        OfferedSession {
            scenario: self.scenarios.share(wanted.scenario),
            labels: self.labels.share(wanted.labels),
            media: self.media.share(wanted.media),
            ..wanted
        }
    }

    pub(super) fn share_labels(&mut self, labels: Labels) -> Labels {
        self.labels.share(labels)
    }

    pub(super) fn share_media(&mut self, media: Arc<MediaDescription>) -> Arc<MediaDescription> {
        self.media.share(media)
    }
}

#[derive(Debug)]
struct Kinds<T>(VecDeque<T>);

impl<T> Default for Kinds<T> {
    fn default() -> Self {
        Kinds(VecDeque::new())
    }
}

impl<T: Clone + PartialEq> Kinds<T> {
    fn share(&mut self, one: T) -> T {
        if let Some(same) = self.0.iter().find(|kept| **kept == one) {
            return same.clone();
        }
        if self.0.len() == KINDS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(one.clone());
        one
    }
}

#[cfg(test)]
mod tests;
