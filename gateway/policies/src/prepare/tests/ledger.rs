use evenkeel_model::Hook;

use super::*;

fn routing() -> PolicyName {
    PolicyName { set: "call".into(), hook: Hook::Routing }
}

#[test]
fn oldest_refusal_is_dropped_at_limit() {
    let ledger = RefusalLedger::default();
    for number in 0..=REFUSALS_MAX {
        let reason = number.to_string().into();
        ledger.refuse(RefusalRecord::now(routing(), "pushed".into(), "import", reason));
    }
    let kept = ledger.refusals();
    assert_eq!((kept.len(), &*kept[0].reason), (REFUSALS_MAX, "1"));
}
