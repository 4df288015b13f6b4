use super::*;

#[test]
fn losses_are_reported_once_they_have_lasted() {
    let (mut redundancy, began) = (Redundancy::default(), Instant::now());
    let peer: Arc<str> = "edge-2".into();
    let mut pass = |ms, losses: &[RedundancyLoss]| {
        redundancy.handle(losses.to_vec(), began + Duration::from_millis(ms));
        redundancy.warnings().len()
    };
    let (gone, lacks) = (RedundancyLoss::NoPeer(peer.clone()), RedundancyLoss::NotInSync(peer));
    assert_eq!(pass(0, std::slice::from_ref(&gone)), 0);
    assert_eq!(pass(2_900, &[]), 0, "it was heard again");
    assert_eq!(pass(3_000, std::slice::from_ref(&gone)), 0);
    assert_eq!(pass(5_000, &[gone.clone(), lacks.clone()]), 0);
    assert_eq!(pass(6_000, &[gone.clone(), lacks.clone()]), 1);
    assert_eq!(pass(8_000, &[lacks.clone(), gone]), 2);
    assert_eq!(pass(8_100, &[lacks]), 1);
    assert_eq!(pass(8_200, &[]), 0);
}
