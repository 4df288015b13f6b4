//! Gateways of a group, of which one owns the sessions.

use evenkeel_media::trunk::{GroupOwner, Hold, Vote, Voted};

use super::*;

const GROUP: u32 = 9;
/// Ports of the gateways.
const OLD: u16 = 1;
const NEW: u16 = 2;

impl Scene {
    fn ask_owned(
        &mut self,
        question: &TrunkQuestion,
        epoch: u64,
        from: u16,
    ) -> Option<TrunkAnswer> {
        self.nonce += 1;
        self.now.unix_us += 1;
        let (mut bytes, owner) = (Vec::new(), GroupOwner { group: GROUP, epoch });
        question.write_for(Some(owner), &secret(), self.nonce, self.now.unix_us, &mut bytes);
        self.io.sent.clear();
        self.receive(&bytes, from);
        self.answers().pop().map(|(to, nonce, answer)| {
            assert_eq!((to, nonce), (from, self.nonce));
            answer
        })
    }

    fn vote(&mut self, vote: Vote) -> Voted {
        match self.ask(&TrunkQuestion::Vote { group: GROUP, vote }) {
            Some(TrunkAnswer::Vote(voted)) => voted,
            other => panic!("{other:?}"),
        }
    }

    /// The port of the gateway that gets the session's packets.
    fn served(&mut self) -> u16 {
        self.io.sent.clear();
        self.agent.handle_from_server(0, &voice(2), &mut self.io);
        self.agent.flush(&mut self.io);
        self.io.sent[0].0
    }
}

fn open() -> TrunkQuestion {
    TrunkQuestion::Open { room: 1, session: 7, tag: Tag(7), lease_s: 30, numbered: false }
}

fn keep() -> TrunkQuestion {
    TrunkQuestion::Keep { lease_s: 30, numbered: false, tags: [Tag(7)].into() }
}

const OPENED: Option<TrunkAnswer> = Some(TrunkAnswer::Open { tag: Tag(7), status: OpenStatus::Ok });
const SUPERSEDED: Option<TrunkAnswer> = Some(TrunkAnswer::Superseded { epoch: 4 });

#[test]
fn older_epoch_moves_no_leg() {
    let mut scene = Scene::new();
    assert_eq!(scene.ask_owned(&open(), 3, OLD), OPENED);
    assert_eq!(scene.ask_owned(&keep(), 4, NEW), Some(TrunkAnswer::Keep { unknown: [].into() }));
    assert_eq!(scene.served(), NEW);
    let orders = [
        open(),
        keep(),
        TrunkQuestion::Close { tag: Tag(7) },
        TrunkQuestion::Probe,
        TrunkQuestion::Drain,
        TrunkQuestion::Break(NodeFault::Kill),
        TrunkQuestion::Path { bundle_max: 1_200, padding: 0 },
    ];
    for question in &orders {
        assert_eq!(scene.ask_owned(question, 3, OLD), SUPERSEDED, "{question:?}");
    }
    assert_eq!(scene.served(), NEW);
    assert!(scene.io.closed.is_empty() && scene.io.signals.is_empty());
    assert_eq!(scene.agent.counters.refused_superseded, orders.len() as u64);
    let lines = scene.io.log.iter().filter(|line| line.contains("owner since epoch 4"));
    assert_eq!(lines.count(), 1);
    // The new owner is served on.
    assert_eq!(scene.ask_owned(&open(), 4, NEW), OPENED);
}

#[test]
fn gateways_without_a_group_are_served_as_before() {
    let mut scene = Scene::new();
    assert_eq!(scene.ask_owned(&TrunkQuestion::Drain, 4, NEW).map(|_| ()), Some(()));
    scene.agent.handle_drain(false, scene.now, &mut scene.io);
    assert_eq!(scene.open(7), Some(OpenStatus::Ok));
    assert!(scene.probe().is_some());
}

