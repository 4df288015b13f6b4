//! The leg between the gateway and a node, on which bundles and their repair are lost on the way to the node.

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use evenkeel_lab::datagrams::DatagramInbox;
use evenkeel_lab::links::{Conditions, Impairment, PacketOutcome};
use evenkeel_lab::relay::pump::{self, DelayQueue, Pump, RelayHandler};
use evenkeel_media::demux::{self, DatagramKind};
use evenkeel_media::rtp::RtpHeader;
use evenkeel_media::trunk;
use nix::sys::epoll::Epoll;

use super::codes::determined;
use super::content::test_header_of;
use super::path::{HEADERS, socket};

/// The first byte of a repair datagram (docs/trunk.md).
const REPAIR: u8 = 0xe5;
/// The place of the near end among the sockets.
const NEAR: u64 = u64::MAX;
/// Bundles that a repair datagram covers: the last ones before it.
const WINDOW: usize = 20;
/// A bundle that is recovered later counts as lost.
const RECOVERED_WITHIN: Duration = Duration::from_millis(10);
/// Bundles before a lost one whose losses may decide about it.
const NEAR_BUNDLES: usize = 3 * WINDOW;

/// A running leg. Dropping it ends its thread.
pub(super) struct LossyLeg {
    pump: Pump<LegRelay>,
    near: SocketAddr,
}

/// A bundle or a repair datagram on its way to the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LegDatagram {
    at: Instant,
    is_repair: bool,
    is_lost: bool,
    bytes: usize,
}

/// The datagrams of a part of the row, in their order.
#[derive(Clone, Default, Debug)]
pub(super) struct LegLog {
    datagrams: Vec<LegDatagram>,
    /// The packets in bundles that were lost.
    pub(super) lost_packets: BTreeSet<SentPacket>,
}

/// A packet of a client, by its test header.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct SentPacket {
    pub(super) session: u64,
    pub(super) number: u64,
}

struct LegRelay {
    node: SocketAddr,
    near: UdpSocket,
    senders: Vec<LegSender>,
    late: DelayQueue<()>,
    link: Impairment,
    /// No repair datagram passes.
    is_without_repair: bool,
    /// One for each part so far.
    logs: Vec<LegLog>,
}

struct LegSender {
    source: SocketAddr,
    far: UdpSocket,
}

impl LossyLeg {
    /// Starts a leg to the node at this address, without losses. `is_without_repair`: no repair datagram passes.
    ///
    /// # Errors
    /// The system has no sockets or threads.
    pub(super) fn start(node: SocketAddr, is_without_repair: bool) -> io::Result<LossyLeg> {
        let near = socket()?;
        let address = near.local_addr()?;
        let relay = LegRelay {
            node,
            near,
            senders: Vec::new(),
            late: DelayQueue::default(),
            link: Impairment::new(0),
            is_without_repair,
            logs: vec![LegLog::default()],
        };
        let leg = LossyLeg { pump: Pump::start("media-leg", relay)?, near: address };
        let relay = leg.pump.world();
        leg.pump.watch(&relay.near, NEAR)?;
        drop(relay);
        Ok(leg)
    }

    /// The address of the node for the gateway.
    pub(super) fn near(&self) -> SocketAddr {
        self.near
    }

    /// Begins a part of the row with independent losses of this many per cent.
    pub(super) fn begin(&self, percent: u32, seed: u64) {
        let mut relay = self.pump.world();
        relay.link = Impairment::new(seed);
        relay.link.conditions = Conditions::loss_percent(percent);
        relay.logs.push(LegLog::default());
    }

    /// The datagrams of each part, that before the first [`LossyLeg::begin`] too.
    pub(super) fn logs(&self) -> Vec<LegLog> {
        self.pump.world().logs.clone()
    }
}

impl RelayHandler for LegRelay {
    type Kept = ();

    fn late(&mut self) -> &mut DelayQueue<()> {
        &mut self.late
    }

    fn read(&mut self, place: u64, inbox: &mut DatagramInbox, epoll: &Epoll) {
        if place != NEAR {
            let sender = &self.senders[place as usize];
            // An ICMP error of an earlier packet.
            if inbox.receive(&sender.far).is_ok() {
                for datagram in inbox.iter() {
                    let _lost_at_worst = self.near.send_to(datagram.bytes, sender.source);
                }
            }
            return;
        }
        if inbox.receive(&self.near).is_err() {
            return;
        }
        let now = Instant::now();
        for datagram in inbox.iter() {
            if self.loses(datagram.bytes, now) {
                continue;
            }
            // A system without sockets loses the packet, as one whose socket is full does.
            if let Ok(sender) = self.sender(datagram.source, epoll) {
                let _lost_at_worst = sender.far.send(datagram.bytes);
            }
        }
    }

