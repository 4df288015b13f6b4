//! How the API speaks to control: requests with a place for the answer, through a bounded queue.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_core::{Impossible, PolicyName, SessionId};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::error::{Code, Error};
use super::notice::Notice;
use super::offer::Wanted;
use super::refusal::Refusal;
use super::trace::Traceparent;
use super::view;

/// Requests that may wait for control. It takes them by the batch; more would only wait longer.
const REQUESTS_MAX: usize = 1_024;
/// Notices that a listener may be behind before it misses some: a region's death with thousands of rooms.
const NOTICES_MAX: usize = 16_384;
/// Drivers have 2 s to open a session; who has not answered by now is not going to.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// When to come again after the queue was full.
const BUSY: Duration = Duration::from_millis(200);

/// Where control puts its answer. Dropped unanswered, the caller hears that it is unavailable.
pub type Reply<T> = oneshot::Sender<T>;

/// What the API asks of control.
#[derive(Debug)]
pub enum Request {
    /// Open a session.
    Offer {
        /// What is wanted.
        wanted: Wanted,
        /// The caller's span, if it sent one.
        traceparent: Option<Traceparent>,
        /// Where the answer goes.
        reply: Reply<Result<view::Opened, Refusal>>,
    },
    /// End a session.
    Close {
        /// Which.
        session: SessionId,
        /// Where the answer goes.
        reply: Reply<Result<(), Impossible>>,
    },
    /// Show some sessions, in the order of their ids.
    Sessions {
        /// Those after this one.
        after: Option<SessionId>,
        /// At most so many.
        limit: usize,
        /// Where the answer goes.
        reply: Reply<view::Sessions>,
    },
    /// Show a session.
    Session {
        /// Which.
        session: SessionId,
        /// Where the answer goes.
        reply: Reply<Option<view::Session>>,
    },
    /// Show all rooms.
    Rooms {
        /// Where the answer goes.
        reply: Reply<Vec<view::Room>>,
    },
    /// Show all nodes.
    Nodes {
        /// Where the answer goes.
        reply: Reply<Vec<view::Node>>,
    },
    /// Show the gateway.
    Status {
        /// Where the answer goes.
        reply: Reply<view::Status>,
    },
    /// Show all policies.
    Policies {
        /// Where the answer goes.
        reply: Reply<Vec<view::Policy>>,
    },
    /// Have another plugin, or the same with other settings, answer for a policy.
    PushPolicy {
        /// Which.
        policy: PolicyName,
        /// The plugin: a component or a core module.
        bytes: Bytes,
        /// Its settings; `None`: those that stand.
        settings: Option<serde_json::Value>,
        /// Where the answer goes; `None`: there is no such policy.
        reply: Reply<Option<view::Rollout>>,
    },
    /// Have the previous revision answer again.
    RollbackPolicy {
        /// Of which policy.
        policy: PolicyName,
        /// Where the answer goes; `None`: there is no such policy.
        reply: Reply<Option<view::Rollout>>,
    },
    /// Move a room, make-before-break.
    MoveRoom {
        /// Which, by its name.
        room: Arc<str>,
        /// Where to, by the node's name.
        node: Box<str>,
        /// Where the answer goes.
        reply: Reply<Result<(), Impossible>>,
    },
    /// Have a node take no new rooms and let go of those it has, or take rooms again.
    DrainNode {
        /// Which, by its name.
        node: Box<str>,
        /// Which of both.
        drain: Drain,
        /// Where the answer goes.
        reply: Reply<Result<(), Impossible>>,
    },
}

/// Whether a node is to be drained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drain {
    /// It takes no new rooms, and those it has move.
    Begin,
    /// It takes rooms again.
    End,
}

/// Control, as the API sees it.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    notices: broadcast::Sender<Arc<Notice>>,
}

impl Handle {
    /// A handle, where its requests come out, and where notices go in.
    pub fn channel() -> (Handle, mpsc::Receiver<Request>, broadcast::Sender<Arc<Notice>>) {
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let (notices, _) = broadcast::channel(NOTICES_MAX);
        (Handle { requests, notices: notices.clone() }, receiver, notices)
    }

    /// What happens from now on.
    pub fn events(&self) -> broadcast::Receiver<Arc<Notice>> {
        self.notices.subscribe()
    }

    /// Asks control and waits for its answer, at most 5 s.
    ///
    /// # Errors
    ///
    /// [`Code::Unavailable`]: the queue is full, or control did not answer.
    pub async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.requests.try_send(request(reply)).map_err(|_| {
            Error::new(Code::Unavailable, "the gateway has more requests than it can take now")
                .retry_after(BUSY)
        })?;
        match tokio::time::timeout(ANSWER_WITHIN, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => {
                Err(Error::new(Code::Unavailable, "the gateway did not answer in time"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_not_waited_for_for_ever() {
        let (handle, mut requests, _notices) = Handle::channel();
        let began = tokio::time::Instant::now();
        let asking = handle.ask(|reply| Request::Nodes { reply });
        let (answer, request) = tokio::join!(asking, requests.recv());
        assert_eq!(answer.unwrap_err().code, Code::Unavailable);
        assert_eq!(began.elapsed(), ANSWER_WITHIN);
        drop(request);
    }

    #[tokio::test]
    async fn requests_that_find_no_room_are_told_to_come_again() {
        let (handle, requests, _notices) = Handle::channel();
        for _ in 0..REQUESTS_MAX {
            let (reply, _) = oneshot::channel();
            handle.requests.try_send(Request::Nodes { reply }).unwrap();
        }
        let error = handle.ask(|reply| Request::Nodes { reply }).await.unwrap_err();
        assert_eq!((error.code, error.retry_after), (Code::Unavailable, Some(BUSY)));
        drop(requests);
    }
}
