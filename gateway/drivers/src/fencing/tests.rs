use super::*;

#[test]
fn only_an_owner_has_an_epoch() {
    let (fencing, mut refused) = Fencing::new(9);
    assert_eq!(fencing.owner(), None);
    fencing.handle_refused(NodeId(0), 3);
    fencing.set_epoch(4);
    assert_eq!(fencing.owner(), Some(GroupOwner { group: 9, epoch: 4 }));
    fencing.handle_refused(NodeId(0), 4);
    assert!(refused.try_recv().is_err(), "no newer epoch");
    fencing.handle_refused(NodeId(0), 5);
    assert_eq!(refused.try_recv(), Ok(5));
    fencing.set_epoch(0);
    assert_eq!(fencing.owner(), None);
}
