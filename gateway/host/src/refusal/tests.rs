use super::*;
use crate::limits::LINE_BYTES_MAX;

/// Parts of a message that a plugin supplies: field, expected and found.
const PARTS_MAX: usize = 3;

/// A message contains text of an untrusted file: one line of bounded length without control characters.
pub(crate) fn assert_is_message(refused: &PluginRefusal) {
    let text = refused.to_string();
    assert!(text.len() <= (PARTS_MAX + 1) * LINE_BYTES_MAX, "{} bytes: {text}", text.len());
    assert!(!text.contains(char::is_control), "{text:?}");
}
