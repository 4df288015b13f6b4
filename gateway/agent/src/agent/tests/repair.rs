//! Numbered bundles, and the repair of lost ones.

use evenkeel_media::trunk::{TrunkRepair, number};

use super::*;

/// First bytes of a plain and of a numbered bundle, of a repair datagram, and of a report of losses.
const MARKS: [u8; 4] = [0xE0, 0xE4, 0xE5, 0xE6];
const MS: Duration = Duration::from_millis(1);

/// Bundles of one packet, one each millisecond.
const BUNDLES: u8 = 250;

/// The number of the first bundle of both ends: numbers wrap in each test.
const FIRST_NUMBER: u16 = u16::MAX - 99;

/// Every 20th bundle is lost.
fn is_lost(number: u8) -> bool {
    number % 20 == 19
}

/// An agent and the gateway's end of its leg, encrypted or not.
struct Leg {
    scene: Scene,
    seal: Option<seal::GatewaySeal>,
    gateway: TrunkRepair,
    /// Numbers of the packets that reached the gateway.
    delivered: Vec<u8>,
    repairs: u32,
}

impl Leg {
    fn open(encrypted: bool) -> Leg {
        let mut scene = Scene::with(|settings| {
            settings.salt = encrypted.then_some(22);
            settings.instance = FIRST_NUMBER.into();
        });
        scene.agent.handle_process(true, scene.now, &mut scene.io);
        let seal = encrypted.then(|| seal::GatewaySeal::new(secret(), 11));
        let gateway = TrunkRepair::new(FIRST_NUMBER);
        let mut leg = Leg { scene, seal, gateway, delivered: Vec::new(), repairs: 0 };
        let open =
            TrunkQuestion::Open { room: 1, session: 7, tag: Tag(7), lease_s: 30, numbered: true };
        let mut message = Vec::new();
        open.write(&secret(), 1, leg.scene.now.unix_us, &mut message);
        leg.send(&message);
        leg.receive(|_| false);
        leg
    }

    /// Sends a datagram to the agent.
    fn send(&mut self, datagram: &[u8]) {
        match &mut self.seal {
            None => self.scene.receive(datagram, 1),
            Some(seal) => self.scene.receive(seal.seal(datagram), 1),
        }
    }

    /// Receives what the agent has sent, except lost bundles.
    fn receive(&mut self, is_lost: impl Fn(u8) -> bool) {
        let (now, now_us) = (self.scene.now.instant, self.scene.now.unix_us);
        for (_, mut datagram) in std::mem::take(&mut self.scene.io.sent) {
            let content: &[u8] = match &mut self.seal {
                None => &datagram,
                Some(seal) => seal.open(&mut datagram, || now_us).unwrap(),
            };
            let mark = content[0];
            if mark == MARKS[2] || mark == MARKS[3] {
                self.repairs += u32::from(mark == MARKS[2]);
                self.gateway.handle_repair(content, now).unwrap();
            } else if mark == MARKS[1] && !is_lost(number(content).unwrap() as u8) {
                assert!(self.gateway.handle_bundle(content, now), "not recovered before");
                self.delivered.extend(numbers(content));
            }
            let mut recovered = Vec::new();
            while self.gateway.take_recovered(&mut recovered) {
                self.delivered.extend(numbers(&recovered));
            }
        }
    }

    /// A millisecond later the agent and the gateway report losses.
    fn pass(&mut self, is_lost: impl Fn(u8) -> bool) {
        self.scene.pass(MS);
        self.receive(is_lost);
        if let Some(report) = self.gateway.poll_report(self.scene.now.instant) {
            self.send(&report);
        }
    }

    /// Sends a bundle with this packet to the agent. A lost one is followed by its repair datagram all the same.
    fn send_bundle(&mut self, number: u8, is_lost: bool) {
        let (mut bundle, mut datagrams) = (Bundle::new(1_400), Vec::new());
        assert!(bundle.push(Tag(7), &voice(number)));
        self.gateway.send(&mut bundle, |datagram| datagrams.push(datagram.to_vec()));
        self.repairs += datagrams.len() as u32 - 1;
        for datagram in &datagrams[usize::from(is_lost)..] {
            self.send(datagram);
        }
    }
}

