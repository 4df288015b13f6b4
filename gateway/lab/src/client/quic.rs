//! All QUIC clients on one thread: an endpoint each, RTP and RTCP in datagrams, larger packets in streams.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_media::roq::{self, FlowId, Item, StreamDecoder};
use quinn::{Connection, ConnectionError, Endpoint, ReadError, RecvStream, SendDatagramError};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::pinned::client_config;
use super::{ClientReports, ClientTally, Persona, QuicWay, Talker, Transmit};
use crate::clock;

/// Interval at which recorded packets are moved to the ledger.
const ENTER_EVERY: Duration = Duration::from_millis(5);
/// Size limit of a packet from a stream: the largest UDP payload.
const PACKET_MAX: usize = 65_535;
/// The size of one stream read.
const PIECE: usize = 16 * 1_024;

enum QuicFleetCommand {
    Join(Persona, QuicWay),
    Leave(u64),
}

type SharedDesk = Rc<RefCell<ClientReports>>;

pub(super) struct QuicFleet {
    orders: Option<UnboundedSender<QuicFleetCommand>>,
    thread: Option<JoinHandle<()>>,
}

impl QuicFleet {
    pub(super) fn start(desk: ClientReports) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (orders, heard) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new().name("clients-quic".into()).spawn(move || {
            LocalSet::new().block_on(&runtime, run(heard, Rc::new(RefCell::new(desk))));
        })?;
        Ok(Self { orders: Some(orders), thread: Some(thread) })
    }

    pub(super) fn join(&self, persona: Persona, way: QuicWay) {
        self.order(QuicFleetCommand::Join(persona, way));
    }

    pub(super) fn leave(&self, session: u64) {
        self.order(QuicFleetCommand::Leave(session));
    }

    fn order(&self, order: QuicFleetCommand) {
        if let Some(orders) = &self.orders {
            // The thread ends only with this handle.
            let _heard = orders.send(order);
        }
    }
}

impl Drop for QuicFleet {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

async fn run(mut orders: UnboundedReceiver<QuicFleetCommand>, desk: SharedDesk) {
    let mut clients = BTreeMap::new();
    let mut tasks = tokio::task::JoinSet::new();
    let mut entering = tokio::time::interval(ENTER_EVERY);
    entering.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(QuicFleetCommand::Join(persona, way)) => {
                    let (stays, left) = oneshot::channel();
                    clients.insert(persona.session, stays);
                    tasks.spawn_local(live(persona, way, left, Rc::clone(&desk)));
                }
                Some(QuicFleetCommand::Leave(session)) => drop(clients.remove(&session)),
                None => break,
            },
            _tick = entering.tick() => desk.borrow_mut().enter(),
            Some(_ended) = tasks.join_next() => {}
        }
    }
    drop(clients);
    while tasks.join_next().await.is_some() {}
}

async fn live(persona: Persona, way: QuicWay, left: oneshot::Receiver<()>, desk: SharedDesk) {
    if let Err(reason) = talk(persona, way, left, &desk).await {
        desk.borrow().tell(persona.session, |state| state.failed = Some(reason));
    }
}

struct QuicCall {
    session: u64,
    connection: Connection,
    to_gateway: FlowId,
    from_gateway: FlowId,
    talker: Talker,
    foreign: u64,
    desk: SharedDesk,
}

