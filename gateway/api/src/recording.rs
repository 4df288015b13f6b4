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
use evenkeel_policies::{Export, ExportOptions, PolicyRecorder};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::context::ApiState;
use super::error::{ApiError, ApiErrorCode};
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecordingQuery {
    /// Records this long from now on.
    seconds: Option<u64>,
    /// Returns the calls that the recorder has kept.
    #[serde(default)]
    last: bool,
    #[serde(default)]
    addresses: bool,
    policy: Option<String>,
}

enum RecordingSpan {
    Past,
    Next(Duration),
}

impl RecordingQuery {
    fn read(self) -> Result<(RecordingSpan, ExportOptions), ApiError> {
        let span = match (self.seconds, self.last) {
            (None, true) => RecordingSpan::Past,
            (Some(seconds), false) if (1..=SECONDS_MAX).contains(&seconds) => {
                RecordingSpan::Next(Duration::from_secs(seconds))
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
        let policy = self.policy.map(|name| match name.split_once('/') {
            Some((set, hook)) => policy_name(set, hook),
            None => {
                let message = format!("found `{name}`, expected a policy such as `call/routing`");
                Err(ApiError::field("policy", message))
            }
        });
        Ok((span, ExportOptions { addresses: self.addresses, policy: policy.transpose()? }))
    }
}

pub(super) async fn record(
    State(shared): ApiState,
    query: Result<Query<RecordingQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(asked) =
        query.map_err(|error| ApiError::new(ApiErrorCode::BadRequest, error.body_text()))?;
    let (span, wish) = asked.read()?;
    let place = Arc::clone(&PLACES).try_acquire_owned().map_err(|_| {
        let message = format!("{RECORDINGS_MAX} recordings are running, which is the limit");
        ApiError::new(ApiErrorCode::Unavailable, message).retry_after(Duration::from_secs(10))
    })?;
    let recorder = shared.ask("", shared.handle.recorder()).await?;
    let gone = || ApiError::new(ApiErrorCode::Unavailable, "this gateway records no policy calls");
    let recorder = recorder.ok_or_else(gone)?;
    let export = Export::new(recorder.header(wish.addresses), wish);
    let (pieces, body) = mpsc::channel(PIECES_MAX);
    match span {
        RecordingSpan::Past => {
            let past = recorder.past().await.ok_or_else(gone)?;
            tokio::spawn(send_past(past, export, pieces, place));
        }
        RecordingSpan::Next(within) => {
            tokio::spawn(send_next(recorder, within, export, pieces, place));
        }
    }
    let kind = [(CONTENT_TYPE, "application/vnd.evenkeel.recording")];
    let body = Body::from_stream(ReceiverStream::new(body).map(Ok::<Bytes, Infallible>));
    Ok((kind, body).into_response())
}

/// The chunks of one recording for a connection that may close.
struct Pieces {
    export: Export,
    out: mpsc::Sender<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl Pieces {
    async fn begin(
        export: Export,
        out: mpsc::Sender<Bytes>,
        place: OwnedSemaphorePermit,
    ) -> Option<Pieces> {
        out.send(export.head().into()).await.ok()?;
        Some(Pieces { export, out, _place: place })
    }

    async fn pass(self, missed: u64, chunk: Arc<[u8]>) -> Option<Pieces> {
        let Pieces { mut export, out, _place } = self;
        let passing = tokio::task::spawn_blocking(move || {
            let bytes = export.pass(missed, &chunk);
            (export, bytes)
        });
        let (export, bytes) = passing.await.ok()?;
        if !bytes.is_empty() {
            out.send(bytes.into()).await.ok()?;
        }
        Some(Pieces { export, out, _place })
    }

    async fn end(self) -> Option<()> {
        self.out.send(self.export.tail().into()).await.ok()
    }
}

async fn send_past(
    past: Vec<Arc<[u8]>>,
    export: Export,
    out: mpsc::Sender<Bytes>,
    place: OwnedSemaphorePermit,
) -> Option<()> {
    let mut pieces = Pieces::begin(export, out, place).await?;
    for chunk in past {
        pieces = pieces.pass(0, chunk).await?;
    }
    pieces.end().await
}

async fn send_next(
    recorder: PolicyRecorder,
    within: Duration,
    export: Export,
    out: mpsc::Sender<Bytes>,
    place: OwnedSemaphorePermit,
) -> Option<()> {
    let mut listener = recorder.listen().await?;
    let until = Instant::now() + within;
    let mut pieces = Pieces::begin(export, out, place).await?;
    let mut leaving = false;
    loop {
        let chunk = tokio::select! {
            biased;
            () = tokio::time::sleep_until(until), if !leaving => {
                leaving = true;
                listener.leave().await;
                continue;
            }
            chunk = listener.next() => chunk,
        };
        match chunk {
            Some(chunk) => pieces = pieces.pass(listener.take_missed(), chunk).await?,
            None => return pieces.end().await,
        }
    }
}
