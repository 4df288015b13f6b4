//! `GET /v1/recording`: questions to policies and their answers, streamed as a file.

use std::convert::Infallible;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use evenkeel_contract::errors::ErrorCode;
use evenkeel_contract::policies::RecordingQuery;
use evenkeel_policies::{ChunkListener, Export, ExportOptions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::context::ApiState;
use super::error::ApiError;
use super::request::policy_name;

/// Maximum concurrent recordings. Each one decompresses and compresses on separate threads.
const RECORDINGS_MAX: usize = 4;
/// Maximum duration of a recording.
const SECONDS_MAX: u64 = 600;
/// Maximum chunks that wait for the connection. The recorder has a separate queue.
const PIECES_MAX: usize = 4;

/// The limit is per process, because it bounds the load on the machine.
static PLACES: LazyLock<Arc<Semaphore>> =
    LazyLock::new(|| Arc::new(Semaphore::new(RECORDINGS_MAX)));

/// The time to record from now on, `None` for the past, and what is recorded.
fn read(query: RecordingQuery) -> Result<(Option<Duration>, ExportOptions), ApiError> {
    let RecordingQuery { seconds, last, addresses, policy } = query;
    let next = match (seconds, last) {
        (None, true) => None,
        (Some(seconds), false) if (1..=SECONDS_MAX).contains(&seconds) => {
            Some(Duration::from_secs(seconds))
        }
        (Some(seconds), false) => {
            let message = format!("found {seconds}, expected 1 to {SECONDS_MAX}");
            return Err(ApiError::field("seconds", message));
        }
        (None, false) | (Some(_), true) => {
            let message = "expected either `seconds` (from now on) or `last=true` (the past)";
            return Err(ApiError::field("seconds", message));
        }
    };
    let policy = policy.map(|name| match name.split_once('/') {
        Some((set, hook)) => policy_name(set, hook),
        None => {
            let message = format!("found `{name}`, expected a policy such as `call/routing`");
            Err(ApiError::field("policy", message))
        }
    });
    Ok((next, ExportOptions { addresses, policy: policy.transpose()? }))
}

pub(super) async fn record(
    State(shared): ApiState,
    query: Result<Query<RecordingQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(asked) =
        query.map_err(|error| ApiError::new(ErrorCode::BadRequest, error.body_text()))?;
    let (next, wish) = read(asked)?;
    let place = Arc::clone(&PLACES).try_acquire_owned().map_err(|_| {
        let message = format!("{RECORDINGS_MAX} recordings are running, which is the limit");
        ApiError::new(ErrorCode::Unavailable, message).retry_after(Duration::from_secs(10))
    })?;
    let recorder = shared.ask("", shared.handle.recorder()).await?;
    let gone = || ApiError::new(ErrorCode::Unavailable, "this gateway records no policy calls");
    let recorder = recorder.ok_or_else(gone)?;
    let export = Export::new(recorder.header(wish.addresses), wish);
    let chunks = match next {
        None => recorder.kept_chunks().await.map(|past| RecordedChunks::Past(past.into_iter())),
        Some(within) => recorder.listen().await.map(|listener| RecordedChunks::Next {
            listener,
            until: Some(Instant::now() + within),
        }),
    };
    let (pieces, body) = mpsc::channel(PIECES_MAX);
    tokio::spawn(send(chunks.ok_or_else(gone)?, export, pieces, place));
    let kind = [(CONTENT_TYPE, "application/vnd.evenkeel.recording")];
    let body = Body::from_stream(ReceiverStream::new(body).map(Ok::<Bytes, Infallible>));
    Ok((kind, body).into_response())
}

enum RecordedChunks {
    Past(std::vec::IntoIter<Arc<[u8]>>),
    Next {
        listener: ChunkListener,
        /// `None` once the recorder was told to end.
        until: Option<Instant>,
    },
}

impl RecordedChunks {
    /// The next chunk, and the calls that were missed before it.
    async fn next(&mut self) -> Option<(u64, Arc<[u8]>)> {
        let (listener, until) = match self {
            RecordedChunks::Past(chunks) => return Some((0, chunks.next()?)),
            RecordedChunks::Next { listener, until } => (listener, until),
        };
        let ended = async {
            match *until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let chunk = tokio::select! {
            biased;
            () = ended => {
                *until = None;
                listener.leave().await;
                listener.next().await
            }
            chunk = listener.next() => chunk,
        };
        Some((listener.take_missed(), chunk?))
    }
}

/// Sends a recording to a connection that may close.
async fn send(
    mut chunks: RecordedChunks,
    mut export: Export,
    out: mpsc::Sender<Bytes>,
    _place: OwnedSemaphorePermit,
) -> Option<()> {
    out.send(export.head().into()).await.ok()?;
    while let Some((missed, chunk)) = chunks.next().await {
        let passing = tokio::task::spawn_blocking(move || {
            let bytes = export.pass(missed, &chunk);
            (export, bytes)
        });
        let bytes;
        (export, bytes) = passing.await.ok()?;
        if !bytes.is_empty() {
            out.send(bytes.into()).await.ok()?;
        }
    }
    out.send(export.tail().into()).await.ok()
}
