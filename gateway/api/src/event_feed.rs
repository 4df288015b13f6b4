//! The stream of `GET /v1/events`: server-sent events (WHATWG HTML, section 9.2).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, KeepAliveStream, Sse};
use evenkeel_contract::errors::ErrorCode;
use evenkeel_control::EventRecord;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::{Stream, StreamExt};

use super::change_log::ChangeLog;
use super::error::ApiError;
use super::events::{EventNotice, NoticeWriter, missing};
use super::failure_log::FailureLog;

const LISTENERS_MAX: usize = 64;
/// Notices that a listener may lag behind, enough for the failure of a region with thousands of rooms.
const NOTICES_MAX: usize = 16_384;
/// Interval of comments, because proxies close silent connections.
pub(super) const COMMENT_EVERY: Duration = Duration::from_secs(15);

#[derive(Clone)]
pub(super) struct EventFeed {
    notices: broadcast::Sender<Arc<EventNotice>>,
    places: Arc<Semaphore>,
}

impl Default for EventFeed {
    fn default() -> Self {
        let (notices, _) = broadcast::channel(NOTICES_MAX);
        EventFeed { notices, places: Arc::new(Semaphore::new(LISTENERS_MAX)) }
    }
}

impl EventFeed {
    pub(super) fn publish(&self, notice: EventNotice) {
        // Fails only without listeners.
        let _ = self.notices.send(Arc::new(notice));
    }

    /// Publishes control's events until control ends. Each event is serialised once for all listeners.
    pub(super) async fn follow(
        self,
        mut events: broadcast::Receiver<Arc<EventRecord>>,
        mut notices: NoticeWriter,
        changes: Arc<ChangeLog>,
        failures: Arc<FailureLog>,
    ) {
        loop {
            match events.recv().await {
                Ok(record) => {
                    failures.note_event(&record);
                    if let Some(notice) = notices.notice(&record) {
                        changes.note_event(notice.name, &notice.data);
                        self.publish(notice);
                    }
                }
                Err(RecvError::Lagged(missed)) => self.publish(missing(missed)),
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// The stream of one listener. A listener that is too slow gets `missed` with the number of lost notices, and
    /// continues.
    pub(super) fn listen(
        &self,
    ) -> Result<Sse<KeepAliveStream<impl Stream<Item = Result<Event, Infallible>> + use<>>>, ApiError>
    {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let message = format!("{LISTENERS_MAX} listeners are connected, which is the limit");
            ApiError::new(ErrorCode::Unavailable, message).retry_after(COMMENT_EVERY)
        })?;
        let stream = BroadcastStream::new(self.notices.subscribe()).map(move |notice| {
            // The permit is released when the stream is dropped.
            let _: &OwnedSemaphorePermit = &place;
            let notice = notice.unwrap_or_else(|BroadcastStreamRecvError::Lagged(missed)| {
                Arc::new(missing(missed))
            });
            Ok(Event::default().event(notice.name).data(&notice.data))
        });
        Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(COMMENT_EVERY)))
    }
}
