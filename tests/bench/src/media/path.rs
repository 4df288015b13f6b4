//! The path of impaired clients: 20 ms each way, and the losses of a plan in one direction.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_lab::datagrams::DatagramInbox;
use evenkeel_lab::links::{Conditions, Impairment, PacketOutcome};
use evenkeel_lab::relay::Direction;
use evenkeel_lab::relay::pump::{DelayQueue, Pump, RelayHandler};
use evenkeel_media::demux::{self, DatagramKind};
use evenkeel_media::rtp::RtpHeader;
use nix::sys::epoll::Epoll;

use super::content::number_of;
use super::losses::LossPlan;
use super::row::Medium;

/// Half of the usual round trip.
pub(super) const ONE_WAY: Duration = Duration::from_millis(20);
/// A transmission so soon after another one of its number is a second copy: requests are a round trip apart.
const COPIED_WITHIN: Duration = Duration::from_millis(10);
/// The headers of IPv4 and UDP, which a packet costs beside its own bytes.
pub(super) const HEADERS: u64 = 28;

/// The running paths of a row. Dropping them ends their thread.
pub(super) struct Paths(Pump<Lanes>);

/// The addresses of a client's path.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaneAddresses {
    /// The client sends to it, in place of the gateway.
    pub(super) near: SocketAddr,
    /// The gateway sends to it, in place of the client.
    pub(super) far: SocketAddr,
}

/// Counters of a lane in its lossy direction, for RTP packets with a judged number.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct LaneTally {
    /// Bytes sent, lost ones included, with the headers of IPv4 and UDP.
    pub(super) bytes: u64,
    /// Those of second copies, which were sent right after another transmission of their number.
    pub(super) bytes_of_copies: u64,
    /// Numbers of which no transmission had passed before a second copy did.
    pub(super) saved_by_copies: Vec<usize>,
    /// Packets of parity for judged frames.
    pub(super) parities: u64,
    /// Numbers of which the first transmission was lost.
    pub(super) lost_first: u64,
    /// Packets of an unknown number: of another SSRC, or before a test header was seen.
    pub(super) unknown: u64,
}

struct Lanes {
    one_way: Duration,
    lanes: Vec<Lane>,
    late: DelayQueue<Delayed>,
}

struct Lane {
    near: UdpSocket,
    far: UdpSocket,
    /// The client's last source address.
    client: Option<SocketAddr>,
    lossy: Direction,
    plan: Arc<LossPlan>,
    judged: Range<usize>,
    /// A link of limited rate, in the lossy direction.
    bottleneck: Option<Impairment>,
    numbers: Option<LaneNumbers>,
    /// By number.
    transmissions: Vec<Transmissions>,
    /// The highest number so far, and the packets of parity since then.
    highest: usize,
    parities: usize,
    /// Datagrams of the other direction so far.
    backward: usize,
    tally: LaneTally,
}

/// The transmissions of a number so far.
#[derive(Clone, Copy, Default)]
struct Transmissions {
    count: usize,
    last_at: Option<Instant>,
    has_passed: bool,
}

/// The numbering of a stream on this path. Nodes give a stream another SSRC and other sequence numbers.
#[derive(Clone, Copy)]
struct LaneNumbers {
    ssrc: u32,
    /// Its sequence number less the sender's number.
    ahead: u16,
}

struct Delayed {
    lane: usize,
    direction: Direction,
    bytes: Vec<u8>,
}

impl Paths {
    /// Packets take half of the round trip in each direction.
    ///
    /// # Errors
    /// The system has no sockets or threads.
    pub(super) fn start(round_trip: Duration) -> io::Result<Paths> {
        let one_way = round_trip / 2;
        let lanes = Lanes { one_way, lanes: Vec::new(), late: DelayQueue::default() };
        Ok(Paths(Pump::start("media-paths", lanes)?))
    }

