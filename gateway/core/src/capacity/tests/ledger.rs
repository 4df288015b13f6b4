use super::super::*;

impl CapacityLedger {
    pub(crate) fn has_no_dead(&self) -> bool {
        self.dead.is_empty()
    }
}

impl LedgerView<'_> {
    /// Checks that the ledger equals the sum of these holdings and stays within every node's capacity.
    pub(crate) fn audit(self, holdings: impl Iterator<Item = Holding>) -> Result<(), String> {
        let mut sum = CapacityLedger::new(self.ledger.gauges.iter().map(Gauge::claimed).collect());
        holdings.for_each(|holding| sum.hold(holding));
        if (&sum.load, &sum.rooms, &sum.reserved)
            != (&self.ledger.load, &self.ledger.rooms, &self.ledger.reserved)
        {
            return Err(format!("the ledger says {self:?}, its rooms {sum:?}"));
        }
        // A node keeps its rooms when its measured capacity shrinks after admission.
        let broken =
            (0..self.ledger.gauges.len() as u32).find(|at| !sum.view().fits(NodeId(*at), 0));
        broken.map_or(Ok(()), |node| Err(format!("n{node} is over its capacity: {self:?}")))
    }
}

const A: NodeId = NodeId(0);
const B: NodeId = NodeId(1);
const C: NodeId = NodeId(2);

fn holding(on: NodeId, reserve: NodeId, kbps: u64) -> Holding {
    let second = SecondNode::Reserve { at: reserve, covers: None };
    Holding { on: Some(on), second, kbps, ..Holding::default() }
}

#[test]
fn reservation_is_largest_death_load() {
    let mut ledger = CapacityLedger::new(vec![100, 100, 100]);
    ledger.hold(holding(A, C, 40));
    ledger.hold(holding(B, C, 60));
    assert!(ledger.view().fits(C, 40), "one death brings 60 at most");
    assert!(!ledger.view().fits(C, 41));
    assert!(ledger.view().fits_reserve(C, A, None, 60));
    assert!(!ledger.view().fits_reserve(C, A, None, 61));
}

#[test]
fn reserve_that_yields_is_taken_by_load() {
    let mut ledger = CapacityLedger::new(vec![100, 100, 100]);
    let domain = FailureDomain::Zone(ZoneId(0));
    let covering = |on, yields, kbps| {
        let second = SecondNode::Reserve { at: C, covers: Some(Cover { domain, yields }) };
        Holding { on: Some(on), second, kbps, ..Holding::default() }
    };
    ledger.hold(covering(A, true, 40));
    ledger.hold(covering(B, true, 40));
    let view = |ledger: &CapacityLedger| {
        let at_c = ledger.view();
        (at_c.fits(C, 60), at_c.fits(C, 61), at_c.permille(C), at_c.is_overdrawn(C))
    };
    assert_eq!(view(&ledger), (true, false, 400, false), "the load of one node");
    let covers = Some(Cover { domain, yields: true });
    let takes = |kbps| ledger.view().fits_reserve(C, A, covers, kbps);
    assert_eq!((takes(20), takes(21)), (true, false), "the load of the zone");
    // A reserve that a scenario names does not make way for those.
    let named = Some(Cover { domain, yields: false });
    assert!(ledger.view().fits_reserve(C, A, named, 60));
    ledger.hold(covering(A, false, 20));
    assert_eq!(view(&ledger), (false, false, 600, false));
    ledger.hold(Holding { on: Some(C), kbps: 1, ..Holding::default() });
    assert!(ledger.view().is_overdrawn(C));
}

#[test]
fn nodes_on_one_machine_share_capacity() {
    let mut ledger = CapacityLedger::new(vec![100, 100, 100]);
    ledger.is_one_machine([A, B]);
    let on = |node, kbps| Holding { on: Some(node), kbps, ..Holding::default() };
    ledger.hold(on(A, 60));
    let fit = |ledger: &CapacityLedger| {
        (ledger.view().fits(B, 40), ledger.view().fits(B, 41), ledger.view().fits(C, 100))
    };
    assert_eq!(fit(&ledger), (true, false, true));
    assert_eq!(
        (ledger.view().carries(B, 41), ledger.view().fits_reserve(B, C, None, 41)),
        (false, false)
    );
    assert_eq!([A, B, C].map(|node| ledger.view().permille(node)), [600, 600, 0]);
    // A room that moves to the machine's new name takes its load along.
    ledger.release(on(A, 60));
    ledger.hold(on(B, 60));
    assert_eq!(fit(&ledger), (true, false, true));
    ledger.forget(A);
    ledger.add(A, 100);
    assert!(ledger.view().fits(A, 100), "another machine");
}

