//! A gateway that forwards while the test holds back its first policies.

use std::net::SocketAddr;

use evenkeel_config::CacheFolder;
use evenkeel_control::{
    AdmissionState, ControlError, GatewayEvent, OfferedSession, PushRequest, SessionAnswer,
};
use evenkeel_model::{
    ClientIdentity, CoreEvent, Decider, DecisionOutcome, Hook, IngressProtocol, MediaDescription,
    PluginFault, PolicyName, RtcpPort, Srtp,
};
use evenkeel_revisions::RolloutOutcome;
use tempfile::tempdir;
use tokio::sync::oneshot;

use super::*;

/// A listener that opens sessions by first packet, and a routing policy.
const CONFIG: &str = "[[listen]]\nudp = \"127.0.0.1:0\"\nidentity = [\"declared\"]\n\
    [[node]]\nname = \"n\"\naddress = \"127.0.0.1:9\"\nregion = \"east\"\nzone = \"a\"\n\
    driver = \"plain\"\nprobe = \"none\"\ncapacity = \"10 Gbit/s\"\n\
    [gateway]\nregion = \"east\"\npolicies = \"policies\"\n[limits]\nworkers = 1\n";
const CALL: &str = "[scenario.call]\n[routing]\nplugin = \"route-nearest\"\n";

fn settings() -> Arc<GatewayConfig> {
    let folder = tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("policies")).unwrap();
    std::fs::write(folder.path().join("policies/call.toml"), CALL).unwrap();
    std::fs::write(folder.path().join("policies/live.toml"), "[scenario.live]\n").unwrap();
    let config = folder.path().join("evenkeel.toml");
    std::fs::write(&config, CONFIG).unwrap();
    Arc::new(
        GatewayConfig::load(
            Some(&config),
            None,
            &evenkeel_drivers::kinds(evenkeel_drivers::DRIVERS),
        )
        .unwrap(),
    )
}

/// Starts a gateway, with waiting times for a busy machine.
fn start() -> (RunningGateway, FirstRevisionQueue) {
    let settings = settings();
    let mut core = settings.core();
    core.limits.offer_budget = Duration::from_secs(60);
    assemble(
        &settings,
        evenkeel_drivers::DRIVERS,
        &core,
        Sockets::open(&settings).unwrap(),
        Reads::Now,
        PolicyRecords::default(),
    )
    .unwrap()
}

#[test]
fn unreadable_records_of_policies_fail_the_start() {
    let (folder, mut settings) = (tempdir().unwrap(), settings());
    let socket = folder.path().join("admin.sock");
    let name = format!("{}.sqlite", evenkeel_process::file::name_of(&socket));
    let cache = folder.path().join("cache");
    let database = cache.join("kept").join(name);
    evenkeel_process::file::create_private_folder(&database).unwrap();
    let of_test = Arc::get_mut(&mut settings).unwrap();
    of_test.gateway.cache = CacheFolder::Folder(cache);
    of_test.admin.socket = socket;
    let error = begin(&settings, evenkeel_drivers::DRIVERS).err().unwrap().to_string();
    let reason = format!("{}: it is not a regular file", database.display());
    assert!(
        error.starts_with(&format!("cannot read the records of policies: {reason};")),
        "{error}"
    );
    std::fs::remove_dir(&database).unwrap();
    let running = begin(&settings, evenkeel_drivers::DRIVERS).unwrap();
    running.abandon();
}

fn await_first_policies(running: &RunningGateway, firsts: FirstRevisionQueue) {
    FirstPolicies::begin(firsts, running.handle.requests.clone()).unwrap().wait().unwrap();
}

async fn end(running: RunningGateway) {
    running.handle.shut_down(Duration::ZERO).await.unwrap();
    running.join().unwrap();
}

fn wanted(room: usize, port: u16) -> Box<OfferedSession> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    Box::new(OfferedSession {
        scenario: "call".into(),
        room: format!("r{room}").into(),
        labels: Arc::new([]),
        ingress: IngressProtocol::Udp(ClientIdentity::Declared { address, rtcp: None }),
        media: Arc::new(MediaDescription::new(Vec::new(), RtcpPort::Mux, Srtp::Plain)),
        srtp: None,
        nodes: Vec::new(),
        caller: None,
    })
}

