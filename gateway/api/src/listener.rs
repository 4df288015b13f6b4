//! The API's listeners: sockets that only the owner may use, bounds of connections, and a gate that holds requests and
//! connections back while the gateway is handed over to another process.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use evenkeel_config::AdminSettings;
use evenkeel_contract::errors::ErrorCode;
use evenkeel_model::SessionId;
use evenkeel_process::{descriptors, lock};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, SockAddr, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, RwLock, Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;

use super::error::{ApiError, replaced, without_tls};

/// A connection without an answer for this time is closed. The time is longer than a rollout on a slow machine, and
/// longer than the interval of comments to event listeners.
const UNANSWERED_MAX: Duration = Duration::from_secs(60);

/// Deadline of a request's header, from the accept or the answer before.
const HEADER_WITHIN: Duration = Duration::from_secs(5);

/// Bounds of the connections of a TCP listener.
#[derive(Clone, Copy)]
pub(super) struct ConnectionLimits {
    /// Connections that have proved no credential yet. A new connection is always accepted: the oldest of the source with the
    /// most connections gives way.
    strangers: usize,
    /// Such connections of one source. For one more, the oldest of the source is closed.
    pub(super) strangers_per_source: usize,
    trusted: TrustedLimits,
    /// A connection that would take a descriptor of the reserve, which operators need, is closed.
    leaves_reserve: bool,
}

/// Bounds of the connections that have proved a credential. For one more, the one that has been idle for longest gives way.
#[derive(Clone, Copy)]
struct TrustedLimits {
    places: usize,
    /// Connections of one source, which is another host.
    per_source: usize,
    /// Connections with one credential.
    per_credential: usize,
    /// Connections with the token of `read_token_file`.
    readers: usize,
}

impl ConnectionLimits {
    /// Operators and scrapers. Both have a token that they share, and places of their own.
    pub(super) const OF_API: ConnectionLimits = ConnectionLimits {
        strangers: 256,
        strangers_per_source: 64,
        trusted: TrustedLimits { places: 160, per_source: 160, per_credential: 128, readers: 32 },
        leaves_reserve: false,
    };

    /// Clients, many of which may be behind one NAT. A connection stays for [`HEADER_WITHIN`] after its answer. A client needs one, and
    /// others for requests that broke off.
    pub(super) const OF_CLIENTS: ConnectionLimits = ConnectionLimits {
        strangers: 512,
        strangers_per_source: 256,
        trusted: TrustedLimits { places: 2_048, per_source: 512, per_credential: 8, readers: 0 },
        leaves_reserve: true,
    };
}

/// Retry time while requests are answered on all places; unused ones end after [`HEADER_WITHIN`].
const RETRY_AFTER: Duration = HEADER_WITHIN;

/// Read buffer of a connection, which is also the longest header.
const BUFFER_MAX: usize = 64 * 1_024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Gate {
    Open,
    /// Requests wait, and connections in the kernel's queue.
    Paused,
    /// Another process serves. It accepts the connections that wait.
    Left,
}

#[derive(Clone, Debug)]
pub(super) struct Entrance {
    gate: watch::Receiver<Gate>,
    /// Held for reading by each request that is being answered.
    answering: Arc<RwLock<()>>,
}

impl Entrance {
    pub(super) fn at(gate: &watch::Sender<Gate>) -> Entrance {
        Entrance { gate: gate.subscribe(), answering: Arc::default() }
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
        drop(self.answering.write().await);
    }