#[test]
fn released_load_was_held() {
    let mut ledger = CapacityLedger::new(vec![100, 100, 100]);
    ledger.hold(holding(A, C, 40));
    assert_eq!(ledger.view().standbys_of(A), [C]);
    assert_eq!(
        (ledger.view().permille(A), ledger.view().permille(C), ledger.view().rooms(A)),
        (400, 400, 1)
    );
    ledger.release(holding(A, C, 40));
    assert_eq!(ledger.view().standbys_of(A), []);
    assert_eq!(
        (ledger.view().permille(A), ledger.view().permille(C), ledger.view().rooms(A)),
        (0, 0, 0)
    );
}

#[test]
fn reserve_is_load_after_death() {
    let mut ledger = CapacityLedger::new(vec![100, 100, 100]);
    ledger.hold(holding(A, C, 40));
    ledger.hold(holding(B, C, 30));
    ledger.note_death(A);
    let at_c = |ledger: &CapacityLedger| (ledger.view().carried(C), ledger.view().reserve(C));
    assert_eq!(at_c(&ledger), (40, 30));
    assert_eq!((ledger.view().fits(C, 30), ledger.view().fits(C, 31)), (true, false));
    let own = holding(A, C, 40);
    assert_eq!(ledger.without(own).carried(C), 0);
    let stays = |kbps| ledger.without(own).fits_reserve(C, A, None, kbps);
    assert_eq!((stays(100), stays(101)), (true, false), "nothing else dies for it");
    ledger.release(own);
    ledger.hold(Holding { on: Some(C), kbps: 40, ..Holding::default() });
    assert_eq!(at_c(&ledger), (40, 30), "the room has moved");
}

#[test]
fn load_above_reservation_breaks_it() {
    let mut ledger = CapacityLedger::new(vec![100, 100, 100]);
    ledger.hold(holding(A, C, 60));
    ledger.hold(Holding { on: Some(C), kbps: 40, ..Holding::default() });
    assert!(ledger.view().fits(C, 0));
    ledger.hold(Holding { on: Some(C), kbps: 1, ..Holding::default() });
    assert!(!ledger.view().fits(C, 0));
}

#[test]
fn hitless_room_counts_at_both_nodes() {
    let mut ledger = CapacityLedger::new(vec![100, 100, 100]);
    let second = SecondNode::Twin(B);
    let both = Holding { on: Some(A), second, heading: Some(B), kbps: 40 };
    ledger.hold(both);
    assert_eq!([A, B, C].map(|node| ledger.view().permille(node)), [400, 400, 0]);
    assert_eq!((ledger.view().rooms(A), ledger.view().rooms(B)), (1, 0), "it stands on one");
    ledger.release(both);
    assert_eq!([A, B].map(|node| ledger.view().permille(node)), [0, 0]);
}

#[test]
fn moving_room_counts_at_both_ends() {
    let mut ledger = CapacityLedger::new(vec![100, 100, 100]);
    let going = Holding { heading: Some(C), ..holding(A, C, 40) };
    ledger.hold(going);
    assert_eq!((ledger.view().permille(A), ledger.view().permille(C)), (400, 400));
    assert_eq!((ledger.view().rooms(A), ledger.view().rooms(C)), (1, 0));
    ledger.release(going);
    assert_eq!((ledger.view().permille(A), ledger.view().permille(C)), (0, 0));
    let stranded = Holding { on: None, second: SecondNode::None, ..going };
    ledger.hold(stranded);
    assert_eq!((ledger.view().permille(A), ledger.view().permille(C)), (0, 400));
}