    fn send(&mut self, (): ()) {}
}

impl LegRelay {
    /// Counts a datagram to the node. Returns true if it is lost.
    fn loses(&mut self, datagram: &[u8], at: Instant) -> bool {
        let is_repair = datagram.first() == Some(&REPAIR);
        if !is_repair && demux::classify(datagram) != DatagramKind::Bundle {
            return false;
        }
        let is_dropped = matches!(self.link.decide(at, 0), PacketOutcome::Drop(_));
        let is_lost = is_dropped || is_repair && self.is_without_repair;
        if let Some(log) = self.logs.last_mut() {
            log.datagrams.push(LegDatagram { at, is_repair, is_lost, bytes: datagram.len() });
            if is_lost {
                log.lost_packets.extend(packets_in(datagram));
            }
        }
        is_lost
    }

    fn sender(&mut self, source: SocketAddr, epoll: &Epoll) -> io::Result<&LegSender> {
        let known = self.senders.iter().position(|sender| sender.source == source);
        let place = match known {
            Some(place) => place,
            None => {
                let far = socket()?;
                far.connect(self.node)?;
                pump::watch(epoll, &far, self.senders.len() as u64)?;
                self.senders.push(LegSender { source, far });
                self.senders.len() - 1
            }
        };
        Ok(&self.senders[place])
    }
}

/// The packets of senders in a bundle.
fn packets_in(datagram: &[u8]) -> impl Iterator<Item = SentPacket> {
    trunk::entries(datagram).filter_map(|entry| {
        let (_, packet) = entry.ok()?;
        let header = RtpHeader::parse(packet).ok()?;
        let sent = test_header_of(header.payload(packet))?;
        Some(SentPacket { session: sent.session, number: sent.number })
    })
}

impl LegLog {
    fn bundles(&self) -> impl Iterator<Item = &LegDatagram> {
        self.datagrams.iter().filter(|datagram| !datagram.is_repair)
    }

    pub(super) fn bundle_count(&self) -> usize {
        self.bundles().count()
    }

    /// The share of bundles that were lost, in per cent.
    pub(super) fn lost(&self) -> f64 {
        let lost = self.bundles().filter(|bundle| bundle.is_lost).count();
        100.0 * lost as f64 / self.bundle_count().max(1) as f64
    }

    /// Repair datagrams, in per cent of the bundles.
    pub(super) fn repairs(&self) -> f64 {
        let repairs = self.datagrams.len() - self.bundle_count();
        100.0 * repairs as f64 / self.bundle_count().max(1) as f64
    }

    /// Bytes of repair, in per cent of those of bundles, with the headers of IPv4 and UDP.
    pub(super) fn bytes_over(&self) -> f64 {
        let bytes = |datagram: &LegDatagram| datagram.bytes as u64 + HEADERS;
        let of_bundles: u64 = self.bundles().map(bytes).sum();
        let all: u64 = self.datagrams.iter().map(bytes).sum();
        100.0 * (all - of_bundles) as f64 / of_bundles.max(1) as f64
    }

    /// The least share of bundles, in per cent, that a code with this window and this delay leaves of those that were lost: equations with
    /// independent coefficients for the repair datagrams that passed.
    pub(super) fn bound(&self) -> f64 {
        let bundles: Vec<&LegDatagram> = self.bundles().collect();
        // Repair datagrams that passed, each with the number of bundles before it.
        let mut before = 0;
        let mut repairs: Vec<(usize, Instant)> = Vec::new();
        for datagram in &self.datagrams {
            before += usize::from(!datagram.is_repair);
            if datagram.is_repair && !datagram.is_lost {
                repairs.push((before, datagram.at));
            }
        }
        let lost: Vec<usize> = (0..bundles.len()).filter(|place| bundles[*place].is_lost).collect();
        let is_left = |place: &&usize| {
            let from = place.saturating_sub(NEAR_BUNDLES);
            let until = bundles[**place].at + RECOVERED_WITHIN;
            let first = repairs.partition_point(|(before, _)| *before <= from + WINDOW);
            let in_time = repairs[first..].iter().take_while(|(_, at)| *at <= until);
            let windows: Vec<usize> = in_time.map(|(before, _)| *before).collect();
            let end = windows.last().copied().unwrap_or(0);
            let unknowns = &lost[lost.partition_point(|it| *it < from)..];
            let unknowns = &unknowns[..unknowns.partition_point(|it| *it < end)];
            let equations: Vec<Vec<usize>> = windows
                .iter()
                .map(|end| {
                    let covered = end.saturating_sub(WINDOW)..*end;
                    let is_covered = |index: &usize| covered.contains(&unknowns[*index]);
                    (0..unknowns.len()).filter(is_covered).collect()
                })
                .collect();
            let index = unknowns.iter().position(|it| it == *place);
            index.is_none_or(|index| !determined(&equations, unknowns.len())[index])
        };
        100.0 * lost.iter().filter(is_left).count() as f64 / bundles.len().max(1) as f64
    }
}