    /// Opens a path to the gateway at this address.
    ///
    /// # Errors
    /// The system has no sockets.
    pub(super) fn open(
        &self,
        lossy: Direction,
        plan: Arc<LossPlan>,
        judged: Range<usize>,
    ) -> io::Result<LaneAddresses> {
        let lane = Lane::new(lossy, plan, judged)?;
        let addresses =
            LaneAddresses { near: lane.near.local_addr()?, far: lane.far.local_addr()? };
        let mut lanes = self.0.world();
        let index = lanes.lanes.len() as u64;
        self.0.watch(&lane.near, 2 * index)?;
        self.0.watch(&lane.far, 2 * index + 1)?;
        lanes.lanes.push(lane);
        Ok(addresses)
    }

    /// Connects the path with this far address to the gateway.
    ///
    /// # Errors
    /// No path has this address, or its socket cannot be connected.
    pub(super) fn connect(&self, addresses: LaneAddresses, gateway: SocketAddr) -> io::Result<()> {
        let lanes = self.0.world();
        let is_it = |lane: &&Lane| lane.far.local_addr().is_ok_and(|far| far == addresses.far);
        let lane = lanes.lanes.iter().find(is_it).ok_or(io::ErrorKind::NotFound)?;
        lane.far.connect(gateway)
    }

    /// Limits the rate of each path in its lossy direction, in bits per second with the headers of IPv4 and UDP. A packet that would wait for
    /// more than 200 ms is lost.
    pub(super) fn set_rate(&self, rate_bps: u64) {
        for lane in &mut self.0.world().lanes {
            let link = lane.bottleneck.get_or_insert_with(|| Impairment::new(0));
            link.conditions = Conditions { rate_bps: Some(rate_bps), ..Conditions::default() };
        }
    }

    /// The counters of all paths, in the order in which they were opened.
    pub(super) fn tallies(&self) -> Vec<LaneTally> {
        self.0.world().lanes.iter().map(|lane| lane.tally.clone()).collect()
    }
}

impl RelayHandler for Lanes {
    type Kept = Delayed;

    fn late(&mut self) -> &mut DelayQueue<Delayed> {
        &mut self.late
    }

    fn read(&mut self, place: u64, inbox: &mut DatagramInbox, _epoll: &Epoll) {
        let index = (place / 2) as usize;
        let direction = if place.is_multiple_of(2) { Direction::Up } else { Direction::Down };
        let lane = &mut self.lanes[index];
        let socket = if direction == Direction::Up { &lane.near } else { &lane.far };
        // An ICMP error of an earlier packet.
        if inbox.receive(socket).is_err() {
            return;
        }
        let now = Instant::now();
        let at = now + self.one_way;
        for datagram in inbox.iter() {
            if direction == Direction::Up {
                lane.client = Some(datagram.source);
            }
            let is_lost = match direction == lane.lossy {
                true => lane.loses(datagram.bytes, now),
                false => lane.loses_back(),
            };
            if is_lost {
                continue;
            }
            let length = datagram.bytes.len() + HEADERS as usize;
            let bottleneck = lane.bottleneck.as_mut().filter(|_| direction == lane.lossy);
            let at = match bottleneck.map(|link| link.decide(now, length)) {
                None => at,
                Some(PacketOutcome::Deliver { at, .. }) => at + self.one_way,
                Some(PacketOutcome::Drop(_)) => continue,
            };
            let bytes = datagram.bytes.to_vec();
            self.late.keep(at, Delayed { lane: index, direction, bytes });
        }
    }

    fn send(&mut self, Delayed { lane, direction, bytes }: Delayed) {
        let lane = &self.lanes[lane];
        // A socket that is full or refuses loses the packet, as any network would.
        let _lost_at_worst = match (direction, lane.client) {
            (Direction::Up, _) => lane.far.send(&bytes),
            (Direction::Down, Some(client)) => lane.near.send_to(&bytes, client),
            (Direction::Down, None) => Ok(0),
        };
    }
}

impl Lane {
    fn new(lossy: Direction, plan: Arc<LossPlan>, judged: Range<usize>) -> io::Result<Lane> {
        Ok(Lane {
            near: socket()?,
            far: socket()?,
            client: None,
            lossy,
            plan,
            bottleneck: None,
            numbers: None,
            transmissions: vec![Transmissions::default(); judged.end],
            judged,
            highest: 0,
            parities: 0,
            backward: 0,
            tally: LaneTally::default(),
        })
    }

