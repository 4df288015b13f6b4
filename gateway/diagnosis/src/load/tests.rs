use super::*;

const FLOOR: u32 = 100;

fn slot(frames: f32) -> DeviceSlot {
    DeviceSlot { frames, usual: 30.0, lacks_key_frame: false, is_network_fine: true }
}

/// The caps after so many slots.
fn caps(load: &mut DeviceLoad, slot: DeviceSlot, slots: usize) -> Vec<u32> {
    let next = || {
        load.judge(&slot, Some(900), FLOOR);
        load.cap_kbps()
    };
    std::iter::repeat_with(next).take(slots).collect()
}

fn relieved() -> DeviceLoad {
    let mut load = DeviceLoad::default();
    assert_eq!(caps(&mut load, slot(19.0), 3), [0, 0, 600]);
    load
}

#[test]
fn device_that_is_behind_is_asked_for_two_thirds() {
    relieved();
    assert_eq!(caps(&mut DeviceLoad::default(), slot(20.0), 10), [0; 10], "two thirds");
    let late = DeviceSlot { lacks_key_frame: true, ..slot(19.0) };
    assert_eq!(caps(&mut DeviceLoad::default(), late, 2), [0, 600]);
    // The usual rate is that before the fall.
    let mut load = DeviceLoad::default();
    let caps_of = |load: &mut DeviceLoad, usual| caps(load, DeviceSlot { usual, ..slot(19.0) }, 1);
    assert_eq!([30.0, 28.0, 27.0].map(|usual| caps_of(&mut load, usual)[0]), [0, 0, 600]);
}

#[test]
fn other_reasons_are_no_load() {
    for slot in [
        DeviceSlot { is_network_fine: false, ..slot(10.0) },
        DeviceSlot { usual: 14.0, ..slot(5.0) },
        slot(1.0),
        slot(0.0),
    ] {
        assert_eq!(caps(&mut DeviceLoad::default(), slot, 10), [0; 10], "{slot:?}");
    }
    for (sent, floor) in [(None, FLOOR), (Some(90), FLOOR)] {
        let mut load = DeviceLoad::default();
        (0..10).for_each(|_| load.judge(&slot(10.0), sent, floor));
        assert_eq!(load.cap_kbps(), 0, "{sent:?}: another limit, or at the floor");
    }
    let mut load = DeviceLoad::default();
    (0..3).for_each(|_| load.judge(&slot(10.0), Some(120), FLOOR));
    assert_eq!(load.cap_kbps(), FLOOR);
}

#[test]
fn one_slot_of_few_frames_is_forgotten() {
    let mut load = DeviceLoad::default();
    for frames in [19.0, 19.0, 21.0].into_iter().cycle().take(30) {
        assert_eq!(caps(&mut load, slot(frames), 1), [0]);
    }
}

#[test]
fn relief_ends_once_the_frames_are_back() {
    let mut load = relieved();
    assert_eq!(caps(&mut load, slot(26.0), 10), [600; 10], "better");
    assert_eq!(caps(&mut load, slot(27.0), 4), [600; 4]);
    assert_eq!(caps(&mut load, slot(26.0), 1), [600]);
    assert_eq!(caps(&mut load, slot(27.0), 5), [600, 600, 600, 600, 0]);
    // The next relief lasts longer.
    assert_eq!(caps(&mut load, slot(10.0), 3), [0, 0, 600]);
    assert_eq!(caps(&mut load, slot(30.0), 10)[8..], [600, 0]);
}

#[test]
fn relief_without_effect_ends() {
    let mut load = relieved();
    assert_eq!(caps(&mut load, slot(15.0), 31)[29..], [600, 0]);
    let mut load = relieved();
    load.judge(&slot(15.0), None, FLOOR);
    assert_eq!(load.cap_kbps(), 0, "another limit");
}
