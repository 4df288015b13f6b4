use super::*;
use crate::messages::{BEAT_LEN_MAX, Echo, VOTERS_MAX, Voter};

fn beat() -> Beat {
    let voter = |id: u64| Voter { id: WitnessId(id), instance: id as u32 };
    Beat {
        incarnation: 7,
        sequence: 8,
        role: BeatRole::Owner,
        epoch: 3,
        highest: 4,
        echo: Echo { incarnation: 5, sequence: 6 },
        whole: true,
        spare: false,
        preferred: false,
        records: 12,
        takeovers: 3,
        voters: (0..VOTERS_MAX as u64).map(voter).collect(),
    }
}

#[test]
fn beats_survive_encoding() {
    for standing in [BeatRole::Standby, BeatRole::Owner, BeatRole::Yielded] {
        let beat = Beat { role: standing, ..beat() };
        assert_eq!(Beat::decode(&beat.encode()), Some(beat));
    }
    assert_eq!(beat().encode().len(), BEAT_LEN_MAX);
    let bare = Beat { voters: Vec::new(), ..beat() };
    assert_eq!(Beat::decode(&bare.encode()), Some(bare));
}

#[test]
fn malformed_beats_are_refused() {
    let good = beat().encode();
    for len in 0..good.len() {
        assert_eq!(Beat::decode(&good[..len]), None);
    }
    assert_eq!(Beat::decode(&[&good[..], &[0]].concat()), None);
    for (at, byte) in [(0, 3), (1, 8), (2, VOTERS_MAX as u8 + 1)] {
        let mut bad = good.clone();
        bad[at] = byte;
        assert_eq!(Beat::decode(&bad), None);
    }
}

#[test]
fn replayed_beats_change_nothing() {
    let now = Instant::now();
    let settings = ClusterSettings {
        members: 2,
        rank: 0,
        preferred: false,
        incarnation: 5,
        continued: None,
        hold_down: HOLD_DOWN,
    };
    let mut cluster = Cluster::new(settings, now);
    cluster.handle_beat(PeerId(0), beat(), now);
    assert_eq!(cluster.epoch(), 3);
    let replays = [
        Beat { epoch: 9, ..beat() },
        Beat { sequence: 7, epoch: 9, ..beat() },
        Beat { incarnation: 6, sequence: 99, epoch: 9, ..beat() },
    ];
    for replay in replays {
        cluster.handle_beat(PeerId(0), replay, now);
        assert_eq!(cluster.epoch(), 3);
    }
}

/// A process that continues the ownership of this epoch.
fn owner_since(epoch: u64, now: Instant) -> Cluster {
    let standby = Some(PeerId(0));
    let before =
        ContinuedOwnership { sequence: 1_000, epoch, highest: epoch, takeovers: 0, standby };
    let settings = ClusterSettings {
        members: 2,
        rank: 1,
        preferred: true,
        incarnation: 5,
        continued: Some(before),
        hold_down: HOLD_DOWN,
    };
    Cluster::new(settings, now)
}

/// As after a firewall answered in the owner's place.
#[test]
fn owner_of_the_older_epoch_steps_down() {
    let now = Instant::now();
    let mut old = owner_since(1, now);
    old.handle_beat(PeerId(0), Beat { epoch: 2, ..beat() }, now);
    assert!(!old.is_owner());
    let outputs: Vec<ClusterOutput> = std::iter::from_fn(|| old.poll_output()).collect();
    let stops = outputs.iter().position(|output| *output == ClusterOutput::MaySend(MaySend::Never));
    let steps = outputs.iter().position(|output| *output == ClusterOutput::StepDown(2));
    assert!(stops.is_some() && stops < steps);
}

#[test]
fn owner_of_the_newer_epoch_stays() {
    let now = Instant::now();
    let mut new = owner_since(5, now);
    new.handle_beat(PeerId(0), Beat { epoch: 2, ..beat() }, now);
    assert!(new.is_owner());
}
