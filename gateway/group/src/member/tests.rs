use evenkeel_config::AddressPlace;
use evenkeel_control::{CertificatesRecord, ControlRequest, NotSuspended, SecretPem};
use evenkeel_ownership::Echo;
use evenkeel_telemetry::Telemetry;
use tokio::sync::watch;

use super::*;
use crate::address::Addresses;
use crate::beats::tests::{LOOPBACK, member as settings_of};
use crate::group::Group;
use crate::link::LinkTls;

const MS: Duration = Duration::from_millis(1);
const PEER: PeerId = PeerId(0);
const EPOCH: u64 = 6;

/// A member of two whose event loop does not run, and the requests to its control.
struct TestMember {
    member: GroupMember,
    control: mpsc::Receiver<ControlRequest>,
    _certificates: watch::Sender<CertificatesRecord>,
}

fn test_member(before: Option<OwnershipState>) -> TestMember {
    let configured = GatewayConfig::load(None, None, &[]).unwrap();
    let instruments = Telemetry::start(&configured, "test").unwrap().instruments();
    let refusals = RefusalLog::new(Arc::clone(&instruments));
    let mut settings = settings_of(["edge-1", "edge-2"], [LOOPBACK; 2], &["a"]);
    settings.addresses.retain(|moved| !matches!(moved.place, AddressPlace::Interface(_)));
    let (handle, control) = Handle::new(Arc::default(), Arc::default());
    let record =
        CertificatesRecord { dtls: SecretPem("pem".to_owned().into()), webtransport: None };
    let (certificates, own) = watch::channel(record);
    let gateway = MemberGateway {
        handle,
        lease: Arc::new(SendLease::forever()),
        grant: Arc::new(IndexGrant::new(1, Instant::now())),
        fencing: Arc::default(),
        quic: None,
        refused_epochs: mpsc::channel(1).1,
        certificates: CertificateChannels { own, copied: watch::channel(None).0 },
    };
    let addresses = Addresses::start(&settings.addresses, None).unwrap();
    let keeper = AddressKeeper::start(addresses, Arc::clone(&gateway.lease));
    let beats = Beats::bind(&settings).unwrap();
    let beats = Beats::start(beats, &settings, refusals.clone()).unwrap();
    let linked = watch::channel(LinkedPeer { id: PEER, has_records: true }).0;
    let listener = Link::bind(&settings).unwrap();
    let (streams, refused) = (mpsc::channel(1).0, refusals.clone());
    let tls = watch::Sender::new(LinkTls::of(&settings.secrets).unwrap());
    let link =
        Link::start(listener, &configured, &settings, refused, streams, linked, tls).unwrap();
    let votes = Votes::new(1, Vec::new(), None).unwrap();
    let inbox = Group::new().1;
    let member = GroupMember::new(
        settings,
        before,
        true,
        gateway,
        keeper,
        beats,
        link,
        votes,
        inbox,
        refusals,
        instruments,
    );
    TestMember { member: member.unwrap(), control, _certificates: certificates }
}

/// The owner that continues another process.
fn owner() -> TestMember {
    test_member(Some(OwnershipState {
        incarnation: 1,
        sequence: 2,
        epoch: EPOCH,
        highest: EPOCH,
        takeovers: 0,
        standby: Some("edge-2".to_owned()),
    }))
}

/// A beat of the peer that echoes this beat of the owner.
fn beat(role: BeatRole, epoch: u64, sequence: u64) -> Beat {
    Beat {
        incarnation: 7,
        sequence,
        role,
        epoch,
        highest: epoch,
        echo: Echo { incarnation: 1, sequence },
        whole: true,
        spare: false,
        preferred: false,
        records: 0,
        takeovers: 0,
        voters: Vec::new(),
    }
}

impl TestMember {
    /// The peer becomes a standby with all records.
    fn hear_standby(&mut self) {
        let member = &mut self.member;
        member.core.handle_timeout(Instant::now() + 10 * MS);
        let mut sent = 0;
        while let Some(output) = member.core.poll_output() {
            if let ClusterOutput::Send(_, beat) = &output {
                sent = beat.sequence;
            }
            member.execute(output);
        }
        let standby = beat(BeatRole::Standby, member.core.epoch(), sent);
        member.core.handle_beat(PEER, standby, Instant::now());
    }