    /// Counts a datagram in the lossy direction. Returns true if it is lost.
    fn loses(&mut self, datagram: &[u8], now: Instant) -> bool {
        if demux::classify(datagram) != DatagramKind::Rtp {
            return false;
        }
        let Ok(header) = RtpHeader::parse(datagram) else { return false };
        if header.payload_type == Medium::PARITY {
            return self.loses_parity(datagram.len());
        }
        if self.numbers.is_none() {
            self.numbers = number_of(header.payload(datagram)).map(|number| LaneNumbers {
                ssrc: header.ssrc,
                ahead: header.sequence.wrapping_sub(number as u16),
            });
        }
        let Some(numbers) = self.numbers.filter(|numbers| numbers.ssrc == header.ssrc) else {
            self.tally.unknown += 1;
            return false;
        };
        let number = usize::from(header.sequence.wrapping_sub(numbers.ahead));
        let is_judged = self.judged.contains(&number);
        if number > self.highest {
            (self.highest, self.parities) = (number, 0);
        }
        let Some(transmissions) = self.transmissions.get_mut(number) else {
            return self.plan.loses(number, 0);
        };
        let is_lost = self.plan.loses(number, transmissions.count);
        let is_copy = transmissions
            .last_at
            .is_some_and(|last| now.saturating_duration_since(last) < COPIED_WITHIN);
        if is_judged {
            let bytes = datagram.len() as u64 + HEADERS;
            self.tally.bytes += bytes;
            self.tally.lost_first += u64::from(is_lost && transmissions.count == 0);
            if is_copy {
                self.tally.bytes_of_copies += bytes;
                if !is_lost && !transmissions.has_passed {
                    self.tally.saved_by_copies.push(number);
                }
            }
        }
        transmissions.count += 1;
        transmissions.last_at = Some(now);
        transmissions.has_passed |= !is_lost;
        is_lost
    }

    /// Counts a packet of parity for the last frame. Returns true if it is lost.
    fn loses_parity(&mut self, length: usize) -> bool {
        if self.judged.contains(&self.highest) {
            self.tally.bytes += length as u64 + HEADERS;
            self.tally.parities += 1;
        }
        self.parities += 1;
        let frame = self.highest / self.plan.frame_size();
        self.plan.loses_parity(frame, self.parities - 1)
    }

    /// Counts a datagram in the other direction. Returns true if it is lost.
    fn loses_back(&mut self) -> bool {
        self.backward += 1;
        self.plan.loses_back(self.backward - 1)
    }
}

