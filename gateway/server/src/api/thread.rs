//! The API's thread: start, authentication, shutdown.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::error::{Code, Error};
use super::listener::{Bounded, Socket};
use super::notice::Notices;
use super::routes::{Shared, router};
use super::tcp::{self, Connection};
use crate::control::{Handle, TokensRefused};
use crate::settings::Admin;
use crate::sha256;

/// Maximum connections on the Unix socket, including event listeners. Further connections wait.
const CONNECTIONS_MAX: usize = 1_024;

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(
        "another gateway, or another process, listens at {}; end it, or name another path by `socket` in [admin]",
        .path.display()
    )]
    Occupied { path: PathBuf },
    #[error("cannot listen for the API at {}: {error}", .path.display())]
    Socket { path: PathBuf, error: io::Error },
    #[error("cannot listen for the API on {address}: {error}")]
    Tcp { address: SocketAddr, error: io::Error },
    /// The system provided no thread, or no descriptor for the event loop.
    #[error("cannot start the API's thread: {0}")]
    Thread(io::Error),
}

/// The running API; it ends when dropped.
#[derive(Debug)]
pub struct Thread {
    /// The TCP address, if TCP is configured.
    pub address: Option<SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The API's sockets, and the event loop that will serve them.
pub struct Bound {
    settings: Admin,
    listening: Listening,
    runtime: Runtime,
}

/// Binds the API's sockets. A client that connects waits until they are served.
pub fn bind(settings: Admin) -> Result<Bound, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::Thread)?;
    let listening = runtime.block_on(listen(&settings))?;
    Ok(Bound { settings, listening, runtime })
}

/// Starts the API on its own thread; see [`Bound::serve`].
pub fn start(
    settings: Admin,
    handle: Handle,
    metrics: Box<dyn Fn() -> String + Send + Sync>,
) -> Result<Thread, Failure> {
    bind(settings)?.serve(handle, metrics)
}

impl Bound {
    /// Serves the API on its own thread. `metrics` renders `/metrics`. The API must start before the first session,
    /// because notices take room names from earlier events.
    pub fn serve(
        self,
        handle: Handle,
        metrics: Box<dyn Fn() -> String + Send + Sync>,
    ) -> Result<Thread, Failure> {
        let Bound { settings, listening, runtime } = self;
        let (stop, stopped) = oneshot::channel();
        let address = listening.address;
        let (events, notices) = (handle.events(), Notices::new(handle.names()));
        let shared = Arc::new(Shared::new(handle, metrics, settings.drills));
        let served = async move {
            let publishing = Arc::clone(&shared);
            tokio::spawn(async move { publishing.feed.follow(events, notices).await });
            serve(listening, settings, &shared, stopped).await;
        };
        let thread = std::thread::Builder::new().name("evenkeel-api".into());
        let thread = thread.spawn(move || runtime.block_on(served)).map_err(Failure::Thread)?;
        Ok(Thread { address, stop: Some(stop), thread: Some(thread) })
    }
}

impl Thread {
    /// Ends the API at once; event streams end.
    pub fn shut_down(mut self) {
        self.end();
    }

    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The panic was reported already.
            let _ = thread.join();
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.end();
    }
}

struct Listening {
    socket: Socket,
    tcp: Option<TcpListener>,
    address: Option<SocketAddr>,
}

async fn listen(settings: &Admin) -> Result<Listening, Failure> {
    let path = &settings.socket;
    let socket = Socket::bind(path).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Failure::Occupied { path: path.clone() },
        _ => Failure::Socket { path: path.clone(), error },
    })?;
    let Some(tcp) = &settings.tcp else {
        return Ok(Listening { socket, tcp: None, address: None });
    };
    let failed = |error| Failure::Tcp { address: tcp.address, error };
    let listener = TcpListener::bind(tcp.address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok(Listening { socket, tcp: Some(listener), address: Some(address) })
}

async fn serve(
    listening: Listening,
    settings: Admin,
    shared: &Arc<Shared>,
    stopped: oneshot::Receiver<()>,
) {
    let Socket { listener, file: _file } = listening.socket;
    let bounded = Bounded::new(listener, CONNECTIONS_MAX);
    // Both tasks run until this function returns and the runtime ends.
    let local = tokio::spawn(axum::serve(bounded, router(Arc::clone(shared))).into_future());
    if let (Some(listener), Some(tcp)) = (listening.tcp, settings.tcp) {
        let refused = Arc::clone(&shared.handle.tokens_refused);
        let guard = Arc::new(Guard { token_sha256: sha256(tcp.token.bytes()), refused });
        let guarded =
            router(Arc::clone(shared)).layer(middleware::from_fn_with_state(guard, require_token));
        tokio::spawn(tcp::serve(listener, guarded));
    }
    tokio::select! {
        _ = stopped => {}
        () = shared.closing.notified() => tracing::warn!("API closed by a drill"),
        _ = local => {}
    }
}

struct Guard {
    token_sha256: [u8; 32],
    refused: Arc<TokensRefused>,
}

async fn require_token(
    State(guard): State<Arc<Guard>>,
    Extension(connection): Extension<Arc<Connection>>,
    request: Request,
    next: Next,
) -> Response {
    let token = bearer(request.headers());
    let message = "expected the header `authorization: Bearer` with the token of `token_file`";
    // The time to compare digests reveals nothing about the token.
    let known = if token.is_some_and(|token| sha256(token.as_bytes()) == guard.token_sha256) {
        connection.trust()
    } else {
        guard.refused.count(token.is_none());
        Err(Error::new(Code::Unauthorized, message))
    };
    match known {
        Ok(()) => next.run(request).await,
        // Frees the connection for the next client.
        Err(refused) => ([(header::CONNECTION, "close")], refused).into_response(),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = given.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}