    /// An operator has the owner hand over. Each attempt must be as fast as the standby's beats.
    async fn hand_over(
        &mut self,
    ) -> (oneshot::Receiver<Result<NewOwner, HandOverError>>, ControlRequest) {
        loop {
            let (reply, answer) = oneshot::channel();
            self.hear_standby();
            self.member.hand_over(None, reply);
            if let MemberState::Yielding { .. } = self.member.state {
                return (answer, self.control.recv().await.unwrap());
            }
        }
    }

    async fn end_task(&mut self) {
        let end = self.member.state.task_end().await;
        self.member.handle_task_end(end);
        self.member.execute_outputs();
    }
}

fn failed(reason: &str) -> Result<NewOwner, HandOverError> {
    Err(HandOverError::Failed(reason.to_owned()))
}

#[tokio::test]
async fn hand_over_that_takes_too_long_is_given_up() {
    let mut owner = owner();
    let (mut answer, suspend) = owner.hand_over().await;
    let (second, refused) = oneshot::channel();
    owner.member.hand_over(Some("edge-2".to_owned()), second);
    assert_eq!(refused.await, Ok(Err(HandOverError::UnderWay)));
    assert!(answer.try_recv().is_err(), "control is being suspended");

    owner.member.core.handle_timeout(Instant::now() + 600 * MS);
    owner.member.execute_outputs();
    assert_eq!(answer.await, Ok(failed("edge-2 did not take the sessions")));
    assert!(matches!(owner.member.state, MemberState::GivenUp { .. }));

    let ControlRequest::Suspend(reply) = suspend else { panic!("{suspend:?}") };
    reply.send(Err(NotSuspended::Busy)).unwrap();
    owner.end_task().await;
    assert!(matches!(owner.member.state, MemberState::Owning));
}

impl TestMember {
    /// The standby is asked to announce the addresses, and the hand-over goes on then at the latest.
    fn await_announcement(
        &mut self,
        until: Instant,
    ) -> oneshot::Receiver<Result<NewOwner, HandOverError>> {
        let (reply, answer) = oneshot::channel();
        self.member.state = MemberState::Announcing { until, operator: Some(reply) };
        answer
    }
}

/// Attempts that must be as fast as the standby's beats.
const ATTEMPTS: usize = 1_000;

#[tokio::test]
async fn hand_over_goes_on_once_the_standby_has_announced_the_addresses() {
    let mut owner = owner();
    for _ in 0..ATTEMPTS {
        let _answer = owner.await_announcement(Instant::now() + 3_600_000 * MS);
        let (second, refused) = oneshot::channel();
        owner.hear_standby();
        owner.member.hand_over(None, second);
        assert!(matches!(owner.member.state, MemberState::Announcing { .. }));
        assert_eq!(refused.await, Ok(Err(HandOverError::UnderWay)));
        let announced = LinkEvent::Frame(LinkFrame::Announced);
        owner.member.handle_records(RecordInput::Link(announced));
        let end = owner.member.state.task_end().await;
        owner.hear_standby();
        owner.member.handle_task_end(end);
        if let MemberState::Yielding { operator: Some(_), .. } = owner.member.state {
            break;
        }
    }
    assert!(matches!(owner.member.state, MemberState::Yielding { operator: Some(_), .. }));
    let suspend = owner.control.recv().await;
    assert!(matches!(suspend, Some(ControlRequest::Suspend(_))), "{suspend:?}");
}

#[tokio::test]
async fn hand_over_goes_on_without_an_announcement() {
    let mut owner = owner();
    for _ in 0..ATTEMPTS {
        let _answer = owner.await_announcement(Instant::now());
        owner.hear_standby();
        owner.end_task().await;
        if let MemberState::Yielding { .. } = owner.member.state {
            break;
        }
    }
    assert!(matches!(owner.member.state, MemberState::Yielding { operator: Some(_), .. }));
}

#[tokio::test]
async fn owner_goes_on_if_its_standby_falls_silent_before_it_announces() {
    let mut owner = owner();
    let holds = owner.member.keeper.holds();
    let answer = owner.await_announcement(Instant::now());
    owner.end_task().await;
    let silent = HandOverError::NoStandby { peer: "edge-2".into(), silent_for: None };
    assert_eq!(answer.await, Ok(Err(silent)));
    assert!(matches!(owner.member.state, MemberState::Owning));
    assert!(owner.member.core.is_owner());
    assert_eq!(owner.member.keeper.holds(), holds + 1, "the standby may have announced them");
}

