//! Unsolicited notices to the gateways that sent a validly signed probe lately.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use evenkeel_media::trunk::message::{Answer, Load, SUBSCRIBED_FOR_US, Secret};

/// A gateway receives notices for this long after its last probe.
const SUBSCRIBED_FOR: Duration = Duration::from_micros(SUBSCRIBED_FOR_US);

/// Above this, the gateway with the oldest probe is dropped.
const GATEWAYS_MAX: usize = 256;

/// Retransmission interval of a notice: with [`TIMES`], three copies within 20 ms.
const RETRANSMIT_AFTER: Duration = Duration::from_millis(8);
const TIMES: u32 = 3;

#[derive(Debug, Default)]
pub(crate) struct Notices {
    gateways: Vec<Gateway>,
    number: u64,
}

#[derive(Debug)]
struct Gateway {
    address: SocketAddr,
    /// Nonce of its last probe.
    nonce: u64,
    probed: Instant,
    /// The last notice, until it is acknowledged.
    unacked: Option<Unacked>,
}

#[derive(Debug)]
struct Unacked {
    number: u64,
    message: Vec<u8>,
    sent: u32,
    resend_at: Instant,
}

impl Notices {
    /// Subscribes a gateway after a validly signed probe.
    pub(crate) fn handle_probe(&mut self, address: SocketAddr, nonce: u64, now: Instant) {
        if let Some(gateway) = self.gateways.iter_mut().find(|known| known.address == address) {
            (gateway.nonce, gateway.probed) = (nonce, now);
            return;
        }
        if self.gateways.len() == GATEWAYS_MAX
            && let Some(oldest) = (0..GATEWAYS_MAX).min_by_key(|&at| self.gateways[at].probed)
        {
            self.gateways.swap_remove(oldest);
        }
        self.gateways.push(Gateway { address, nonce, probed: now, unacked: None });
    }

    /// Sends a notice to all gateways. Returns how many there are.
    pub(crate) fn send(
        &mut self,
        load: Load,
        secret: &Secret,
        (now, unix_us): (Instant, u64),
        mut send: impl FnMut(SocketAddr, &[u8]),
    ) -> u64 {
        self.number += 1;
        let number = self.number;
        self.gateways.retain(|gateway| now.duration_since(gateway.probed) < SUBSCRIBED_FOR);
        for gateway in &mut self.gateways {
            let mut message = Vec::new();
            Answer::Notice { number, load }.write(secret, gateway.nonce, unix_us, &mut message);
            send(gateway.address, &message);
            gateway.unacked =
                Some(Unacked { number, message, sent: 1, resend_at: now + RETRANSMIT_AFTER });
        }
        self.gateways.len() as u64
    }

    /// Returns whether a notice waited for this acknowledgement.
    pub(crate) fn handle_ack(&mut self, address: SocketAddr, number: u64) -> bool {
        let gateway = self.gateways.iter_mut().find(|known| known.address == address);
        gateway
            .and_then(|gateway| gateway.unacked.take_if(|unacked| unacked.number == number))
            .is_some()
    }

    /// Retransmits notices. Returns how many were sent.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        mut send: impl FnMut(SocketAddr, &[u8]),
    ) -> u64 {
        let mut count = 0;
        for gateway in &mut self.gateways {
            let Some(unacked) = gateway.unacked.as_mut().filter(|unacked| unacked.resend_at <= now)
            else {
                continue;
            };
            if unacked.sent == TIMES {
                gateway.unacked = None;
                continue;
            }
            send(gateway.address, &unacked.message);
            unacked.sent += 1;
            unacked.resend_at = now + RETRANSMIT_AFTER;
            count += 1;
        }
        count
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.gateways.iter().filter_map(|gateway| Some(gateway.unacked.as_ref()?.resend_at)).min()
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_media::trunk::message::{Question, State};

    use super::*;

    const LOAD: Load = Load { permille: 1, state: State::Gone, sessions: 0, vouched: false };

    fn secret() -> Secret {
        Secret::new(b"a secret of many bytes").unwrap()
    }

    fn gateway(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    fn notified(notices: &mut Notices, now: Instant) -> Vec<u16> {
        let mut ports = Vec::new();
        notices.send(LOAD, &secret(), (now, 9_000_000), |to, _| ports.push(to.port()));
        ports
    }

    #[test]
    fn only_recent_probers_are_notified() {
        let (mut notices, now) = (Notices::default(), Instant::now());
        assert!(notified(&mut notices, now).is_empty(), "no gateway probed");
        notices.handle_probe(gateway(1), 7, now);
        notices.handle_probe(gateway(2), 8, now + SUBSCRIBED_FOR / 2);
        assert_eq!(notified(&mut notices, now + SUBSCRIBED_FOR / 2), [1, 2]);
        assert_eq!(notified(&mut notices, now + SUBSCRIBED_FOR), [2]);
    }

    #[test]
    fn notice_echoes_last_probe_and_is_no_longer() {
        let (mut notices, now) = (Notices::default(), Instant::now());
        notices.handle_probe(gateway(1), 7, now);
        notices.handle_probe(gateway(1), 8, now);
        let mut probe = Vec::new();
        Question::Probe.write(&secret(), 8, 9_000_000, &mut probe);
        notices.send(LOAD, &secret(), (now, 9_000_000), |_, message| {
            let read = Answer::read(message, &secret(), 9_000_000).unwrap();
            assert_eq!((read.nonce, read.message), (8, Answer::Notice { number: 1, load: LOAD }));
            assert!(message.len() <= probe.len());
        });
    }

    #[test]
    fn notice_is_sent_three_times_within_20_ms() {
        let (mut notices, start) = (Notices::default(), Instant::now());
        notices.handle_probe(gateway(1), 7, start);
        let mut sent = Vec::new();
        notices.send(LOAD, &secret(), (start, 9_000_000), |_, message| {
            sent.push((Duration::ZERO, message.to_vec()));
        });
        while let Some(at) = notices.poll_timeout() {
            notices.handle_timeout(at, |_, message| sent.push((at - start, message.to_vec())));
        }
        assert_eq!(sent.len(), 3);
        assert!(
            sent.iter()
                .all(|(at, message)| { *at < Duration::from_millis(20) && *message == sent[0].1 })
        );
    }

    #[test]
    fn acknowledged_notice_is_not_sent_again() {
        let (mut notices, now) = (Notices::default(), Instant::now());
        notices.handle_probe(gateway(1), 7, now);
        notices.handle_probe(gateway(2), 7, now);
        notified(&mut notices, now);
        assert!(!notices.handle_ack(gateway(1), 2), "another notice");
        assert!(notices.handle_ack(gateway(1), 1));
        assert!(!notices.handle_ack(gateway(1), 1), "a copy");
        let mut resend_at = Vec::new();
        notices.handle_timeout(now + RETRANSMIT_AFTER, |to, _| resend_at.push(to.port()));
        assert_eq!(resend_at, [2]);
    }

    #[test]
    fn gateway_with_oldest_probe_is_dropped() {
        let (mut notices, now) = (Notices::default(), Instant::now());
        for port in 0..=GATEWAYS_MAX as u16 {
            notices.handle_probe(gateway(port), 7, now + Duration::from_micros(port.into()));
        }
        let ports = notified(&mut notices, now + RETRANSMIT_AFTER);
        assert_eq!(ports.len(), GATEWAYS_MAX);
        assert!(!ports.contains(&0) && ports.contains(&(GATEWAYS_MAX as u16)));
    }
}
