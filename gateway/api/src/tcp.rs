//! The API over TCP: bounds connections before and after a request has carried the token.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use super::error::{ApiError, ApiErrorCode};
use super::listener::CountedConnection;

/// Deadline of a request's header, from the accept or the answer before.
const HEADER_WITHIN: Duration = Duration::from_secs(5);

/// Connections that have carried no token yet. A new connection is always accepted: the oldest of the source with the
/// most connections gives way.
const STRANGERS_MAX: usize = 256;

/// Such connections of one source. For one more, the oldest of the source is closed.
pub(super) const STRANGERS_PER_SOURCE: usize = 64;

/// Connections that have carried the token.
const TRUSTED_MAX: usize = 128;

/// Retry time while [`TRUSTED_MAX`] connections are open; unused ones end after [`HEADER_WITHIN`].
const RETRY_AFTER: Duration = HEADER_WITHIN;

/// Read buffer of a connection, which is also the longest header.
const BUFFER_MAX: usize = 64 * 1_024;

/// Serves until the runtime ends. Requests carry their [`TcpPlace`] as an extension.
pub(super) async fn serve(
    mut listener: impl Listener<Io = TcpStream, Addr = SocketAddr>,
    router: Router,
) {
    let (strangers, trusted) = (Arc::default(), Arc::new(Semaphore::new(TRUSTED_MAX)));
    for number in 0.. {
        let (stream, address) = listener.accept().await;
        let connection = Arc::new(TcpPlace {
            number,
            strangers: Arc::clone(&strangers),
            trusted: Arc::clone(&trusted),
            place: OnceLock::new(),
        });
        let task = tokio::spawn(converse(stream, router.clone(), connection)).abort_handle();
        let displaced = lock(&strangers).admit(number, source(address.ip()), task);
        if let Some(displaced) = displaced {
            displaced.abort();
        }
        // A header that came with its connection is read before the next connection could displace that one.
        tokio::task::yield_now().await;
    }
}

async fn converse(stream: TcpStream, router: Router, connection: Arc<TcpPlace>) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Arc::clone(&connection));
        router.call(request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WITHIN)
        .max_buf_size(BUFFER_MAX)
        .serve_connection(TokioIo::new(CountedConnection::new(stream, ())), service);
    // A connection that breaks off, or misses its deadline, is closed without an answer.
    let _ = serving.await;
}

/// The source of connections: an IPv4 address or an IPv6 /56, which one site may have for itself (RFC 6177).
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (!0 << 72)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// A TCP connection. It is a stranger until a request carries the token.
pub(super) struct TcpPlace {
    number: u64,
    strangers: Arc<Mutex<UntrustedConnections<AbortHandle>>>,
    trusted: Arc<Semaphore>,
    place: OnceLock<OwnedSemaphorePermit>,
}

impl TcpPlace {
    /// A request carried the token.
    pub(super) fn trust(&self) -> Result<(), ApiError> {
        if self.place.get().is_some() {
            return Ok(());
        }
        let place = Arc::clone(&self.trusted).try_acquire_owned().map_err(|_| {
            let message = format!("{TRUSTED_MAX} connections are open, which is the limit");
            ApiError::new(ApiErrorCode::Unavailable, message).retry_after(RETRY_AFTER)
        })?;
        // Requests of one connection come one after the other, so the cell is empty.
        let _ = self.place.set(place);
        lock(&self.strangers).remove(self.number);
        Ok(())
    }
}

impl Drop for TcpPlace {
    fn drop(&mut self) {
        lock(&self.strangers).remove(self.number);
    }
}

/// Connections that have carried no token, by age, each with its source.
struct UntrustedConnections<T>(BTreeMap<u64, (IpAddr, T)>);

impl<T> Default for UntrustedConnections<T> {
    fn default() -> Self {
        UntrustedConnections(BTreeMap::new())
    }
}

impl<T> UntrustedConnections<T> {
    /// Adds a connection. Returns the one that gives way to it.
    fn admit(&mut self, number: u64, source: IpAddr, connection: T) -> Option<T> {
        let mut counts = BTreeMap::<IpAddr, usize>::new();
        for (source, _) in self.0.values() {
            *counts.entry(*source).or_default() += 1;
        }
        let crowded = if counts.get(&source).is_some_and(|count| *count >= STRANGERS_PER_SOURCE) {
            Some(source)
        } else if self.0.len() >= STRANGERS_MAX {
            // Among sources with equally many connections, the one with the oldest: a flood from many sources would
            // otherwise displace the owner's connection first, if its address is the highest.
            let most = counts.values().max().copied();
            let mut sources = self.0.values().map(|(source, _)| *source);
            sources.find(|source| counts.get(source).copied() == most)
        } else {
            None
        };
        let oldest = self.0.iter().find(|(_, (source, _))| Some(*source) == crowded);
        let oldest = oldest.map(|(number, _)| *number);
        let displaced = oldest.and_then(|oldest| self.remove(oldest));
        self.0.insert(number, (source, connection));
        displaced
    }

    fn remove(&mut self, number: u64) -> Option<T> {
        self.0.remove(&number).map(|(_, connection)| connection)
    }
}

/// A poisoned lock is usable: no update leaves the table inconsistent.
fn lock<T>(strangers: &Mutex<UntrustedConnections<T>>) -> MutexGuard<'_, UntrustedConnections<T>> {
    strangers.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
