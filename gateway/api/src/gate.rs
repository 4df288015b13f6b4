//! Holds requests and connections back while the gateway is handed over to another process.

use std::io;

use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use tokio::sync::watch;

use super::error::{ApiError, ApiErrorCode};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Gate {
    Open,
    /// Requests wait, and connections in the kernel's queue.
    Paused,
    /// Another process serves. It accepts the connections that wait.
    Left,
}

/// Clones share the number of requests being answered.
#[derive(Clone, Debug)]
pub(super) struct Entrance {
    gate: watch::Receiver<Gate>,
    answering: watch::Sender<usize>,
}

impl Entrance {
    pub(super) fn at(gate: &watch::Sender<Gate>) -> Entrance {
        Entrance { gate: gate.subscribe(), answering: watch::Sender::default() }
    }

    pub(super) fn gate(&self) -> Gate {
        *self.gate.borrow()
    }

    /// Returns once the gate is open; never, if another process serves.
    pub(super) async fn opened(&mut self) {
        if self.gate.wait_for(|gate| *gate == Gate::Open).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns once no request is being answered.
    pub(super) async fn answered(&self) {
        // Fails only without a sender, which is here.
        let _ = self.answering.subscribe().wait_for(|answering| *answering == 0).await;
    }

    async fn closed(&mut self) {
        if self.gate.wait_for(|gate| *gate != Gate::Open).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// A request that is being answered.
struct Answering<'a>(&'a watch::Sender<usize>);

impl<'a> Answering<'a> {
    fn begin(answering: &'a watch::Sender<usize>) -> Answering<'a> {
        answering.send_modify(|answering| *answering += 1);
        Answering(answering)
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|answering| *answering -= 1);
    }
}

pub(super) async fn pass(
    State(entrance): State<Entrance>,
    request: Request,
    next: Next,
) -> Response {
    let Entrance { mut gate, answering } = entrance;
    let passed = gate.wait_for(|gate| *gate != Gate::Paused).await.map(|gate| *gate);
    let _answering = Answering::begin(&answering);
    match passed {
        Ok(Gate::Open) => next.run(request).await,
        Ok(Gate::Paused | Gate::Left) | Err(_) => {
            let message = "another process serves since an upgrade; connect and ask again";
            let refused = ApiError::new(ApiErrorCode::Unavailable, message)
                .retry_after(std::time::Duration::ZERO);
            ([(header::CONNECTION, "close")], refused).into_response()
        }
    }
}

/// Accepts connections while the gate is open.
pub(super) struct Gated<L> {
    listener: L,
    entrance: Entrance,
}

impl<L> Gated<L> {
    pub(super) fn new(listener: L, entrance: Entrance) -> Gated<L> {
        Gated { listener, entrance }
    }
}

impl<L: Listener> Listener for Gated<L> {
    type Io = L::Io;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            self.entrance.opened().await;
            tokio::select! {
                biased;
                () = self.entrance.closed() => {}
                accepted = self.listener.accept() => return accepted,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
