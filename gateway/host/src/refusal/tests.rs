use super::*;
use crate::limits::LINE_BYTES_MAX;

#[test]
fn failed_call_names_its_limit() {
    let said = |call, fault| PluginRefusal::Faulted { call, fault }.to_string();
    assert_eq!(
        said("tick", PluginFault::Deadline),
        "`tick` did not return within 5 ms; is there an endless loop?"
    );
    assert!(said("init", PluginFault::Deadline).contains("within 250 ms;"));
    assert_eq!(said("tick", PluginFault::OutOfMemory), "`tick` wanted more than 16 MiB of memory");
    let trap = PluginFault::Trap("unreachable".into());
    assert_eq!(said("place", trap), "the plugin failed in `place`: unreachable");
}

/// Parts of a message that a plugin supplies: field, expected and found.
const PARTS_MAX: usize = 3;

/// A message contains text of an untrusted file: one line of bounded length without control characters.
pub(crate) fn assert_is_message(refused: &PluginRefusal) {
    let text = refused.to_string();
    assert!(text.len() <= (PARTS_MAX + 1) * LINE_BYTES_MAX, "{} bytes: {text}", text.len());
    assert!(!text.contains(char::is_control), "{text:?}");
}