/// A non-blocking socket at loopback.
pub(super) fn socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use evenkeel_media::rtp;

    use super::super::content;
    use super::super::losses::Losses;
    use super::super::row::ROUND_TRIP;
    use super::*;

    /// Few enough for the buffer of a socket.
    const NUMBERS: Range<usize> = 0..60;
    /// The last packet, which the plan does not lose.
    const LAST: usize = 60;
    const SOON: Duration = Duration::from_secs(10);

    fn packet(number: usize, first_sequence: u16) -> Vec<u8> {
        let sequence = first_sequence.wrapping_add(number as u16);
        let fields =
            rtp::Fields { payload_type: 111, marker: false, sequence, timestamp: 0, ssrc: 7 };
        let mut packet = Vec::new();
        rtp::write(&fields, &content::write(Medium::Voice, 1, number), &mut packet);
        packet
    }

    /// The numbers that a client receives if the gateway sends all packets this many times, in order.
    fn received(plan: &Arc<LossPlan>, first_sequence: u16, times: usize) -> (BTreeSet<usize>, u64) {
        let paths = Paths::start(ROUND_TRIP).unwrap();
        let [client, gateway] = [0; 2].map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        client.set_read_timeout(Some(SOON)).unwrap();
        gateway.set_read_timeout(Some(SOON)).unwrap();
        let lane = paths.open(Direction::Down, Arc::clone(plan), NUMBERS).unwrap();
        paths.connect(lane, gateway.local_addr().unwrap()).unwrap();
        client.send_to(&[0], lane.near).unwrap();
        let mut buffer = [0; 100];
        assert_eq!(gateway.recv_from(&mut buffer).unwrap(), (1, lane.far));
        for _ in 0..times {
            for number in NUMBERS {
                gateway.send_to(&packet(number, first_sequence), lane.far).unwrap();
            }
        }
        gateway.send_to(&packet(LAST, first_sequence), lane.far).unwrap();
        let mut received = BTreeSet::new();
        while !received.contains(&LAST) {
            let length = client.recv(&mut buffer).unwrap();
            let header = RtpHeader::parse(&buffer[..length]).unwrap();
            received.insert(number_of(header.payload(&buffer[..length])).unwrap());
        }
        received.remove(&LAST);
        (received, paths.tallies()[0].lost_first)
    }

    #[test]
    fn lanes_of_a_plan_lose_the_same_numbers() {
        let plan = Arc::new(LossPlan::new(Losses::random(30), 10..LAST, 3));
        let lost = NUMBERS.filter(|number| plan.loses(*number, 0)).count();
        let (one, counted) = received(&plan, 65_500, 1);
        assert!(
            lost > 0
                && NUMBERS.clone().all(|number| one.contains(&number) != plan.loses(number, 0))
        );
        assert_eq!(counted, lost as u64);
        assert_eq!(received(&plan, 100, 1).0, one, "of another numbering");
    }

    #[test]
    fn copy_is_a_transmission_right_after_another() {
        let plan = Arc::new(LossPlan::new(Losses::random(50), 1..LAST, 3));
        let is_saved = |number: &usize| plan.loses(*number, 1) && !plan.loses(*number, 2);
        let saved = (1..LAST).find(|number| plan.loses(*number, 0) && is_saved(number)).unwrap();
        let mut lane = Lane::new(Direction::Down, Arc::clone(&plan), NUMBERS).unwrap();
        let now = Instant::now();
        let datagram = packet(saved, 7);
        let again = now + COPIED_WITHIN;
        let lost = [now, again, again].map(|at| lane.loses(&datagram, at));
        assert_eq!(lost, [true, true, false]);
        assert_eq!(lane.tally.saved_by_copies, [saved]);
        assert_eq!(3 * lane.tally.bytes_of_copies, lane.tally.bytes);
    }

    #[test]
    fn parity_belongs_to_the_last_frame() {
        let losses = Losses::random(50);
        let plan = Arc::new(LossPlan::with_parity(losses, 0..NUMBERS.end, 3, 12, 12));
        let mut lane = Lane::new(Direction::Down, Arc::clone(&plan), NUMBERS).unwrap();
        let fields = rtp::Fields {
            payload_type: Medium::PARITY,
            marker: false,
            sequence: 1,
            timestamp: 0,
            ssrc: 8,
        };
        let mut parity = Vec::new();
        rtp::write(&fields, &[0; 30], &mut parity);
        let now = Instant::now();
        for number in NUMBERS {
            lane.loses(&packet(number, 9), now);
            if (number + 1).is_multiple_of(12) {
                let lost = [0; 4].map(|_| lane.loses(&parity, now));
                let expected = [0, 1, 2, 3].map(|place| plan.loses_parity(number / 12, place));
                assert_eq!(lost, expected, "{number}");
            }
        }
        assert_eq!((lane.tally.parities, lane.tally.unknown), (20, 0));
    }

    #[test]
    fn packet_sent_again_has_a_fate_of_its_own() {
        let plan = Arc::new(LossPlan::new(Losses::random(30), 10..LAST, 3));
        let (twice, counted) = received(&plan, 9, 2);
        assert!(NUMBERS.clone().all(|number| twice.contains(&number) != plan.loses_all(number, 1)));
        assert_eq!(counted, NUMBERS.filter(|number| plan.loses(*number, 0)).count() as u64);
    }
}
