//! The thread of a relay: reads ready sockets, holds delayed packets, and sends them when due.

use std::collections::BTreeMap;
use std::collections::btree_map::OccupiedEntry;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evenkeel_process::lock;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::datagrams::DatagramInbox;

/// Maximum sleep of the thread, and so the maximum delay of its end.
const NAP_MS: u64 = 20;
/// Events per `epoll_wait`; the next call returns the rest.
const EVENTS: usize = 64;
/// The maximum size of a datagram.
pub const DATAGRAM: usize = 65_535;
/// Datagrams per read: a burst of a hundred sessions takes two.
const BATCH: usize = 64;

/// The sockets of a relay and the handling of their packets.
pub trait RelayHandler: Send + 'static {
    /// A packet that waits for its time.
    type Kept: Send;

    /// The packets that wait.
    fn late(&mut self) -> &mut DelayQueue<Self::Kept>;

    /// The socket registered under this number is readable.
    fn read(&mut self, place: u64, inbox: &mut DatagramInbox, epoll: &Epoll);

    /// Sends a packet whose time has come.
    fn send(&mut self, kept: Self::Kept);
}

/// Delayed packets by due time, then by order of arrival.
pub struct DelayQueue<T> {
    waiting: BTreeMap<(Instant, u64), T>,
    ever: u64,
}

/// A running thread. Dropping it ends it.
pub struct Pump<W: RelayHandler> {
    shared: Arc<PumpShared<W>>,
    thread: Option<JoinHandle<()>>,
}

struct PumpShared<W> {
    world: Mutex<W>,
    epoll: Epoll,
    ending: AtomicBool,
}

impl<T> Default for DelayQueue<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), ever: 0 }
    }
}

impl<T> DelayQueue<T> {
    /// Keeps `what` until then; entries of one moment stay in order.
    pub fn keep(&mut self, until: Instant, what: T) {
        self.ever += 1;
        self.waiting.insert((until, self.ever), what);
    }

    /// Drops delayed packets that do not match.
    pub fn retain(&mut self, belongs: impl Fn(&T) -> bool) {
        self.waiting.retain(|_, what| belongs(what));
    }

    fn due(&mut self, now: Instant) -> Option<T> {
        let first = self.waiting.first_entry().filter(|first| first.key().0 <= now);
        first.map(OccupiedEntry::remove)
    }

    fn nap(&self, now: Instant) -> Duration {
        let longest = Duration::from_millis(NAP_MS);
        let Some(((due, _), _)) = self.waiting.first_key_value() else { return longest };
        let exact = due.saturating_duration_since(now);
        // epoll counts whole milliseconds and rounds down, which would spin through the last one.
        exact.checked_add(Duration::from_micros(999)).unwrap_or(longest).min(longest)
    }
}

impl<W: RelayHandler> Pump<W> {
    /// Starts the thread under this name.
    pub fn start(name: &str, world: W) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let shared = PumpShared { world: Mutex::new(world), epoll, ending: AtomicBool::new(false) };
        let shared = Arc::new(shared);
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || theirs.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Locks the handler; the thread waits meanwhile.
    pub fn world(&self) -> MutexGuard<'_, W> {
        lock(&self.shared.world)
    }

    /// Reads this socket from now on, under this number.
    pub fn watch(&self, socket: impl AsFd, place: u64) -> io::Result<()> {
        watch(&self.shared.epoll, socket, place)
    }

    /// Stops reading this socket.
    pub(crate) fn forget(&self, socket: impl AsFd) -> io::Result<()> {
        Ok(self.shared.epoll.delete(socket)?)
    }
}

/// Registers a socket to be read under the number `place`.
pub fn watch(epoll: &Epoll, socket: impl AsFd, place: u64) -> io::Result<()> {
    Ok(epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, place))?)
}

impl<W: RelayHandler> Drop for Pump<W> {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

impl<W: RelayHandler> PumpShared<W> {
    fn run(&self) {
        let mut inbox = DatagramInbox::new(DATAGRAM, BATCH);
        let mut events = [EpollEvent::empty(); EVENTS];
        while !self.ending.load(Ordering::Relaxed) {
            let nap = lock(&self.world).late().nap(Instant::now());
            let timeout = EpollTimeout::try_from(nap).unwrap_or(EpollTimeout::ZERO);
            // An interrupted wait returns no events.
            let ready = self.epoll.wait(&mut events, timeout).unwrap_or(0);
            let mut world = lock(&self.world);
            for event in &events[..ready] {
                world.read(event.data(), &mut inbox, &self.epoll);
            }
            let now = Instant::now();
            while let Some(kept) = world.late().due(now) {
                world.send(kept);
            }
        }
    }
}