#[tokio::test]
async fn owner_takes_back_the_addresses_that_are_announced_too_late() {
    let mut owner = owner();
    let holds = owner.member.keeper.holds();
    owner.member.handle_records(RecordInput::Link(LinkEvent::Frame(LinkFrame::Announced)));
    assert_eq!(owner.member.keeper.holds(), holds + 1);
    assert!(matches!(owner.member.state, MemberState::Owning));
}

#[tokio::test]
async fn process_is_not_replaced_while_the_standby_announces() {
    let mut owner = owner();
    let (reply, mut state) = oneshot::channel();
    owner.member.begin_rest(reply);
    let mut is_confirmed = false;
    for _ in 0..ATTEMPTS {
        let _answer = owner.await_announcement(Instant::now());
        owner.hear_standby();
        owner.member.answer_rest();
        assert!(state.try_recv().is_err(), "a hand-over is under way");
        owner.member.state = MemberState::Owning;
        owner.member.answer_rest();
        is_confirmed = state.try_recv().is_ok();
        if is_confirmed {
            break;
        }
    }
    assert!(is_confirmed, "the standby does not confirm");
}

#[tokio::test]
async fn owner_that_cannot_be_suspended_goes_on() {
    let mut owner = owner();
    let (answer, suspend) = owner.hand_over().await;
    let ControlRequest::Suspend(reply) = suspend else { panic!("{suspend:?}") };
    reply.send(Err(NotSuspended::Draining)).unwrap();
    owner.end_task().await;
    assert_eq!(answer.await, Ok(failed(&NotSuspended::Draining.to_string())));
    assert!(matches!(owner.member.state, MemberState::Owning));
    assert!(owner.member.core.is_owner());
}

#[tokio::test]
async fn operator_joins_the_hand_over_of_a_standby() {
    let mut owner = owner();
    while !matches!(owner.member.state, MemberState::Yielding { .. }) {
        owner.hear_standby();
        owner.member.handle_hand_over_request();
    }
    let (reply, answer) = oneshot::channel();
    loop {
        owner.hear_standby();
        if let Ok(operator) = owner.member.begin_hand_over() {
            *operator = Some(reply);
            break;
        }
    }
    let epoch = owner.member.core.epoch() + 1;
    let newer = beat(BeatRole::Owner, epoch, u64::MAX);
    owner.member.core.handle_beat(PEER, newer, Instant::now());
    owner.member.execute_outputs();
    let gateway: Arc<str> = "edge-2".into();
    assert_eq!(answer.await, Ok(Ok(NewOwner { gateway: Arc::clone(&gateway), epoch })));
    let MemberState::Ended(end) = owner.member.state else { panic!("it lost the ownership") };
    assert_eq!(end, MemberEnd::Replaced { owner: gateway, epoch });
}

#[tokio::test]
async fn standby_that_takes_over_answers_its_operator() {
    let TestMember { mut member, mut control, .. } = test_member(None);
    let ((reply, answer), mut now) = (oneshot::channel(), Instant::now());
    let MemberState::StandingBy(standby) = &mut member.state else { panic!("it owns nothing") };
    standby.request = Some(HandOverRequest::new(reply, now));
    while member.core.handle_take_over(&[PEER], now).is_err() {
        now += 5 * MS;
        member.core.handle_timeout(now);
    }
    member.execute_outputs();
    member.show();
    assert_eq!(member.inbox.standing.borrow().gateways[0].role, GroupRole::Restoring);

    let request = control.recv().await;
    let Some(ControlRequest::Resume(_, resumed)) = request else { panic!("{request:?}") };
    resumed.send(()).unwrap();
    let end = member.state.task_end().await;
    member.handle_task_end(end);
    member.show();
    assert_eq!(member.inbox.standing.borrow().gateways[0].role, GroupRole::Owner);
    let (gateway, epoch) = ("edge-1".into(), member.core.epoch());
    assert_eq!(answer.await, Ok(Ok(NewOwner { gateway, epoch })));
}

#[tokio::test]
async fn rest_is_for_owners() {
    let (reply, answer) = oneshot::channel();
    let mut owner = owner().member;
    owner.begin_rest(reply);
    owner.answer_rest();
    assert_eq!(answer.await.map(|state| (state.incarnation, state.epoch)), Ok((1, EPOCH)));

    let (reply, answer) = oneshot::channel();
    let mut standby = test_member(None).member;
    standby.begin_rest(reply);
    assert!(answer.await.is_err() && standby.rest.is_on());
}
