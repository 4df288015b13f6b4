//! POSTs of JSON to an operator's URL: bounded in time, size and number.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::client::{HttpAnswer, HttpClient, HttpError, WebhookMessage};

/// Maximum concurrent POSTs to a server: more would queue there. One that hangs delays those to no other server.
const AT_ONCE: usize = 32;

/// Maximum concurrent POSTs to all servers: each takes a descriptor.
const AT_ONCE_TO_ALL: usize = 512;

/// Maximum queued POSTs; further ones fail at once.
const WAITING_MAX: usize = 16_384;

/// Timeout of one attempt to open a session, since another attempt may reach a faster server.
const TRY_FOR: Duration = Duration::from_millis(800);

/// Pause before the second attempt; it doubles with each further one.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// The retry policy of a POST.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Total time.
    within: Duration,
    /// Timeout of one attempt.
    each: Duration,
    /// The POST ends when its caller stops waiting.
    cancels: bool,
}

impl Effort {
    /// For opening a session: short attempts, completed even if the gateway ends.
    pub fn of_session(within: Duration) -> Effort {
        Effort { within, each: TRY_FOR, cancels: false }
    }

    /// For starting a node: the server may answer once the node runs, so only connection errors are retried.
    pub fn of_start(within: Duration) -> Effort {
        Effort { within, each: within, cancels: true }
    }
}

struct WebhookJob {
    message: WebhookMessage,
    by: Instant,
    effort: Effort,
    reply: oneshot::Sender<Result<HttpAnswer, HttpError>>,
    /// One of [`WAITING_MAX`], until the POST has ended.
    place: OwnedSemaphorePermit,
}

/// POSTs on its own thread, so that name resolution and TLS handshakes delay nothing else.
#[derive(Clone, Debug)]
pub struct Poster {
    jobs: mpsc::UnboundedSender<WebhookJob>,
    places: Arc<Semaphore>,
}

impl Poster {
    /// Starts the thread; it ends when the last clone is dropped.
    pub fn start() -> std::io::Result<Poster> {
        let (jobs_in, jobs) = mpsc::unbounded_channel();
        let places = Arc::new(Semaphore::new(WAITING_MAX));
        let poster = Poster { jobs: jobs_in, places: Arc::clone(&places) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new()
            .name("webhooks".to_owned())
            .spawn(move || runtime.block_on(serve(jobs, places)))?;
        Ok(poster)
    }

    /// POSTs, with retries after connection errors, until there is an answer or the time is up.
    pub async fn post(
        &self,
        message: WebhookMessage,
        effort: Effort,
    ) -> Result<HttpAnswer, HttpError> {
        let (reply, answer) = oneshot::channel();
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| HttpError::Busy)?;
        let by = Instant::now() + effort.within;
        let job = WebhookJob { message, by, effort, reply, place };
        self.jobs.send(job).map_err(|_| HttpError::Busy)?;
        answer.await.unwrap_or(Err(HttpError::Busy))
    }
}

async fn serve(mut jobs: mpsc::UnboundedReceiver<WebhookJob>, places: Arc<Semaphore>) {
    let (all, client) = (Arc::new(Semaphore::new(AT_ONCE_TO_ALL)), Arc::new(HttpClient::default()));
    // As many as the configuration has named.
    let mut servers: BTreeMap<Box<str>, Arc<Semaphore>> = BTreeMap::new();
    while let Some(job) = jobs.recv().await {
        let server = servers.entry(job.message.hook.url.authority().into());
        let turns = server.or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE)));
        let (turns, all, client) = (Arc::clone(turns), Arc::clone(&all), Arc::clone(&client));
        tokio::spawn(async move {
            let WebhookJob { message, by, effort, mut reply, place: _place } = job;
            let posted = async {
                let turn = async { (turns.acquire().await, all.acquire().await) };
                match tokio::time::timeout_at(by, turn).await {
                    Ok(_turn) => post_until(&message, by, effort.each, &client).await,
                    Err(_late) => Err(HttpError::Late),
                }
            };
            let answer = tokio::select! {
                answer = posted => Some(answer),
                () = reply.closed(), if effort.cancels => None,
            };
            // The caller may have stopped waiting.
            answer.map(|answer| reply.send(answer));
        });
    }
    // All callers are gone. Queued POSTs are completed, each within its own time limit.
    let _ = places.acquire_many(WAITING_MAX as u32).await;
}

async fn post_until(
    message: &WebhookMessage,
    by: Instant,
    each: Duration,
    client: &HttpClient,
) -> Result<HttpAnswer, HttpError> {
    let (mut wait, mut last) = (AGAIN_AFTER, HttpError::Late);
    loop {
        let until = by.min(Instant::now() + each);
        match tokio::time::timeout_at(until, client.post(message)).await {
            // A proxy sends these statuses if it did not reach the server.
            Ok(Ok(answer)) if !matches!(answer.status, 502 | 504) => return Ok(answer),
            Ok(Ok(answer)) if Instant::now() + wait >= by => return Ok(answer),
            Ok(Ok(_)) => {}
            Ok(Err(failed @ (HttpError::TooLong(_) | HttpError::Name(_)))) => return Err(failed),
            Ok(Err(failed)) => last = failed,
            Err(_late) => {}
        }
        if Instant::now() + wait >= by {
            return Err(last);
        }
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
}

#[cfg(test)]
mod tests;