/// Sends an offer without waiting for the answer.
fn offer(
    running: &RunningGateway,
    room: usize,
    port: u16,
) -> oneshot::Receiver<Result<SessionAnswer, ControlError>> {
    let (reply, answer) = oneshot::channel();
    running.handle.requests.try_send(ControlRequest::Offer(wanted(room, port), reply)).unwrap();
    answer
}

#[tokio::test]
async fn waiting_offers_are_decided_by_policies() {
    let (mut running, firsts) = start();
    let mut events = running.events();
    let offers: Vec<_> = (0..300).map(|at| offer(&running, at, 10_000 + at as u16)).collect();
    await_first_policies(&running, firsts);
    for offer in offers {
        let opened = offer.await.unwrap().unwrap();
        assert!(matches!(opened.routed_by, Decider::Policy { .. }), "{}", opened.routed_by);
    }
    end(running).await;
    while let Ok(told) = events.try_recv() {
        if let GatewayEvent::Core(CoreEvent::Decided { outcome, .. }) = &told.event {
            assert_ne!(*outcome, DecisionOutcome::Faulted(PluginFault::Late));
        }
    }
}

#[tokio::test]
async fn abandoned_offer_frees_its_address() {
    let (mut running, firsts) = start();
    let mut events = running.events();
    drop(offer(&running, 1, 10_000));
    let next = offer(&running, 2, 10_000);
    await_first_policies(&running, firsts);
    let opened = next.await.unwrap().unwrap();
    let first = opened.session.group().0 + 1;
    assert_eq!(opened.session.0, first, "there was none before");
    end(running).await;
    let mut told = std::iter::from_fn(|| events.try_recv().ok());
    assert!(told.all(|told| !matches!(told.event, GatewayEvent::TurnedAway { .. })));
}

#[tokio::test]
async fn starting_policies_refuse_operations() {
    let (running, firsts) = start();
    let handle = running.handle.clone();
    let routing = || PolicyName { set: "call".into(), hook: Hook::Routing };
    let source = || evenkeel_policies::PluginSource::read(&settings().sets[0].bindings[0]).unwrap();
    let bytes = source().bytes;
    assert_eq!(handle.status().await.unwrap().state, AdmissionState::Starting);
    let starting = Err(ControlError::Starting);
    assert_eq!(
        handle.push_policy(routing(), bytes.clone(), None, PushRequest::default()).await,
        starting
    );
    assert_eq!(handle.roll_out(routing(), Box::new(source())).await, starting);
    assert_eq!(handle.rollback_policy(routing(), false).await, starting);
    await_first_policies(&running, firsts);
    assert_eq!(handle.status().await.unwrap().state, AdmissionState::Serving);
    let policies = handle.policies().await.unwrap();
    assert!(policies.iter().all(|policy| policy.status.active.is_some()), "{policies:?}");
    handle.policies_stand().await.unwrap();
    let pushed = handle.push_policy(routing(), bytes, None, PushRequest::default()).await.unwrap();
    assert_eq!(pushed.outcome, RolloutOutcome::Unchanged);
    end(running).await;
}

#[tokio::test]
async fn error_budget_outlives_a_lone_restart() {
    let folder = tempdir().unwrap();
    let config = folder.path().join("evenkeel.toml");
    let [socket, cache] = ["admin.sock", "cache"].map(|name| folder.path().join(name));
    let gateway = CONFIG.replace("[gateway]", &format!("[gateway]\ncache = {cache:?}"));
    std::fs::write(&config, format!("{gateway}[admin]\nsocket = {socket:?}\n")).unwrap();
    std::fs::create_dir(folder.path().join("policies")).unwrap();
    let call = "[scenario.call]\nslo = { objective = 0.99 }\n";
    std::fs::write(folder.path().join("policies/call.toml"), call).unwrap();
    let kinds = evenkeel_drivers::kinds(evenkeel_drivers::DRIVERS);
    let settings = Arc::new(GatewayConfig::load(Some(&config), None, &kinds).unwrap());
    let start = || crate::start(&settings, evenkeel_drivers::DRIVERS).unwrap();
    let bad = async |running: &RunningGateway| {
        let slos = running.handle.status().await.unwrap().slos;
        slos.first().map(|slo| slo.windows[0].bad)
    };
    let running = start();
    running.handle.drain_node("n".into(), true).await.unwrap();
    for number in 0..3 {
        offer(&running, number, 10_000).await.unwrap().unwrap_err();
    }
    assert_eq!(bad(&running).await, Some(3));
    end(running).await;
    let running = start();
    assert_eq!(bad(&running).await, Some(3));
    end(running).await;
}
