//! The link to a server by TCP: all bytes arrive later by a delay, in order.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Bytes that are read at once.
const CHUNK: usize = 16 * 1_024;

/// A running link. Dropping it refuses further connections; those that are open end with either of their ends.
pub(crate) struct TcpLink {
    near: SocketAddr,
    delay: Arc<Delay>,
    ending: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

/// The one-way delay.
#[derive(Default)]
struct Delay {
    ns: AtomicU64,
    /// Bytes came since the delay was set.
    was_used: AtomicBool,
}

impl Delay {
    fn set(&self, delay: Duration) {
        self.ns.store(delay.as_nanos() as u64, Ordering::Relaxed);
        self.was_used.store(false, Ordering::Relaxed);
    }

    /// The delay of bytes that came now.
    fn of_bytes(&self) -> Duration {
        self.was_used.store(true, Ordering::Relaxed);
        Duration::from_nanos(self.ns.load(Ordering::Relaxed))
    }
}

/// Bytes that are due at the other end.
struct DelayedBytes {
    due: Instant,
    bytes: Vec<u8>,
}

impl TcpLink {
    /// Starts a link to this server with its near end at this address.
    pub(crate) fn start(
        near: SocketAddr,
        server: SocketAddr,
        delay: Duration,
    ) -> io::Result<TcpLink> {
        let listener = TcpListener::bind(near)?;
        let near = listener.local_addr()?;
        let (ending, shared) = (Arc::<AtomicBool>::default(), Arc::<Delay>::default());
        shared.set(delay);
        let (ends, delay) = (Arc::clone(&ending), Arc::clone(&shared));
        let accept = move || {
            for client in listener.incoming().flatten() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                // A server that is down ends the connection of its client.
                let _refused = connect(client, server, &delay);
            }
        };
        let accepting = thread::Builder::new().name("tcp-link".to_owned()).spawn(accept)?;
        Ok(TcpLink { near, delay: shared, ending, accepting: Some(accepting) })
    }

    /// Sets the one-way delay of bytes that arrive from now on.
    pub(crate) fn set_delay(&self, delay: Duration) {
        self.delay.set(delay);
    }

    /// True if bytes came since the delay was set.
    pub(crate) fn was_used(&self) -> bool {
        self.delay.was_used.load(Ordering::Relaxed)
    }
}

impl Drop for TcpLink {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        // Wakes the thread.
        let woken = TcpStream::connect(self.near);
        if let Some(accepting) = self.accepting.take().filter(|_| woken.is_ok()) {
            let _ended = accepting.join();
        }
    }
}

fn connect(client: TcpStream, server: SocketAddr, delay: &Arc<Delay>) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    carry(client.try_clone()?, server.try_clone()?, Arc::clone(delay));
    carry(server, client, Arc::clone(delay));
    Ok(())
}

/// Carries bytes in one direction until an end closes, and then closes both.
fn carry(mut from: TcpStream, mut to: TcpStream, delay: Arc<Delay>) {
    let (sender, receiver) = channel::<DelayedBytes>();
    thread::spawn(move || {
        let mut chunk = vec![0; CHUNK];
        while let Ok(length @ 1..) = from.read(&mut chunk) {
            let due = Instant::now() + delay.of_bytes();
            if sender.send(DelayedBytes { due, bytes: chunk[..length].to_vec() }).is_err() {
                break;
            }
        }
    });
    thread::spawn(move || {
        for DelayedBytes { due, bytes } in receiver {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        // Fails only if it is closed.
        let _closed = to.shutdown(Shutdown::Both);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

    /// A server that returns the bytes of its only connection.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind(SocketAddr::from(LOOPBACK)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut back = client.try_clone().unwrap();
            io::copy(&mut client, &mut back)
        });
        address
    }

    #[test]
    fn bytes_arrive_in_order_after_the_delay() {
        let delay = Duration::from_millis(20);
        let link = TcpLink::start(LOOPBACK.into(), echo(), delay).unwrap();
        let mut client = TcpStream::connect(link.near).unwrap();
        let mut round_trip = |text: &[u8]| {
            let asked = Instant::now();
            text.iter().for_each(|byte| client.write_all(&[*byte]).unwrap());
            let mut heard = vec![0; text.len()];
            client.read_exact(&mut heard).unwrap();
            assert_eq!(heard, text);
            asked.elapsed()
        };
        assert!(round_trip(b"far away") >= 2 * delay);
        assert!(link.was_used());
        link.set_delay(2 * delay);
        assert!(!link.was_used());
        assert!(round_trip(b"farther") >= 4 * delay);
    }

    #[test]
    fn end_of_the_server_ends_the_client() {
        let server = TcpListener::bind(SocketAddr::from(LOOPBACK)).unwrap();
        let address = server.local_addr().unwrap();
        let link = TcpLink::start(LOOPBACK.into(), address, Duration::ZERO).unwrap();
        let mut client = TcpStream::connect(link.near).unwrap();
        drop(server.accept().unwrap());
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn dropped_link_frees_its_address() {
        let link = TcpLink::start(LOOPBACK.into(), echo(), Duration::ZERO).unwrap();
        let near = link.near;
        drop(link);
        assert!(TcpListener::bind(near).is_ok());
    }
}
