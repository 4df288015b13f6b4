use super::*;

const US: Duration = Duration::from_micros(1);

#[test]
fn first_two_packets_after_a_pause_are_read_at_once() {
    let gather = Gather::new(200 * US);
    assert_eq!(gather.pause(Before::Waited(200 * US), 1), None);
}

#[test]
fn continuous_packets_gather() {
    let gather = Gather::new(200 * US);
    assert_eq!(gather.pause(Before::Waited(199 * US), 1), Some(200 * US));
    assert_eq!(gather.pause(Before::Gathered, 7), Some(200 * US));
    assert_eq!(gather.pause(Before::Gathered, 0), None, "no more came");
}

#[test]
fn zero_gather_time_reads_at_once() {
    let gather = Gather::new(Duration::ZERO);
    assert_eq!(gather.pause(Before::Waited(Duration::ZERO), 1), None);
}
