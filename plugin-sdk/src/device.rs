//! Labels that limit the bit rate to a device. The gateway reads them by the same lines.

/// Highest bit rates in kbit/s by the height of the video: the most that the embedded sets give video of that height,
/// voice included.
const KBPS_BY_HEIGHT: [(u32, u32); 3] = [(360, 1_000), (720, 2_500), (1_080, 6_000)];

/// The highest bit rate in kbit/s that labels allow to the device; `None` without a limit.
///
/// A `publisher` receives no media, so its labels limit nothing. Values that are no number are ignored.
pub(crate) fn max_kbps<'a>(label: impl Fn(&str) -> Option<&'a str>) -> Option<u32> {
    if label("role") == Some("publisher") {
        return None;
    }
    let number = |key: &str| label(key)?.parse::<u32>().ok().filter(|&number| number > 0);
    let by_height = number("max-height").and_then(|lines| {
        let row = KBPS_BY_HEIGHT.into_iter().find(|&(height, _)| lines <= height);
        row.map(|(_, kbps)| kbps)
    });
    [number("max-bitrate"), by_height].into_iter().flatten().min()
}