#[test]
fn forged_replayed_and_late_epochs_fence_no_owner() {
    let mut scene = Scene::new();
    assert_eq!(scene.ask_owned(&open(), 3, OLD), OPENED);
    let forge = |scene: &Scene, secret: &NodeSecret, at_us: u64| {
        let (mut bytes, owner) = (Vec::new(), GroupOwner { group: GROUP, epoch: 99 });
        TrunkQuestion::Probe.write_for(Some(owner), secret, scene.nonce + 1, at_us, &mut bytes);
        bytes
    };
    let now_us = scene.now.unix_us;
    let others = NodeSecret::new(b"a secret of many bytes", "east-a2").unwrap();
    let guessed = NodeSecret::new(b"another guess of some", "east-a1").unwrap();
    let mut changed = forge(&scene, &secret(), now_us);
    changed[31] ^= 1;
    // The time of the signature is out of the window.
    let late = forge(&scene, &secret(), now_us - 6_000_000);
    for forged in [forge(&scene, &others, now_us), forge(&scene, &guessed, now_us), changed, late] {
        (0..1_000).for_each(|_| scene.receive(&forged, 9));
    }
    // A standby, and a gateway without a group, raise nothing either.
    scene.ask_from(&TrunkQuestion::Probe, 9);
    scene.vote(Vote::Standby);
    assert_eq!(scene.ask_owned(&open(), 3, OLD), OPENED);
    assert_eq!((scene.served(), scene.agent.counters.refused_superseded), (OLD, 0));
}

#[test]
fn replayed_question_of_the_old_owner_is_refused() {
    let mut scene = Scene::new();
    let (mut recorded, owner) = (Vec::new(), GroupOwner { group: GROUP, epoch: 3 });
    scene.now.unix_us += 1;
    open().write_for(Some(owner), &secret(), 70, scene.now.unix_us, &mut recorded);
    scene.receive(&recorded, OLD);
    assert_eq!(scene.ask_owned(&keep(), 4, NEW), Some(TrunkAnswer::Keep { unknown: [].into() }));
    scene.receive(&recorded, OLD);
    assert_eq!((scene.served(), scene.agent.counters.refused_replayed), (NEW, 1));
}

#[test]
fn agent_testifies_when_it_heard_the_owner() {
    let mut scene = Scene::new();
    let unheard = Voted { epoch: 0, promised: 0, heard: None, instance: 77 };
    assert_eq!(scene.vote(Vote::Standby), unheard);
    scene.ask_owned(&TrunkQuestion::Probe, 3, OLD);
    scene.pass(Duration::from_millis(20));
    let heard = Some(Duration::from_millis(20));
    assert_eq!(scene.vote(Vote::Standby), Voted { epoch: 3, heard, ..unheard });
    let claim = Vote::Claim { base: 3, claim: 4 };
    assert_eq!(scene.vote(claim), Voted { epoch: 3, promised: 4, heard, ..unheard });
    // A promise refuses nothing yet.
    assert!(matches!(scene.ask_owned(&TrunkQuestion::Probe, 3, OLD), Some(TrunkAnswer::Probe(_))));
}

#[test]
fn no_claim_succeeds_during_a_hold() {
    let mut scene = Scene::new();
    let hold = Hold::For(Duration::from_millis(25));
    scene.vote(Vote::Owner { epoch: 3, hold });
    let claim = Vote::Claim { base: 3, claim: 4 };
    assert_eq!(scene.vote(claim).promised, 0);
    scene.pass(Duration::from_millis(25));
    assert_eq!(scene.vote(claim).promised, 4);
}

#[test]
fn agent_with_a_dead_server_still_votes() {
    let mut scene = Scene::with(|settings| {
        (settings.has_process, settings.has_check) = (false, true);
    });
    assert_eq!(scene.ask(&TrunkQuestion::Probe), None);
    scene.vote(Vote::Standby);
}
