//! Advice to the users of WebRTC clients: server-sent events (WHATWG HTML, section 9.2) at the URLs of their sessions.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use evenkeel_contract::errors::ErrorCode;
use evenkeel_contract::events::{AdviceChanged, EventData};
use evenkeel_contract::sessions::Advice;
use evenkeel_control::{EventRecord, GatewayEvent};
use evenkeel_model::{AdviceKind, CoreEvent, SessionId};
use evenkeel_process::lock;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::WatchStream;

use super::answers;
use super::error::ApiError;
use super::event_feed::COMMENT_EVERY;

/// Half of the connections of clients that have proved a credential: offers need the others.
const STREAMS_MAX: usize = 1_024;

/// The streams that are open, at most one of each session.
#[derive(Default)]
pub(super) struct AdviceFeed(Mutex<OpenStreams>);

#[derive(Default)]
struct OpenStreams {
    by_session: BTreeMap<SessionId, OpenStream>,
    opened: u64,
}

struct OpenStream {
    number: u64,
    /// `None` until the first advice is known. A stream that is slow gets the newest.
    advice: watch::Sender<Option<Advice>>,
}

impl AdviceFeed {
    /// Follows a session. Its stream before this one ends.
    pub(super) fn follow(self: &Arc<Self>, session: SessionId) -> Result<AdviceStream, ApiError> {
        let mut streams = lock(&self.0);
        let OpenStreams { by_session, opened } = &mut *streams;
        if by_session.len() >= STREAMS_MAX && !by_session.contains_key(&session) {
            let message = format!("{STREAMS_MAX} sessions are followed, which is the limit");
            let full = ApiError::new(ErrorCode::Unavailable, message);
            return Err(full.retry_after(COMMENT_EVERY));
        }
        *opened += 1;
        let (sender, advice) = watch::channel(None);
        by_session.insert(session, OpenStream { number: *opened, advice: sender });
        Ok(AdviceStream { feed: Arc::clone(self), session, number: *opened, advice })
    }

    /// Sends new advice to the streams, until control ends.
    pub(super) async fn follow_events(
        self: Arc<Self>,
        mut events: broadcast::Receiver<Arc<EventRecord>>,
    ) {
        loop {
            match events.recv().await {
                Ok(record) => {
                    if let GatewayEvent::Core(event) = &record.event {
                        self.note_event(event);
                    }
                }
                // Clients connect again, and read the advice that holds.
                Err(RecvError::Lagged(_)) => lock(&self.0).by_session.clear(),
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn note_event(&self, event: &CoreEvent) {
        match event {
            CoreEvent::Advised { session, advice, .. } => {
                if let Some(stream) = lock(&self.0).by_session.get(session) {
                    stream.advice.send_replace(Some(answers::advice(*advice)));
                }
            }
            CoreEvent::Closed { session, .. } => _ = lock(&self.0).by_session.remove(session),
            _ => {}
        }
    }
}

/// The stream of a session's advice.
pub(super) struct AdviceStream {
    feed: Arc<AdviceFeed>,
    session: SessionId,
    number: u64,
    advice: watch::Receiver<Option<Advice>>,
}

impl AdviceStream {
    /// Begins with the advice that holds, or with `restored`, unless a newer one came meanwhile.
    pub(super) fn begin(&self, holds: Option<Advice>) {
        let restored = || Advice { advice: AdviceKind::Restored.name().into(), cause: None };
        let streams = lock(&self.feed.0);
        let own = streams.by_session.get(&self.session).filter(|it| it.number == self.number);
        if let Some(stream) = own {
            stream.advice.send_if_modified(|advice| {
                let is_first = advice.is_none();
                advice.get_or_insert(holds.unwrap_or_else(restored));
                is_first
            });
        }
    }

    pub(super) fn answer(self) -> Response {
        let events = WatchStream::new(self.advice.clone()).filter_map(move |advice| {
            // The place is free once the events are dropped.
            let _: &AdviceStream = &self;
            let data = serde_json::to_string(&advice?).expect("words");
            Some(Ok::<_, Infallible>(Event::default().event(AdviceChanged::NAME).data(data)))
        });
        Sse::new(events).keep_alive(KeepAlive::new().interval(COMMENT_EVERY)).into_response()
    }
}

impl Drop for AdviceStream {
    fn drop(&mut self) {
        let mut streams = lock(&self.feed.0);
        if streams.by_session.get(&self.session).is_some_and(|it| it.number == self.number) {
            streams.by_session.remove(&self.session);
        }
    }
}
