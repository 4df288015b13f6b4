//! `GET /v1/events`: what happens, as server-sent events (WHATWG HTML, section 9.2).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::{Stream, StreamExt};

use super::error::{Code, Error};
use super::handle::Handle;
use super::notice::Notice;

/// Who may listen at a time; each may hold back as many notices as there is room for.
pub(super) const LISTENERS_MAX: usize = 64;
/// Proxies cut what is silent for longer.
const COMMENT_EVERY: Duration = Duration::from_secs(15);

pub(super) type Feed<S> = Sse<axum::response::sse::KeepAliveStream<S>>;

/// A listener's stream. A listener that is too slow gets `missed` with how many it missed, and goes on.
pub(super) fn listen(
    handle: &Handle,
    places: &Arc<Semaphore>,
) -> Result<Feed<impl Stream<Item = Result<Event, Infallible>> + use<>>, Error> {
    let place = Arc::clone(places).try_acquire_owned().map_err(|_| {
        let message = format!("{LISTENERS_MAX} listen already, which is as many as there may be");
        Error::new(Code::Unavailable, message).retry_after(COMMENT_EVERY)
    })?;
    let stream = BroadcastStream::new(handle.events()).map(move |notice| {
        // Freed with the stream.
        let _: &OwnedSemaphorePermit = &place;
        Ok(word(&notice))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(COMMENT_EVERY)))
}

fn word(notice: &Result<Arc<Notice>, BroadcastStreamRecvError>) -> Event {
    let (name, data) = match notice {
        Ok(notice) => (notice.name(), serde_json::to_string(&**notice)),
        Err(BroadcastStreamRecvError::Lagged(missed)) => {
            ("missed", serde_json::to_string(&serde_json::json!({ "notices": missed })))
        }
    };
    Event::default().event(name).data(data.expect("a notice is words and numbers"))
}
