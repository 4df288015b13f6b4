//! From the workers to the clients: DATAGRAMs where they fit, a stream for each packet where they do not.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use evenkeel_media::roq;
use quinn::SendDatagramError;
use tokio::io::unix::AsyncFd;

use super::code;
use super::counters::count;
use super::hub::Hub;
use crate::flows::Home;
use crate::ring::{self, Kind, Meta};

/// Packets taken from a ring before others get their turn.
const BATCH: usize = 256;
/// What is allocated at a time for DATAGRAMs: several hundred voice packets.
const ARENA: usize = 64 * 1_024;

/// Sends what one worker puts into its ring, until the endpoint ends.
pub(super) async fn send(hub: Rc<Hub>, mut ring: AsyncFd<ring::Receiver>) {
    let mut packer = Packer { framed: Vec::new(), arena: BytesMut::new() };
    while let Ok(mut ready) = ring.readable_mut().await {
        // Before the look, so that a ring after it is not forgotten.
        ready.clear_ready();
        let ring = ready.get_inner_mut();
        while ring.pop_batch(BATCH, |meta, bytes| packer.take(&hub, meta, bytes)) == BATCH {
            tokio::task::yield_now().await;
        }
    }
}

/// Turns packets into DATAGRAMs without an allocation for each.
struct Packer {
    framed: Vec<u8>,
    arena: BytesMut,
}

impl Packer {
    fn take(&mut self, hub: &Rc<Hub>, meta: &Meta, packet: &[u8]) {
        match meta.kind {
            Kind::Media => self.send(hub, meta.home, meta.flow, packet),
            Kind::Detached => hub.forget(meta.home),
            // Only ever told to a worker.
            Kind::Attached | Kind::Feedback { .. } => {}
        }
    }

    fn send(&mut self, hub: &Rc<Hub>, home: Home, flow: u64, packet: &[u8]) {
        let Some(flow) = roq::Flow::new(flow) else { return count(&hub.counters.unattached) };
        let datagram = self.datagram(flow, packet);
        match hub.through(home, |connection| send_at_once(connection, datagram)) {
            Some(Ok(true)) => count(&hub.counters.sent_datagrams),
            Some(Ok(false)) => count(&hub.counters.datagrams_full),
            Some(Err(
                SendDatagramError::TooLarge
                | SendDatagramError::UnsupportedByPeer
                | SendDatagramError::Disabled,
            )) => send_in_stream(hub, home, flow, packet),
            Some(Err(SendDatagramError::ConnectionLost(_))) | None => {
                count(&hub.counters.unattached);
            }
        }
    }

    fn datagram(&mut self, flow: roq::Flow, packet: &[u8]) -> Bytes {
        self.framed.clear();
        roq::write_datagram(flow, packet, &mut self.framed);
        if self.arena.capacity() < self.framed.len() {
            self.arena.reserve(ARENA);
        }
        self.arena.extend_from_slice(&self.framed);
        self.arena.split().freeze()
    }
}

/// Whether the DATAGRAM found room in the queue; it is not waited for, and none is pushed out for it.
fn send_at_once(
    connection: &quinn::Connection,
    datagram: Bytes,
) -> Result<bool, SendDatagramError> {
    let sending = pin!(connection.send_datagram_wait(datagram));
    match sending.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(sent) => sent.map(|()| true),
        Poll::Pending => Ok(false),
    }
}

fn send_in_stream(hub: &Rc<Hub>, home: Home, flow: roq::Flow, packet: &[u8]) {
    let Some(way) = hub.way(home) else { return count(&hub.counters.unattached) };
    let Some(place) = Place::take(way.streams_out, hub.settings.streams_out_max) else {
        return count(&hub.counters.streams_full);
    };
    let mut bytes = Vec::with_capacity(packet.len() + 16);
    roq::write_stream_start(flow, &mut bytes);
    roq::write_stream_packet(packet, &mut bytes);
    let hub = Rc::clone(hub);
    tokio::task::spawn_local(async move {
        let _place = place;
        match write(&hub, &way.connection, bytes.into()).await {
            Written::Whole => count(&hub.counters.sent_in_streams),
            Written::Late => count(&hub.counters.streams_late),
            Written::Stopped => count(&hub.counters.streams_stopped),
        }
    });
}

enum Written {
    /// The client has all of it.
    Whole,
    /// It took too long; what was sent of it is cancelled.
    Late,
    /// The client did not want it, or is gone.
    Stopped,
}

async fn write(hub: &Hub, connection: &quinn::Connection, bytes: Bytes) -> Written {
    let lifetime = tokio::time::Instant::now() + hub.settings.stream_lifetime;
    let mut stream = match tokio::time::timeout_at(lifetime, connection.open_uni()).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(_)) => return Written::Stopped,
        Err(_) => return Written::Late,
    };
    let delivery = async {
        stream.write_chunk(bytes).await.is_ok()
            && stream.finish().is_ok()
            && matches!(stream.stopped().await, Ok(None))
    };
    match tokio::time::timeout_at(lifetime, delivery).await {
        Ok(true) => Written::Whole,
        Ok(false) => Written::Stopped,
        Err(_) => {
            // Fails only where there is nothing left to cancel.
            let _ = stream.reset(code(roq::ErrorCode::FrameCancelled));
            Written::Late
        }
    }
}

/// One of the streams that may be under way to a client.
struct Place(Rc<Cell<usize>>);

impl Place {
    fn take(taken: Rc<Cell<usize>>, places: usize) -> Option<Place> {
        if taken.get() >= places {
            return None;
        }
        taken.set(taken.get() + 1);
        Some(Place(taken))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
