use evenkeel_config::{ConfigBitRate, DriverSettings, NodeProbe, Signalling};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Nodes named by these numbers, at distinct addresses.
fn nodes(numbers: impl IntoIterator<Item = u32>) -> Vec<NodeConfig> {
    numbers.into_iter().map(|number| node(&number.to_string(), number)).collect()
}

fn node(name: &str, at: u32) -> NodeConfig {
    NodeConfig::new(
        name.into(),
        SocketAddr::from(([10, 0, 0, 1], at as u16)),
        "east".into(),
        "a".into(),
        DriverSettings::new("plain", NodeProbe::None, Signalling::None),
        ConfigBitRate(1_000_000),
    )
}

/// A changing node list and its start time.
struct Listed {
    guard: DownstreamGuard,
    stands: Vec<Arc<NodeConfig>>,
    start: Instant,
}

impl Listed {
    fn of(numbers: impl IntoIterator<Item = u32>) -> Listed {
        let stands = nodes(numbers).into_iter().map(Arc::new).collect();
        Listed { guard: DownstreamGuard::default(), stands, start: Instant::now() }
    }

    fn held(&mut self, list: &[NodeConfig], second: u32) -> Option<Shrinks> {
        self.guard.check(list, &self.stands, self.start + SECOND * second).err()
    }

    /// Replaces the current list if the guard allows it.
    fn takes(&mut self, list: &[NodeConfig], second: u32) -> bool {
        let may = self.held(list, second).is_none();
        if may {
            self.is(list, second);
        }
        may
    }

    fn is(&mut self, list: &[NodeConfig], second: u32) {
        let stood = std::mem::take(&mut self.stands);
        self.guard.note(stood, self.start + SECOND * second);
        self.stands = list.iter().cloned().map(Arc::new).collect();
    }
}

#[test]
fn thirty_per_cent_may_be_removed_at_once() {
    for (left, of, may) in
        [(0, 0, true), (2, 3, false), (3, 4, true), (7, 10, true), (6, 10, false), (0, 1, false)]
    {
        assert_eq!(Listed::of(0..of).takes(&nodes(0..left), 0), may, "{left} of {of}");
    }
}

#[test]
fn small_steps_within_a_minute_add_up() {
    let mut listed = Listed::of(0..10);
    assert!(listed.takes(&nodes(0..8), 0));
    assert!(listed.takes(&nodes(0..7), 20));
    assert!(!listed.takes(&nodes(0..6), 40));
    assert_eq!(
        listed.held(&nodes(0..6), 59),
        Some(Shrinks { removing: 1, before: 3, of: 10 }),
        "what was refused does not count"
    );
    assert!(listed.takes(&nodes(0..6), 61), "1 went lately, of 8");
    assert!(!listed.takes(&nodes(0..5), 62));
}

#[test]
fn added_nodes_do_not_hide_removals() {
    let mut listed = Listed::of(0..4);
    assert!(listed.takes(&nodes(0..104), 0));
    assert!(!listed.takes(&nodes(4..104), 1), "all that were there a minute ago");
    assert!(listed.takes(&nodes(1..104), 1));
}

#[test]
fn recently_added_nodes_count_like_others() {
    let mut listed = Listed::of(0..0);
    assert!(listed.takes(&nodes(0..100), 0));
    assert!(listed.takes(&nodes(0..70), 1));
    assert!(!listed.takes(&nodes(0..69), 2));
    let mut listed = Listed::of(0..4);
    assert!(listed.takes(&nodes(0..104), 0));
    assert!(listed.takes(&nodes(0..102), 1), "none of the first four");
}

#[test]
fn renamed_or_moved_node_is_not_missing() {
    let mut listed = Listed::of(0..4);
    let mut moved = nodes(0..4);
    moved[..2].iter_mut().for_each(|node| node.region = "west".into());
    moved[2] = node("another name", 2);
    moved[3] = node("0", 3);
    assert!(listed.takes(&moved, 0));
    let gone = Shrinks { removing: 2, before: 0, of: 4 };
    assert_eq!(listed.held(&moved[2..], 1), Some(gone));
}

#[test]
fn node_with_another_driver_is_missing() {
    let readdressed = |of: u32| -> Vec<NodeConfig> {
        let at = |number| if number < of { 99 + number } else { number };
        (0..4).map(|number| node(&number.to_string(), at(number))).collect()
    };
    assert!(Listed::of(0..4).takes(&readdressed(1), 0));
    let gone = Shrinks { removing: 4, before: 0, of: 4 };
    assert_eq!(Listed::of(0..4).held(&readdressed(4), 0), Some(gone), "the names are all there");
    let mut probed = nodes(0..4);
    probed[..2].iter_mut().for_each(|node| {
        node.driver = DriverSettings::new("plain", NodeProbe::Stun, Signalling::None);
    });
    assert!(Listed::of(0..4).held(&probed, 0).is_some());
}

#[test]
fn returned_node_is_not_missing() {
    let mut listed = Listed::of(0..4);
    assert!(listed.takes(&nodes([0, 1, 2]), 0));
    assert!(listed.takes(&nodes([0, 1, 2, 3]), 2));
    assert!(listed.takes(&nodes([1, 2, 3]), 4));
}

#[test]
fn forced_removal_resets_the_count() {
    let mut listed = Listed::of(0..4);
    assert!(listed.takes(&nodes(0..3), 0));
    assert!(listed.held(&nodes(0..2), 1).is_some());
    listed.guard.restart();
    listed.stands = nodes(0..10).into_iter().map(Arc::new).collect();
    assert!(listed.takes(&nodes(0..7), 2));
}

#[test]
fn fast_lists_use_bounded_memory() {
    let (mut guard, start) = (DownstreamGuard::default(), Instant::now());
    for ms in 0..200_000 {
        let now = start + Duration::from_millis(ms);
        assert!(guard.check(&[], &[], now).is_ok());
        guard.note(Vec::new(), now);
    }
    assert!(guard.lately.len() <= 62, "{}", guard.lately.len());
}

#[test]
fn error_names_count_limit_and_remedy() {
    let said = |before| Shrinks { removing: 2, before, of: 4 }.to_string();
    assert!(said(0).starts_with("2 of 4 nodes would be removed or reached in another way, more"));
    assert!(said(1).starts_with("2 of 4 nodes would be removed after 1 removed before or"));
    assert!(said(0).ends_with("run `evenkeel reload --force`"));
}

#[test]
fn name_is_of_the_node_that_stays() {
    let mut listed = ListedNodes::default();
    listed.put(NodeId(0), Arc::new(node("a", 1)));
    let leaving = listed.begin_removal(&[NodeId(0)]);
    assert_eq!(leaving.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [NodeId(0)]);
    assert_eq!(listed.node_named("a"), Some(NodeId(0)), "no other node has the name");
    listed.put(NodeId(1), Arc::new(node("a", 2)));
    assert_eq!(listed.node_named("a"), Some(NodeId(1)));
    assert_eq!((listed.leaves(NodeId(0)), listed.leaves(NodeId(1))), (true, false));
    assert_eq!(listed.begin_removal(&[]).len(), 1, "the first is still being removed");
    assert_eq!(&*listed.take(NodeId(0)).unwrap().name, "a");
    assert!(listed.begin_removal(&[]).is_empty());
    assert_eq!(listed.config(NodeId(0)), None);
}