#[cfg(test)]
pub(super) mod tests {
    use evenkeel_media::rtp;

    use super::super::content;
    use super::super::row::Medium;
    use super::*;

    /// Bundles each 500 µs, and a repair datagram after each fifth.
    pub(in super::super) fn log(
        count: usize,
        mut is_lost: impl FnMut(usize, bool) -> bool,
    ) -> LegLog {
        let begins = Instant::now();
        let mut log = Vec::new();
        for number in 0..count {
            let at = begins + Duration::from_micros(500) * number as u32;
            let bundle = LegDatagram { at, is_repair: false, is_lost: false, bytes: 72 };
            log.push(LegDatagram { is_lost: is_lost(number, false), ..bundle });
            if (number + 1).is_multiple_of(5) {
                let is_lost = is_lost(number, true);
                log.push(LegDatagram { is_repair: true, is_lost, ..bundle });
            }
        }
        LegLog { datagrams: log, lost_packets: BTreeSet::new() }
    }

    #[test]
    fn lost_bundle_tells_its_packets() {
        let node = socket().unwrap().local_addr().unwrap();
        let leg = LossyLeg::start(node, true).unwrap();
        leg.begin(100, 1);
        let mut bundle = trunk::Bundle::new(1_400);
        for number in [4, 5] {
            let fields = rtp::Fields {
                payload_type: 111,
                marker: false,
                sequence: number as u16,
                timestamp: 0,
                ssrc: 1,
            };
            let mut packet = Vec::new();
            rtp::write(&fields, &content::write(Medium::Voice, 3, number), &mut packet);
            assert!(bundle.push(trunk::Tag(9), &packet));
        }
        let (plain, numbered) = (bundle.as_bytes().to_vec(), bundle.numbered(1).to_vec());
        let mut relay = leg.pump.world();
        let now = Instant::now();
        assert!(relay.loses(&plain, now) && relay.loses(&numbered, now));
        assert!(!relay.loses(&[0xe1, 0], now), "a signed message");
        let packets = [4, 5].map(|number| SentPacket { session: 3, number });
        assert_eq!(relay.logs[1].lost_packets, BTreeSet::from(packets));
        drop(relay);
        leg.begin(0, 1);
        let mut relay = leg.pump.world();
        let datagrams = [&plain[..], &[REPAIR, 0]];
        assert_eq!(datagrams.map(|it| relay.loses(it, now)), [false, true], "without repair");
    }

    #[test]
    fn shares_are_those_of_bundles() {
        let log = log(1_000, |number, is_repair| !is_repair && number % 20 == 3);
        assert_eq!((log.bundle_count(), log.lost(), log.repairs()), (1_000, 5.0, 20.0));
        assert_eq!(log.bytes_over(), 20.0);
    }

    #[test]
    fn bound_needs_a_repair_for_each_loss_in_time() {
        assert_eq!(log(1_000, |number, is_repair| !is_repair && number == 503).bound(), 0.0);
        let without = log(1_000, |number, is_repair| is_repair || number == 503);
        assert_eq!(without.bound(), 0.1);
        // Four repair datagrams come within 10 ms of the first of four losses, and one is needed for each.
        let burst = |length: usize| {
            log(1_000, |number, is_repair| !is_repair && (500..500 + length).contains(&number))
        };
        assert_eq!(burst(4).bound(), 0.0);
        assert!(burst(12).bound() > 0.5);
    }

    #[test]
    fn bound_of_random_losses_is_that_of_the_issue() {
        let mut link = Impairment::new(5);
        link.conditions = Conditions::loss_percent(5);
        let now = Instant::now();
        let log = log(200_000, |_, _| matches!(link.decide(now, 0), PacketOutcome::Drop(_)));
        let bound = log.bound();
        assert!((0.03..0.16).contains(&bound), "{bound}");
    }
}
