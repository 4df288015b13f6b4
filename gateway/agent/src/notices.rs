//! What gateways are told unasked, and to whom: those who probed with a good signature lately.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use evenkeel_media::trunk::message::{Answer, Load, SUBSCRIBED_FOR_US, Secret};

/// Who probed within this is told.
const SUBSCRIBED_FOR: Duration = Duration::from_micros(SUBSCRIBED_FOR_US);

/// Gateways that are told at most; who probed longest ago gives way.
const GATEWAYS_MAX: usize = 256;

/// A notice that was not noted is sent again after this: three times within 20 ms.
const AGAIN: Duration = Duration::from_millis(8);
const TIMES: u32 = 3;

/// Gateways, and what they were told.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    gateways: Vec<Gateway>,
    number: u64,
}

#[derive(Debug)]
struct Gateway {
    address: SocketAddr,
    /// Of its last probe.
    nonce: u64,
    probed: Instant,
    /// What it did not note yet.
    untold: Option<Untold>,
}

#[derive(Debug)]
struct Untold {
    number: u64,
    message: Vec<u8>,
    sent: u32,
    again: Instant,
}

impl Notices {
    /// A probe was believed: this gateway is told of what changes.
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
        self.gateways.push(Gateway { address, nonce, probed: now, untold: None });
    }

    /// Tells all of them how the node fares now. How many there are.
    pub(crate) fn tell(
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
            gateway.untold = Some(Untold { number, message, sent: 1, again: now + AGAIN });
        }
        self.gateways.len() as u64
    }

    /// A gateway says that it heard. Whether something was waiting for that.
    pub(crate) fn handle_noted(&mut self, address: SocketAddr, number: u64) -> bool {
        let gateway = self.gateways.iter_mut().find(|known| known.address == address);
        gateway
            .and_then(|gateway| gateway.untold.take_if(|untold| untold.number == number))
            .is_some()
    }

    /// Says again what was not noted. How many were sent.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        mut send: impl FnMut(SocketAddr, &[u8]),
    ) -> u64 {
        let mut count = 0;
        for gateway in &mut self.gateways {
            let Some(untold) = gateway.untold.as_mut().filter(|untold| untold.again <= now) else {
                continue;
            };
            if untold.sent == TIMES {
                gateway.untold = None;
                continue;
            }
            send(gateway.address, &untold.message);
            untold.sent += 1;
            untold.again = now + AGAIN;
            count += 1;
        }
        count
    }

    /// When something is to be said again.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.gateways.iter().filter_map(|gateway| Some(gateway.untold.as_ref()?.again)).min()
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

    /// To which ports it is told.
    fn told(notices: &mut Notices, now: Instant) -> Vec<u16> {
        let mut told = Vec::new();
        notices.tell(LOAD, &secret(), (now, 9_000_000), |to, _| told.push(to.port()));
        told
    }

    #[test]
    fn only_who_probed_lately_is_told() {
        let (mut notices, now) = (Notices::default(), Instant::now());
        assert!(told(&mut notices, now).is_empty(), "nobody asked");
        notices.handle_probe(gateway(1), 7, now);
        notices.handle_probe(gateway(2), 8, now + SUBSCRIBED_FOR / 2);
        assert_eq!(told(&mut notices, now + SUBSCRIBED_FOR / 2), [1, 2]);
        assert_eq!(told(&mut notices, now + SUBSCRIBED_FOR), [2]);
    }

    #[test]
    fn a_notice_echoes_the_last_probe_and_is_no_longer() {
        let (mut notices, now) = (Notices::default(), Instant::now());
        notices.handle_probe(gateway(1), 7, now);
        notices.handle_probe(gateway(1), 8, now);
        let mut probe = Vec::new();
        Question::Probe.write(&secret(), 8, 9_000_000, &mut probe);
        notices.tell(LOAD, &secret(), (now, 9_000_000), |_, message| {
            let read = Answer::read(message, &secret(), 9_000_000).unwrap();
            assert_eq!((read.nonce, read.message), (8, Answer::Notice { number: 1, load: LOAD }));
            assert!(message.len() <= probe.len());
        });
    }

    #[test]
    fn a_notice_is_sent_three_times_within_twenty_milliseconds_and_the_same_each_time() {
        let (mut notices, start) = (Notices::default(), Instant::now());
        notices.handle_probe(gateway(1), 7, start);
        let mut sent = Vec::new();
        notices.tell(LOAD, &secret(), (start, 9_000_000), |_, message| {
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
    fn what_a_gateway_noted_is_not_said_again() {
        let (mut notices, now) = (Notices::default(), Instant::now());
        notices.handle_probe(gateway(1), 7, now);
        notices.handle_probe(gateway(2), 7, now);
        told(&mut notices, now);
        assert!(!notices.handle_noted(gateway(1), 2), "another notice");
        assert!(notices.handle_noted(gateway(1), 1));
        assert!(!notices.handle_noted(gateway(1), 1), "a copy");
        let mut again = Vec::new();
        notices.handle_timeout(now + AGAIN, |to, _| again.push(to.port()));
        assert_eq!(again, [2]);
    }

    #[test]
    fn of_too_many_gateways_who_probed_longest_ago_gives_way() {
        let (mut notices, now) = (Notices::default(), Instant::now());
        for port in 0..=GATEWAYS_MAX as u16 {
            notices.handle_probe(gateway(port), 7, now + Duration::from_micros(port.into()));
        }
        let told = told(&mut notices, now + AGAIN);
        assert_eq!(told.len(), GATEWAYS_MAX);
        assert!(!told.contains(&0) && told.contains(&(GATEWAYS_MAX as u16)));
    }
}
