mod gauge;
mod ledger;

use super::*;
use crate::gateway::tests::{ms, settings};

#[test]
fn churn_beyond_allowance_is_refused_for_a_second() {
    let now = Instant::now();
    let mut capacity = Capacity::new(&settings(), now);
    assert_eq!(capacity.count_churn(50, 10, now), Ok(()), "one room may always move");
    assert_eq!(capacity.count_churn(1, 51, now), Ok(()));
    assert_eq!(capacity.count_churn(1, 51, now), Err(GuardRule::Churn));
    assert_eq!(capacity.count_churn(1, 51, now + ms(999)), Err(GuardRule::Churn));
    assert_eq!(capacity.count_churn(1, 51, now + ms(1_000)), Ok(()));
}