    async fn closed(&mut self) {
        if self.gate.wait_for(|gate| *gate != Gate::Open).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

pub(super) async fn pass(
    State(entrance): State<Entrance>,
    request: Request,
    next: Next,
) -> Response {
    let Entrance { mut gate, answering } = entrance;
    let passed = gate.wait_for(|gate| *gate != Gate::Paused).await.map(|gate| *gate);
    // Fails once the end of the last answers is awaited.
    let _answering = answering.try_read();
    match passed {
        Ok(Gate::Open) => next.run(request).await,
        Ok(Gate::Paused | Gate::Left) | Err(_) => replaced().into_response(),
    }
}

/// Accepts connections while the gate is open and places are left.
pub(super) struct Gated<L> {
    pub(super) listener: L,
    pub(super) entrance: Entrance,
    pub(super) places: Arc<Semaphore>,
}

impl<L: Listener> Listener for Gated<L> {
    type Io = CountedConnection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        loop {
            self.entrance.opened().await;
            tokio::select! {
                biased;
                () = self.entrance.closed() => {}
                (io, address) = self.listener.accept() => {
                    return (CountedConnection::new(io, place), address);
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// Removes the file when dropped.
pub(super) struct SocketFile(pub(super) PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // The file may have been removed already.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Listens at this path; only the owner may connect. The socket of a process that ended is replaced.
pub(super) fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    AdminSettings::prepare_folder(path)?;
    require_free(path)?;
    // The file gets its name once its permissions are set.
    let mut unnamed = path.as_os_str().to_owned();
    unnamed.push(format!(".{}", std::process::id()));
    let unnamed = PathBuf::from(unnamed);
    let _ = std::fs::remove_file(&unnamed);
    let listener = UnixListener::bind(&unnamed).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            let found = format!("found `{}`, which is in the way; remove it", unnamed.display());
            io::Error::new(io::ErrorKind::AlreadyExists, found)
        }
        _ => error,
    })?;
    let file = SocketFile(unnamed.clone());
    std::fs::set_permissions(&unnamed, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&unnamed, path)?;
    std::mem::forget(file);
    Ok((listener, SocketFile(path.to_owned())))
}

/// Requires that nothing is at the path but the socket of a process of this user that ended.
fn require_free(path: &Path) -> io::Result<()> {
    let facts = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        facts => facts?,
    };
    let kind = facts.file_type();
    let found = if kind.is_symlink() {
        "a symbolic link".to_owned()
    } else if kind.is_dir() {
        "a folder".to_owned()
    } else if !kind.is_socket() {
        "a file that is no socket".to_owned()
    } else if is_listening(path)? {
        return Err(io::ErrorKind::AddrInUse.into());
    } else if facts.uid() != nix::unistd::geteuid().as_raw() {
        format!("a socket of user {}", facts.uid())
    } else {
        return Ok(());
    };
    let found = format!("found {found}; remove it, or name another path by `socket` in [admin]");
    Err(io::Error::new(io::ErrorKind::AlreadyExists, found))
}

/// Returns true if a process listens at this socket. It may accept nothing, so this does not wait.
fn is_listening(path: &Path) -> io::Result<bool> {
    let probe = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        // Another user's socket, which is not replaced.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        Ok(()) | Err(_) => Ok(true),
    }
}

/// A connection with its place, closed after [`UNANSWERED_MAX`] without an answer.
pub(super) struct CountedConnection<Io> {
    io: Io,
    unanswered: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl<Io> CountedConnection<Io> {
    fn new(io: Io, place: OwnedSemaphorePermit) -> CountedConnection<Io> {
        CountedConnection {
            io,
            unanswered: Box::pin(tokio::time::sleep(UNANSWERED_MAX)),
            _place: place,
        }
    }

    fn answered(&mut self, written: &Poll<io::Result<usize>>) {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.unanswered.as_mut().reset(Instant::now() + UNANSWERED_MAX);
        }
    }
}

impl CountedConnection<UnixStream> {
    /// The user of the process at the other end (`SO_PEERCRED`).
    pub(super) fn peer_uid(&self) -> Option<u32> {
        self.io.peer_cred().ok().map(|peer| peer.uid())
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for CountedConnection<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let ready @ Poll::Ready(_) = Pin::new(&mut self.io).poll_read(context, buffer) {
            return ready;
        }
        ready!(self.unanswered.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for CountedConnection<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        self.answered(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.answered(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// Serves until the runtime ends, over TLS if there is an acceptor. Requests carry their [`TcpPlace`] as an extension.
pub(super) async fn serve_tcp(
    mut listener: Gated<TcpListener>,
    tls: Option<TlsAcceptor>,
    limits: ConnectionLimits,
    router: Router,
) {
    let connections = Arc::new(Mutex::new(OpenConnections::new(limits)));
    for number in 0.. {
        let (stream, address) = listener.accept().await;
        if limits.leaves_reserve && descriptors::is_reserved(&stream.io) {
            continue;
        }
        let is_of_this_host = address.ip().to_canonical().is_loopback();
        let source = source(address.ip());
        let place = Arc::new(TcpPlace {
            number,
            is_of_this_host,
            source: (!is_of_this_host).then_some(source),
            connections: Arc::clone(&connections),
        });
        let conversing = converse(stream, tls.clone(), router.clone(), place);
        let task = tokio::spawn(conversing).abort_handle();
        let displaced = lock(&connections).strangers.admit(number, source, task);
        if let Some(displaced) = displaced {
            displaced.abort();
        }
        // A header that came with its connection is read before the next connection could displace that one.
        tokio::task::yield_now().await;
    }
}

async fn converse(
    stream: CountedConnection<TcpStream>,
    tls: Option<TlsAcceptor>,
    router: Router,
    place: Arc<TcpPlace>,
) {
    let Some(tls) = tls else { return answer(stream, router, place).await };
    let deadline = Instant::now() + HEADER_WITHIN;
    // A method of HTTP begins with a letter, a record of TLS with 22 (RFC 8446, section 5.1).
    let mut first = [0];
    let peeked = tokio::time::timeout_at(deadline, stream.io.peek(&mut first)).await;
    if matches!(peeked, Ok(Ok(1))) && first[0].is_ascii_uppercase() {
        let router = Router::new().fallback(async || without_tls());
        return answer(stream, router, place).await;
    }
    // A connection that breaks off, or misses its deadline, is closed without an answer.
    if let Ok(Ok(stream)) = tokio::time::timeout_at(deadline, tls.accept(stream)).await {
        answer(stream, router, place).await;
    }
}

async fn answer<Io>(stream: Io, router: Router, place: Arc<TcpPlace>)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Arc::clone(&place));
        let request_turn = AnsweringRequest::begin(&place);
        let answering = router.call(request);
        async move {
            let answer = answering.await?;
            Ok::<_, Infallible>(answer.map(|body| AnswerBody { body, _turn: request_turn }))
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WITHIN)
        .max_buf_size(BUFFER_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // See `converse`.
    let _ = serving.await;
}

/// The source of connections: an IPv4 address or an IPv6 /56, which one site may have for itself (RFC 6177).
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (!0 << 72)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// A TCP connection. It is a stranger until a request proves a credential.
pub(super) struct TcpPlace {
    number: u64,
    /// The other end is a process of this host.
    pub(super) is_of_this_host: bool,
    /// `None` for a process of this host, such as a proxy of many clients.
    pub(super) source: Option<IpAddr>,
    connections: Arc<Mutex<OpenConnections<AbortHandle>>>,
}

/// A credential that a request proved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum ProvenCredential {
    /// The token of `token_file`.
    OperatorToken,
    /// The token of `read_token_file`.
    ReaderToken,
    /// The id of a client's token.
    ClientToken(Box<str>),
    /// The URL of a live session.
    SessionUrl(SessionId),
}

impl TcpPlace {
    /// A request proved a credential. Later ones of the connection need no other place.
    pub(super) fn trust(&self, credential: ProvenCredential) -> Result<(), ApiError> {
        let displaced = lock(&self.connections).trust(self.number, self.source, credential);
        let displaced = displaced.map_err(|AllBusy { places }| {
            let message = format!(
                "requests are being answered on {places} connections, which is the limit; retry"
            );
            ApiError::new(ErrorCode::Unavailable, message).retry_after(RETRY_AFTER)
        })?;
        displaced.iter().for_each(AbortHandle::abort);
        Ok(())
    }
}

impl Drop for TcpPlace {
    fn drop(&mut self) {
        lock(&self.connections).remove(self.number);
    }
}

/// A request that is being answered.
struct AnsweringRequest(Arc<TcpPlace>);

impl AnsweringRequest {
    fn begin(place: &Arc<TcpPlace>) -> AnsweringRequest {
        lock(&place.connections).set_busy(place.number, true);
        AnsweringRequest(Arc::clone(place))
    }
}

impl Drop for AnsweringRequest {
    fn drop(&mut self) {
        lock(&self.0.connections).set_busy(self.0.number, false);
    }
}

/// The body of an answer, which ends with its last byte.
struct AnswerBody {
    body: Body,
    _turn: AnsweringRequest,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The connections of a listener.
struct OpenConnections<T> {
    strangers: UntrustedConnections<T>,
    trusted: TrustedConnections<T>,
    /// The number of answers so far, by which idle connections are ordered.
    answers: u64,
}

/// Requests are being answered on as many connections as a limit allows.
#[derive(PartialEq, Eq, Debug)]
struct AllBusy {
    places: usize,
}

impl<T> OpenConnections<T> {
    fn new(limits: ConnectionLimits) -> OpenConnections<T> {
        OpenConnections {
            strangers: UntrustedConnections::new(limits),
            trusted: TrustedConnections { limits: limits.trusted, connections: BTreeMap::new() },
            answers: 0,
        }
    }

    /// Moves a connection, on which a request is being answered, from the strangers. Returns those that give way to it.
    fn trust(
        &mut self,
        number: u64,
        source: Option<IpAddr>,
        credential: ProvenCredential,
    ) -> Result<Vec<T>, AllBusy> {
        // The connection is trusted already, or was closed a moment ago.
        if !self.strangers.connections.contains_key(&number) {
            return Ok(Vec::new());
        }
        let displaced = self.trusted.make_room(source, &credential)?;
        if let Some(task) = self.strangers.remove(number) {
            let connection = TrustedConnection { source, credential, idle_since: None, task };
            self.trusted.connections.insert(number, connection);
        }
        Ok(displaced)
    }

    fn set_busy(&mut self, number: u64, is_busy: bool) {
        self.answers += u64::from(!is_busy);
        if let Some(connection) = self.trusted.connections.get_mut(&number) {
            connection.idle_since = (!is_busy).then_some(self.answers);
        }
    }

    fn remove(&mut self, number: u64) {
        self.strangers.remove(number);
        self.trusted.connections.remove(&number);
    }
}

/// Connections that have proved a credential.
struct TrustedConnections<T> {
    limits: TrustedLimits,
    /// By age.
    connections: BTreeMap<u64, TrustedConnection<T>>,
}

struct TrustedConnection<T> {
    source: Option<IpAddr>,
    credential: ProvenCredential,
    /// The number of the last answer; `None` while a request is being answered.
    idle_since: Option<u64>,
    task: T,
}

impl<T> TrustedConnections<T> {
    /// Removes the connections that give way to a new one. The client of a live session is never kept out of its URL: if no connection is
    /// idle, the oldest one gives way to it.
    fn make_room(
        &mut self,
        source: Option<IpAddr>,
        credential: &ProvenCredential,
    ) -> Result<Vec<T>, AllBusy> {
        type IsCounted<'a, T> = &'a dyn Fn(&TrustedConnection<T>) -> bool;
        let TrustedLimits { places, per_source, per_credential, readers } = self.limits;
        let per_credential = match credential {
            ProvenCredential::ReaderToken => readers,
            _ => per_credential,
        };
        let of_credential = |it: &TrustedConnection<T>| it.credential == *credential;
        let of_source = |it: &TrustedConnection<T>| source.is_some() && it.source == source;
        let limits: [(usize, IsCounted<'_, T>); 3] =
            [(per_credential, &of_credential), (per_source, &of_source), (places, &|_| true)];
        let mut leaving = BTreeSet::new();
        for (places, is_counted) in limits {
            let staying = self
                .connections
                .iter()
                .filter(|(number, it)| !leaving.contains(*number) && is_counted(it));
            if staying.clone().count() < places {
                continue;
            }
            let idle = staying.clone().filter_map(|(number, it)| Some((it.idle_since?, *number)));
            let idle = idle.min().map(|(_, number)| number);
            let oldest = matches!(credential, ProvenCredential::SessionUrl(_))
                .then(|| staying.clone().map(|(number, _)| *number).next());
            leaving.insert(idle.or(oldest.flatten()).ok_or(AllBusy { places })?);
        }
        let removed = leaving.iter().filter_map(|number| self.connections.remove(number));
        Ok(removed.map(|connection| connection.task).collect())
    }
}

/// Connections that have proved no credential.
struct UntrustedConnections<T> {
    limits: ConnectionLimits,
    /// By age, each with its source.
    connections: BTreeMap<u64, (IpAddr, T)>,
}

impl<T> UntrustedConnections<T> {
    fn new(limits: ConnectionLimits) -> UntrustedConnections<T> {
        UntrustedConnections { limits, connections: BTreeMap::new() }
    }

    /// Adds a connection. Returns the one that gives way to it.
    fn admit(&mut self, number: u64, source: IpAddr, connection: T) -> Option<T> {
        let mut counts = BTreeMap::<IpAddr, usize>::new();
        for (source, _) in self.connections.values() {
            *counts.entry(*source).or_default() += 1;
        }
        let most_of_source = self.limits.strangers_per_source;
        let crowded = if counts.get(&source).is_some_and(|count| *count >= most_of_source) {
            Some(source)
        } else if self.connections.len() >= self.limits.strangers {
            // Among sources with equally many connections, the one with the oldest: a flood from many sources would
            // otherwise displace the owner's connection first, if its address is the highest.
            let most = counts.values().max().copied();
            let mut sources = self.connections.values().map(|(source, _)| *source);
            sources.find(|source| counts.get(source).copied() == most)
        } else {
            None
        };
        let oldest = self.connections.iter().find(|(_, (source, _))| Some(*source) == crowded);
        let oldest = oldest.map(|(number, _)| *number);
        let displaced = oldest.and_then(|oldest| self.remove(oldest));
        self.connections.insert(number, (source, connection));
        displaced
    }

    fn remove(&mut self, number: u64) -> Option<T> {
        self.connections.remove(&number).map(|(_, connection)| connection)
    }
}

#[cfg(test)]
mod tests;
