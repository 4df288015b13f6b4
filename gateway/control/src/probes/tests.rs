use super::*;

#[test]
fn agent_decides_on_process_and_node_on_sessions() {
    let scope = |beside, has_agent, speaks| {
        let ReportScope { process, sessions } = ReportScope::of(beside, has_agent, speaks);
        (process, sessions)
    };
    assert_eq!(scope(true, true, true), (true, false));
    assert_eq!(scope(false, true, true), (false, true));
    assert_eq!(scope(true, true, false), (true, true), "the node does not report");
    assert_eq!(scope(false, false, true), (true, true), "no agent");
}
