use super::*;
use crate::group::HandOverError;

const MS: Duration = Duration::from_millis(1);

fn standing_by(now: Instant) -> StandingBy {
    StandingBy::new(TakeoverPreparation::new(true), now)
}

fn ownership() -> OwnershipState {
    OwnershipState {
        incarnation: 1,
        sequence: 2,
        epoch: 3,
        highest: 3,
        takeovers: 0,
        standby: Some("gw-b".to_owned()),
    }
}

#[test]
fn spare_counts_from_its_last_time_as_the_standby() {
    let now = Instant::now();
    let mut standby = standing_by(now);
    assert_eq!(standby.spare_for(false, now), None);
    assert_eq!(standby.spare_for(true, now), Some(Duration::ZERO));
    assert_eq!(standby.spare_for(true, now + 5 * MS), Some(5 * MS));
    assert_eq!(standby.spare_for(false, now + 6 * MS), None);
    assert_eq!(standby.spare_for(true, now + 7 * MS), Some(Duration::ZERO));
}

#[tokio::test]
async fn request_moves_into_the_takeover() {
    let ((asks, asked), now) = (oneshot::channel(), Instant::now());
    let request = Some(HandOverRequest::new(asks, now));
    let mut state = MemberState::StandingBy(StandingBy { request, ..standing_by(now) });
    assert!(state.take_late_request(now).is_none());
    let MemberState::StandingBy(standby) = state.take() else { unreachable!() };
    standby.request.unwrap().refuse(HandOverError::UnderWay);
    assert_eq!(asked.await, Ok(Err(HandOverError::UnderWay)));
    assert!(matches!(state, MemberState::Ended(MemberEnd::ThreadEnded)), "no state follows");
}

#[tokio::test]
async fn rest_is_confirmed_once() {
    let (reply, answer) = oneshot::channel();
    let mut rest = Rest::Begins(reply);
    assert!(rest.is_on());
    rest.confirm(ownership);
    assert_eq!(answer.await, Ok(ownership()));
    for mut rest in [rest, Rest::On, Rest::Off] {
        let is_on = rest.is_on();
        rest.confirm(|| unreachable!("it was answered, or nobody asks"));
        assert_eq!(rest.is_on(), is_on);
    }
}
