use super::*;

fn member(name: &str, role: &'static str) -> Gateway {
    let here = name == "edge-1";
    Gateway { gateway: name.into(), here, role: role.into(), ..Gateway::default() }
}

fn group(here: &'static str, peer: &'static str, in_sync: bool, sessions: usize) -> Vec<Gateway> {
    vec![
        Gateway { sessions, ..member("edge-1", here) },
        Gateway { in_sync, ..member("edge-2", peer) },
    ]
}

#[test]
fn owner_stops_once_its_standby_has_all_records() {
    let stops = |in_sync| stops_member(&group("owner", "standby", in_sync, 7));
    assert_eq!(stops(true), Ok("edge-2 continues its 7 sessions".to_owned()));
    assert_eq!(stops(false), Err("edge-2 does not hold all records yet".to_owned()));
}

#[test]
fn owner_without_a_standby_stops_without_sessions() {
    let stops = |sessions| stops_member(&group("owner", "silent", false, sessions));
    assert!(stops(0).is_ok());
    assert_eq!(stops(7), Err("edge-2 is no standby, and 7 sessions would end".to_owned()));
    assert!(stops_alone(0).is_ok() && stops_alone(1).is_err());
}

#[test]
fn standby_stops_beside_an_owner() {
    assert!(stops_member(&group("standby", "owner", true, 7)).is_ok());
    assert!(stops_member(&group("standby", "silent", true, 7)).is_err());
    assert!(stops_member(&[]).is_err());
}

#[test]
fn owner_of_three_stops_beside_its_standby() {
    let mut three = group("owner", "spare", false, 7);
    assert!(stops_member(&three).is_err());
    three.push(Gateway { in_sync: true, ..member("edge-3", "standby") });
    assert_eq!(stops_member(&three), Ok("edge-3 continues its 7 sessions".to_owned()));
    assert!(stops_member(&group("spare", "owner", false, 0)).is_ok());
}
