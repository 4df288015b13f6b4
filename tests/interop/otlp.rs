//! A strict OTLP receiver over gRPC and over HTTP with binary protobuf.
//!
//! A request with any malformed part is refused as a whole; well-formed requests are counted and kept.

mod books;
mod check;
mod grpc;
mod http;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::oneshot;

pub(crate) use books::{Books, Span, Value};
use books::{Link, Scope};
use check::Malformed;

type SharedBooks = Arc<Mutex<Books>>;

/// A running receiver on its own thread. Dropping it closes the ports.
pub(crate) struct Receiver {
    grpc: SocketAddr,
    http: SocketAddr,
    books: SharedBooks,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Listen {
    /// For gRPC; port 0 takes a free one.
    pub(crate) grpc: SocketAddr,
    /// For HTTP; port 0 takes a free one.
    pub(crate) http: SocketAddr,
}

impl Receiver {
    /// Listens at both addresses.
    pub(crate) fn start(listen: Listen) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (grpc, http) = runtime.block_on(async {
            tokio::try_join!(TcpListener::bind(listen.grpc), TcpListener::bind(listen.http))
        })?;
        let books = SharedBooks::default();
        let (end, ended) = oneshot::channel();
        let addresses = (grpc.local_addr()?, http.local_addr()?);
        let theirs = Arc::clone(&books);
        let thread = std::thread::Builder::new().name("otlp".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = grpc::serve(grpc, Arc::clone(&theirs)) => {}
                    () = http::serve(http, theirs) => {}
                    _gone = ended => {}
                }
            });
        })?;
        Ok(Self {
            grpc: addresses.0,
            http: addresses.1,
            books,
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// The endpoint for a gRPC exporter.
    pub(crate) fn grpc_endpoint(&self) -> String {
        format!("http://{}", self.grpc)
    }

    /// The endpoint for an HTTP exporter, without the signal's path.
    pub(crate) fn http_endpoint(&self) -> String {
        format!("http://{}", self.http)
    }

    /// Everything received so far.
    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        open(&self.books)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            let _already_gone = end.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

fn open(books: &SharedBooks) -> MutexGuard<'_, Books> {
    books.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