/// The numbers of the packets of a bundle.
fn numbers(bundle: &[u8]) -> Vec<u8> {
    entries(bundle).map(|entry| entry.unwrap().1[3]).collect()
}

/// Numbers from the time on at which parity has begun: a loss is counted 64 bundles later, and reported within 150 ms.
fn assert_repaired(mut delivered: Vec<u8>) {
    delivered.retain(|number| *number >= 215);
    delivered.sort_unstable();
    assert_eq!(delivered, (215..BUNDLES).collect::<Vec<_>>(), "each once");
}

#[test]
fn lost_bundle_reaches_the_server() {
    for encrypted in [false, true] {
        let mut leg = Leg::open(encrypted);
        for number in 0..BUNDLES {
            leg.send_bundle(number, is_lost(number));
            leg.pass(|_| false);
        }
        let forwarded = leg.scene.io.forwarded.iter().map(|(_, _, packet)| packet[3]).collect();
        assert_repaired(forwarded);
        assert!(leg.scene.agent.counters.bundles_recovered >= 2);
        assert_eq!(leg.scene.agent.counters.malformed, 0);
    }
}

#[test]
fn lost_bundle_reaches_the_gateway() {
    for encrypted in [false, true] {
        let mut leg = Leg::open(encrypted);
        for number in 0..BUNDLES {
            leg.scene.agent.handle_from_server(0, &voice(number), &mut leg.scene.io);
            leg.scene.agent.flush(&mut leg.scene.io);
            leg.pass(is_lost);
        }
        assert_repaired(std::mem::take(&mut leg.delivered));
    }
}

#[test]
fn leg_without_loss_gets_no_repair_datagram() {
    let mut leg = Leg::open(false);
    for number in 0..BUNDLES {
        leg.send_bundle(number, false);
        leg.scene.agent.handle_from_server(0, &voice(number), &mut leg.scene.io);
        leg.scene.agent.flush(&mut leg.scene.io);
        leg.pass(|_| false);
    }
    assert_eq!((leg.repairs, leg.delivered.len()), (0, usize::from(BUNDLES)));
    assert_eq!(leg.scene.io.forwarded.len(), usize::from(BUNDLES));
}

#[test]
fn gateway_that_reads_no_numbers_gets_none() {
    let mut leg = Leg::open(false);
    let mut marks = Vec::new();
    let mut mark_after = |question: Option<TrunkQuestion>| {
        question.into_iter().for_each(|question| _ = leg.scene.ask_from(&question, 1));
        leg.scene.io.sent.clear();
        leg.scene.agent.handle_from_server(0, &voice(1), &mut leg.scene.io);
        leg.scene.agent.flush(&mut leg.scene.io);
        marks.push(leg.scene.io.sent[0].1[0]);
    };
    let keep = |numbered| TrunkQuestion::Keep { lease_s: 30, numbered, tags: [Tag(7)].into() };
    mark_after(None);
    mark_after(Some(keep(false)));
    mark_after(Some(keep(true)));
    assert_eq!(marks, [MARKS[1], MARKS[0], MARKS[1]]);
}

#[test]
fn repair_of_strangers_is_refused() {
    let mut leg = Leg::open(false);
    leg.send_bundle(1, false);
    let report = |tag: u64| [&[MARKS[3]][..], &tag.to_be_bytes(), &[0, 9, 0, 1]].concat();
    leg.scene.receive(&report(7), 2);
    leg.scene.receive(&report(8), 1);
    assert_eq!(leg.scene.agent.counters.unknown_source, 2);
    leg.scene.receive(&[MARKS[2], 0, 1], 1);
    leg.scene.receive(&report(7)[..12], 1);
    assert_eq!(leg.scene.agent.counters.malformed, 2);
    let mut encrypted = Leg::open(true);
    encrypted.scene.receive(&report(7), 1);
    assert_eq!(encrypted.scene.agent.counters.refused_unreadable, 1);
}