async fn talk(
    persona: Persona,
    way: QuicWay,
    mut left: oneshot::Receiver<()>,
    desk: &SharedDesk,
) -> Result<(), String> {
    let flow = |number| FlowId::new(number).ok_or("a flow identifier is more than 62 bits long");
    let (to_gateway, from_gateway) = (flow(way.flow_to_gateway)?, flow(way.flow_from_gateway)?);
    let here: IpAddr = match way.gateway {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let endpoint = Endpoint::client((here, 0).into()).map_err(|error| error.to_string())?;
    let config = client_config(way.certificate_sha256).map_err(|error| error.to_string())?;
    let mut before: Option<QuicCall> = None;
    let ended = loop {
        let connecting = endpoint
            .connect_with(config.clone(), way.gateway, "evenkeel")
            .map_err(|error| error.to_string())?;
        let connection = connecting.await.map_err(|error| error.to_string())?;
        let mut call = match before {
            Some(call) => QuicCall { connection, ..call },
            None => {
                let now_ns = clock::now_ns();
                desk.borrow().ready(persona.session, now_ns);
                QuicCall {
                    session: persona.session,
                    connection,
                    to_gateway,
                    from_gateway,
                    talker: Talker::new(persona, now_ns),
                    foreign: 0,
                    desk: Rc::clone(desk),
                }
            }
        };
        let ended = call.run(&mut left).await;
        // Another gateway, or another process, serves the session now.
        if matches!(ended, Err(ConnectionError::Reset)) {
            before = Some(call);
            continue;
        }
        call.tell();
        call.connection.close(quinn::VarInt::from_u32(0), b"");
        break ended;
    };
    endpoint.wait_idle().await;
    ended.map_err(|error| error.to_string())
}

impl QuicCall {
    /// Returns when `left` is closed.
    async fn run(&mut self, left: &mut oneshot::Receiver<()>) -> Result<(), ConnectionError> {
        let connection = self.connection.clone();
        let (pieces, mut from_streams) = mpsc::unbounded_channel();
        loop {
            let due = until(self.talker.poll_timeout());
            tokio::select! {
                datagram = connection.read_datagram() => {
                    self.handle_datagram(&datagram?);
                }
                stream = connection.accept_uni() => {
                    tokio::task::spawn_local(read_stream(stream?, self.from_gateway, pieces.clone()));
                }
                Some(from_stream) = from_streams.recv() => match from_stream {
                    FromStream::Packet(packet, at_ns) => self.handle_packet(&packet, at_ns),
                    FromStream::Foreign => self.foreign += 1,
                },
                _ = &mut *left => return Ok(()),
                () = tokio::time::sleep_until(due) => self.send_due()?,
            }
        }
    }

    fn handle_datagram(&mut self, datagram: &[u8]) {
        match roq::read_datagram(datagram) {
            Ok((flow, packet)) if flow == self.from_gateway => {
                self.handle_packet(packet, clock::now_ns());
            }
            Ok(_) | Err(_) => self.foreign += 1,
        }
    }

    fn handle_packet(&mut self, packet: &[u8], at_ns: u64) {
        let arrival = self.talker.handle_packet(packet, at_ns);
        self.desk.borrow_mut().arrived.extend(arrival);
    }

    fn send_due(&mut self) -> Result<(), ConnectionError> {
        let mut packet = Vec::with_capacity(1_500);
        let mut reported = false;
        while let Some(transmit) = self.talker.poll_transmit(clock::now_ns(), &mut packet) {
            match transmit {
                Transmit::Rtp(sent) => self.desk.borrow_mut().sent.push(sent),
                Transmit::Rtcp => reported = true,
            }
            self.send(&packet)?;
            packet.clear();
        }
        if reported {
            self.tell();
        }
        Ok(())
    }

    fn send(&self, packet: &[u8]) -> Result<(), ConnectionError> {
        let mut datagram = Vec::with_capacity(packet.len() + 8);
        roq::write_datagram(self.to_gateway, packet, &mut datagram);
        match self.connection.send_datagram(Bytes::from(datagram)) {
            Ok(()) => Ok(()),
            Err(
                SendDatagramError::TooLarge
                | SendDatagramError::UnsupportedByPeer
                | SendDatagramError::Disabled,
            ) => {
                let mut stream = Vec::with_capacity(packet.len() + 16);
                roq::write_stream_start(self.to_gateway, &mut stream);
                roq::write_stream_packet(packet, &mut stream);
                tokio::task::spawn_local(send_stream(self.connection.clone(), stream));
                Ok(())
            }
            Err(SendDatagramError::ConnectionLost(error)) => Err(error),
        }
    }

    fn tell(&self) {
        let tally = ClientTally { foreign: self.foreign, ..self.talker.tally() };
        self.desk.borrow().counted(self.session, tally);
    }
}

enum FromStream {
    Packet(Vec<u8>, u64),
    Foreign,
}

async fn read_stream(
    mut stream: RecvStream,
    expected: FlowId,
    pieces: UnboundedSender<FromStream>,
) {
    let mut decoder = StreamDecoder::new(PACKET_MAX);
    // A stream that is reset or lost still delivers the bytes that arrived before.
    while let Ok::<_, ReadError>(Some(piece)) = stream.read_chunk(PIECE, true).await {
        let mut input = &piece.bytes[..];
        loop {
            let told = match decoder.next(&mut input) {
                Ok(Some(Item::Flow(flow))) if flow == expected => Ok(()),
                Ok(Some(Item::Packet(packet))) => {
                    pieces.send(FromStream::Packet(packet.to_vec(), clock::now_ns()))
                }
                Ok(None) => break,
                Ok(Some(Item::Flow(_))) | Err(_) => {
                    let _told = pieces.send(FromStream::Foreign);
                    return;
                }
            };
            if told.is_err() {
                return;
            }
        }
    }
}

/// A packet that cannot be sent is lost; the ledger shows it as missing.
async fn send_stream(connection: Connection, bytes: Vec<u8>) {
    if let Ok(mut stream) = connection.open_uni().await
        && stream.write_all(&bytes).await.is_ok()
    {
        let _finished = stream.finish();
    }
}

fn until(at_ns: u64) -> Instant {
    Instant::now() + Duration::from_nanos(at_ns.saturating_sub(clock::now_ns()))
}
