use super::super::LayeredVideo;
use super::super::tests::{header, two_layers};
use super::*;
use crate::tests::at;

/// A video with a low layer of 100 kbit/s and a high one of 400.
struct Scene {
    video: LayeredVideo,
    ms: u64,
    limits: LayerLimits,
    is_high_sent: bool,
    sequence: u16,
}

const NONE: [(u64, usize); 0] = [];

impl Scene {
    fn new() -> Scene {
        let video = two_layers();
        Scene { video, ms: 0, limits: LayerLimits::default(), is_high_sent: true, sequence: 0 }
    }

    /// Has so much time pass. Senders answer requests for key frames at once. Returns the changes of the layer, each with its time.
    fn pass(&mut self, ms: u64) -> Vec<(u64, usize)> {
        let (end, mut changes) = (self.ms + ms, Vec::new());
        while self.ms < end {
            let (now, before) = (at(self.ms), self.video.current);
            let sent = if self.is_high_sent { 2 } else { 1 };
            for (place, bytes) in [(0, 1_250), (1, 5_000)].into_iter().take(sent) {
                self.video.note_received(place, bytes, now);
            }
            self.video.choose(self.limits, now);
            let asked = self.video.due_request(now);
            self.sequence += 1;
            for (place, ssrc) in [(0, 1), (1, 2)].into_iter().take(sent) {
                let header = header(ssrc, self.sequence, self.sequence.into());
                self.video.pass(place, &header, 90_000, || asked == Some(ssrc), now);
            }
            if self.video.current != before {
                changes.push((self.ms, self.video.current));
            }
            self.ms += 100;
        }
        changes
    }

    fn path(&mut self, kbps: u32) {
        self.limits.path_kbps = Some(kbps);
    }
}

#[test]
fn highest_layer_passes_on_an_unknown_path() {
    let mut scene = Scene::new();
    assert_eq!(scene.pass(5_000), [(500, 1)]);
    assert_eq!(scene.video.rank(), Some(2));
}

#[test]
fn layer_that_the_path_does_not_carry_is_left_at_once() {
    let mut scene = Scene::new();
    scene.pass(5_000);
    scene.path(360);
    assert_eq!(scene.pass(1_000), NONE, "within its variation");
    scene.path(359);
    assert_eq!(scene.pass(1_000), [(6_000, 0)]);
    scene.path(1);
    assert_eq!(scene.pass(1_000), NONE, "there is no lower one");
}

#[test]
fn higher_layer_is_tried_with_room_for_two_seconds() {
    let mut scene = Scene::new();
    scene.path(119);
    assert_eq!(scene.pass(5_000), NONE);
    scene.path(120);
    assert_eq!(scene.pass(5_000), [(7_000, 1)], "the estimate is low, and does not fall");
}

#[test]
fn trials_that_fail_become_rare() {
    let mut scene = Scene::new();
    let mut tried = Vec::new();
    for _ in 0..4 {
        scene.path(150);
        while scene.video.current == 0 {
            tried.extend(scene.pass(100).iter().map(|(ms, _)| *ms));
        }
        scene.path(134);
        assert_eq!(scene.pass(100).len(), 1, "it fell");
    }
    let waits: Vec<u64> = tried.windows(2).map(|pair| (pair[1] - pair[0]) / 1_000).collect();
    assert_eq!(waits, [4, 8, 16]);
}

#[test]
fn trial_ends_if_the_estimate_stays_low() {
    let mut scene = Scene::new();
    scene.path(150);
    assert_eq!(scene.pass(15_000), [(2_500, 1), (10_500, 0), (14_600, 1)]);
    scene.path(360);
    assert_eq!(scene.pass(20_000), NONE, "it is carried");
    scene.path(300);
    assert_eq!(scene.pass(1_000), [(35_000, 0)]);
    assert_eq!(scene.pass(3_000), [(37_100, 1)], "soon, since the last trial did not fail");
}

#[test]
fn cap_and_policy_bound_the_layer() {
    let mut scene = Scene::new();
    scene.pass(5_000);
    scene.limits.highest = 1;
    assert_eq!(scene.pass(1_000), [(5_000, 0)]);
    scene.limits = LayerLimits { cap_kbps: Some(300), ..LayerLimits::default() };
    assert_eq!(scene.pass(1_000), NONE);
    scene.limits.cap_kbps = Some(400);
    assert_eq!(scene.pass(1_000), [(7_000, 1)]);
    scene.limits.cap_kbps = Some(1);
    assert_eq!(scene.pass(1_000), [(8_000, 0)], "the lowest passes under any cap");
}

#[test]
fn silent_layer_is_left_and_returns() {
    let mut scene = Scene::new();
    scene.pass(5_000);
    scene.is_high_sent = false;
    let changes = scene.pass(3_000);
    assert!(matches!(changes[..], [(5_500..=6_000, 0)]), "{changes:?}");
    scene.is_high_sent = true;
    assert_eq!(scene.pass(3_000), [(8_500, 1)]);
}

#[test]
fn key_frame_is_requested_until_it_comes() {
    let mut video = two_layers();
    for ms in [0, 600] {
        video.note_received(0, 100, at(ms));
        video.note_received(1, 1_000, at(ms));
    }
    video.choose(LayerLimits::default(), at(600));
    let mut asked = Vec::new();
    for ms in (600..1_800).step_by(100) {
        asked.extend(video.due_request(at(ms)).map(|ssrc| (ms, ssrc)));
    }
    assert_eq!(asked, [(600, 2), (1_100, 2), (1_600, 2)]);
    // Nothing has come for a second.
    video.choose(LayerLimits::default(), at(2_000));
    assert_eq!(video.due_request(at(2_100)), None, "the sender has stopped");
}
