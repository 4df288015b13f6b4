//! The gateway process: start, telemetry, reload, shutdown.

use std::fmt::Display;
use std::future::pending;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use evenkeel_alerts::AlertChannels;
use evenkeel_api::{CredentialEnd, WebrtcCertificate};
use evenkeel_config::{AddressPlace, GatewayConfig, GroupSettings, ListenIngress, SecretFile};
use evenkeel_control::{Continuation, Handle, Inherited, LossFollower, SocketName};
use evenkeel_drivers::DRIVERS;
use evenkeel_group::{Group, GroupOwnership, MemberEnd};
use evenkeel_handover::{
    ReplacedGateway, RequestGate, Successor, UpgradeRequest, Upgrader, Upgrades,
};
use evenkeel_index::IndexEndCause as IndexEnd;
use evenkeel_process::descriptors;
use evenkeel_process::scheduling::RealTimeLoan;
use evenkeel_process::signals::PendingSignals;
use evenkeel_runtime::{Reads, RunningGateway, Sockets, UpgradeBuffer};
use evenkeel_telemetry::{EventRecorder, LastLines, LogFilter, LogLines, Telemetry, date};
use nix::unistd::geteuid;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, mpsc, watch as cell};

use super::counters::{self, CounterFollower};
use super::drill;
use super::forecast::ForecastFollower;
use super::host::HostFollower;
use super::host_sessions;
use super::paths::{self, DescriptorCapacity, ServeError, ServePaths};
use super::reload::{self, AppliedConfig, ReloadTriggers};
use super::sandbox::Sandbox;

/// Time limit of the last export of telemetry.
const FAREWELL: Duration = Duration::from_secs(2);

/// Time for control to close the sessions of a gateway that lost a thread.
const LAST_ORDERS: Duration = Duration::from_secs(5);

/// Time limit of threads that still read or write files at the end: a disk may hang.
const DISK_READS: Duration = Duration::from_secs(1);

/// The first port that needs no capability (`net.ipv4.ip_unprivileged_port_start`, by default).
const UNPRIVILEGED_PORT: u16 = 1_024;

/// The addresses of a running gateway.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServedAddresses {
    /// Addresses in the order of the listeners.
    pub udp: Vec<SocketAddr>,
    /// The first QUIC listener.
    pub quic: Option<SocketAddr>,
    /// The API's Unix socket.
    pub socket: PathBuf,
    /// The API's TCP address.
    pub api: Option<SocketAddr>,
    /// The address of WHIP and WHEP.
    pub webrtc: Option<SocketAddr>,
}

/// Runs a gateway until SIGTERM or SIGINT, and then until its sessions have ended or the drain timeout has passed, or until
/// another process has taken them over. SIGHUP, changed files and operators' requests reload nodes, policies, modes and
/// secrets. With `drills = true` SIGUSR2 ends policies, the API and the listener of WHIP. `started` is called once the gateway forwards.
pub fn serve(place: &ServePaths, started: impl FnOnce(&ServedAddresses)) -> Result<(), ServeError> {
    evenkeel_process::allocator::bound_kept_memory();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut successor, inherited) = match place.inherit {
        true => {
            let inheriting = runtime.block_on(Successor::of_stdin());
            let (successor, inherited) = inheriting.map_err(ServeError::Upgrade)?;
            (Some(successor), inherited)
        }
        false => (None, Inherited::default()),
    };
    let outcome = serve_as(place, &runtime, &mut successor, inherited, started);
    if let (Err(failure), Some(successor)) = (&outcome, successor) {
        runtime.block_on(successor.fail(failure.explained()));
    }
    runtime.shutdown_timeout(DISK_READS);
    outcome
}

/// Runs a gateway. Takes `successor` once this process serves in place of another.
fn serve_as(
    place: &ServePaths,
    runtime: &Runtime,
    successor: &mut Option<Successor>,
    mut inherited: Inherited,
    started: impl FnOnce(&ServedAddresses),
) -> Result<(), ServeError> {
    let mut settings = Arc::new(place.load()?);
    let workers = settings.workers();
    if let Some(successor) = successor {
        successor.require_workers(workers).map_err(ServeError::Upgrade)?;
    }
    let capacity = DescriptorCapacity::of(&settings, descriptors::raise_limit());
    let sockets = Sockets::inherit(&settings, &mut inherited)?;
    let (admin, webrtc) = (settings.admin.clone(), settings.webrtc.clone());
    let mut api = evenkeel_api::bind(admin, webrtc, &mut inherited)?;
    let ownership =
        successor.as_ref().map(|successor| successor.ownership(settings.cluster.is_some()));
    let ownership = ownership.transpose().map_err(ServeError::Upgrade)?.flatten();
    let program = place.program.as_ref();
    let mut member = evenkeel_group::BoundMember::new(
        &settings,
        program.map(|program| program.path.as_path()),
        &mut inherited,
        ownership,
    )?;
    let init = inherited.take(&SocketName::Init);
    let policies = inherited.take_policies();
    // Listeners that the configuration no longer names end with the old process: nothing would read them here.
    drop(inherited);
    let is_confined = successor.as_ref().is_some_and(Successor::is_confined);
    let loan = member.as_ref().map(|_| RealTimeLoan::begin(successor.is_some()));
    let sandbox = Sandbox::enter(place, &settings, is_confined)?;
    let starter = loan.as_ref().map(RealTimeLoan::keep).transpose()?;
    drop(loan);
    if let (Some(member), Some(starter)) = (&mut member, &starter) {
        member.start_thread(starter)?;
    }
    let telemetry = Telemetry::start(&settings, &instance())
        .map_err(|error| ServeError::Telemetry(error.to_string()))?;
    let (_last_lines, log_filter) = install_log(&telemetry)?;
    sandbox.log();
    if geteuid().is_root() && !needs_root(&settings) {
        tracing::warn!(
            "runs as root without need: files of root are within its reach; start it as a user of its own"
        );
    }
    log_note(&capacity, capacity.is_short());
    let buffer = UpgradeBuffer::granted();
    log_note(&buffer, buffer.is_short());
    let unheard = paths::unheard_addresses(&settings.listens, &paths::addresses_of_host());
    settings.notes().iter().chain(&unheard).for_each(|note| tracing::warn!("{note}"));
    let pulled = evenkeel_registry::pull_bindings(Arc::make_mut(&mut settings));
    runtime.block_on(pulled).map_err(ServeError::Invalid)?;
    let mut applied = AppliedConfig::of(&settings);
    let reads = match (&successor, &member) {
        (Some(_), _) => Reads::AsSuccessor,
        (None, Some(_)) => Reads::AsStandby,
        (None, None) => Reads::Now,
    };
    let mut gateway = evenkeel_runtime::begin_with(&settings, DRIVERS, sockets, reads, policies)?;
    applied.foundry = Some(gateway.foundry.clone());
    applied.client_secrets = Some(api.secrets.clone());
    let triggers = runtime.block_on(ReloadTriggers::listen(&gateway.handle))?;
    let (events, names) = (gateway.events(), gateway.handle.names());
    let mut recorder = telemetry.recorder(events, names, Arc::clone(&gateway.handle.traces));
    let prometheus = telemetry.prometheus();
    let (upgrades, upgrade_requests) = Upgrades::new();
    let mut duplicates = api.duplicates()?;
    let (listeners, quic) = gateway.duplicates(&settings)?;
    duplicates.extend(listeners);
    if let Some(member) = &member {
        duplicates.extend(member.duplicates()?);
    }
    duplicates.extend(init.map(|init| (SocketName::Init, init)));
    api.instruments = Some(telemetry.instruments());
    api.upgrades = place.program.as_ref().map(|_| upgrades.clone());
    let group = member.as_ref().map(|member| member.group.clone());
    if let Some(access) = member.as_mut().and_then(|member| member.access.take()) {
        api.join(access, telemetry.instruments());
    }
    let votes = member.as_mut().and_then(|member| member.store_questions.take());
    let index = evenkeel_index::IndexChannels::new(&settings);
    api.index = index.as_ref().map(evenkeel_index::IndexChannels::reader);
    let alerts = AlertChannels::default();
    applied.alerts = Some(alerts.handle());
    api.alerts = applied.alerts.clone();
    api.configuration = Some(applied.in_force.subscribe());
    api.export_failures = telemetry.export_failures();
    let certificate = api.webrtc_certificate();
    if let Some(reason) = certificate.and_then(|it| it.refused(SystemTime::now())) {
        tracing::warn!("clients refuse the certificate of [webrtc]: {reason}");
    }
    let certificate_ends = certificate.and_then(WebrtcCertificate::ends);
    let credentials = counters::credentials(&settings, &gateway, certificate_ends);
    for CredentialEnd { credential, ends } in &credentials {
        tracing::info!(credential, ends = date(*ends), "certificate or token ends");
    }
    let metrics = Box::new(move |format| prometheus.render_as(format));
    let api = api.serve(gateway.handle.clone(), metrics, credentials.clone())?;
    let (mut signals, drills) = {
        let _entered = runtime.enter();
        let drill = || signal(SignalKind::user_defined2());
        (PendingSignals::listen()?, settings.admin.drills.then(drill).transpose()?)
    };
    if let Some(taking) = successor.as_mut() {
        let taken = take_over(taking, &gateway, &mut recorder, &mut signals);
        let sessions = match runtime.block_on(taken) {
            Ok(sessions) => sessions,
            Err(failure) => {
                // At once: packets may wait for the old process, which continues with the sessions.
                if let Some(successor) = successor.take() {
                    runtime.block_on(successor.fail(failure.explained()));
                }
                runtime.block_on(end_unserved(&gateway.handle));
                let _ = gateway.leave();
                return Err(failure);
            }
        };
        let successor = taking;
        let connections = runtime.block_on(async {
            // Fails only if control has ended, and the gateway with it.
            let _ = gateway.handle.resume(Continuation::Upgrade).await;
            tracing::info!(sessions, "sessions taken over");
            successor.left().await
        });
        gateway.resume_quic(connections);
    }
    let member = member.map(|bound| {
        let parts = evenkeel_group::MemberGateway {
            handle: gateway.handle.clone(),
            lease: Arc::clone(&gateway.lease),
            grant: Arc::clone(&gateway.grant),
            fencing: Arc::clone(&gateway.fencing),
            quic: gateway.quic_resumer(),
            refused_epochs: std::mem::replace(&mut gateway.refused_epochs, mpsc::channel(1).1),
            certificates: gateway.certificate_channels(),
        };
        bound.start(parts, telemetry.instruments())
    });
    let member = member.transpose()?;
    let in_group = member.as_ref().map(|member| member.group.clone());
    let index = index
        .map(|bound| bound.start(&gateway.handle, in_group.clone(), votes, telemetry.instruments()))
        .transpose()?;
    let (metrics, instruments) = (telemetry.prometheus(), telemetry.instruments());
    let control = gateway.handle.clone();
    let alerts = alerts.start(&settings, control, in_group.clone(), metrics, instruments)?;
    let replaced = successor.take().is_some();
    api.open();
    let listening = ServedAddresses {
        udp: gateway.udp.clone(),
        quic: gateway.quic,
        socket: settings.admin.socket.clone(),
        api: api.address,
        webrtc: api.webrtc,
    };
    started(&listening);
    if !replaced {
        evenkeel_handover::ready();
    }
    let (ending, is_ending) = cell::channel(false);
    let was_told = is_ending.clone();
    let turn = Mutex::new(());
    let secrets = applied.group_secrets.subscribe();
    let check = || match place.load() {
        Ok(new) => {
            let (running, new) = (settings.cluster.as_ref(), new.cluster.as_ref());
            require_same_member(running, &secrets.borrow(), new)
        }
        // Another program may read it, or refuses it.
        Err(_) => Ok(()),
    };
    let upgrader = place.program.as_ref().map(|program| Upgrader {
        program,
        starter: starter.as_ref(),
        check: &check,
        gateway: &gateway,
        api: &api,
        sockets: &duplicates,
        quic,
        group,
        workers,
        confined: sandbox.is_confined(),
        ending: is_ending,
        turn: &turn,
        is_wide: replaced,
    });
    let within = settings.gateway.drain_timeout;
    let end =
        OrderlyEnd { signals: &mut signals, ending, turn: &turn, within, group: in_group.clone() };
    let leaving = async {
        tokio::select! {
            handed_over = upgrade(upgrader, &upgrades, upgrade_requests) => Ok(handed_over),
            lost = evenkeel_group::lost(member.as_ref()) => Err(lost),
        }
    };
    let host = host_sessions::follow(&settings, &gateway.handle, in_group.clone());
    let handle = &gateway.handle;
    let forecasts = ForecastFollower::new(&settings, handle, &telemetry, in_group.clone());
    (applied.group, applied.instruments) = (in_group, Some(telemetry.instruments()));
    let reloading = async {
        tokio::select! {
            () = reload::follow(place, applied, &gateway.handle, triggers) => {}
            () = log_filter.follow(&gateway.handle) => {}
            never = forecasts.follow() => match never {},
            never = drill::follow(drills, &gateway.handle, &api) => match never {},
            never = gateway.follow_certificates() => match never {},
            never = host => match never {},
        }
    };
    let group = end.group.clone();
    let counters =
        CounterFollower::new(handle.clone(), telemetry.instruments(), group, credentials);
    let attended = attend(&gateway, &telemetry, &mut recorder, counters, reloading, leaving, end);
    let attended = runtime.block_on(attended);
    // Two processes of one member would both send beats, and alerts.
    drop((member, alerts));
    let (handed_over, attended) = match attended {
        Ok(handed_over) => (handed_over, Ok(())),
        Err(failure) => (None, Err(failure)),
    };
    let lost = matches!(attended, Err(ServeError::Lost(_)));
    let attended = match attended {
        // The standby has the calls of a gateway that was told to end.
        Err(ServeError::Lost(MemberEnd::Replaced { .. })) if *was_told.borrow() => Ok(()),
        attended => attended,
    };
    let left = handed_over.is_some() || lost;
    let index = match index {
        // The process that continues the sessions claims their entries.
        Some(index) if left => {
            index.end(IndexEnd::Left);
            None
        }
        index => index,
    };
    let predecessor = handed_over.as_ref().and_then(|_| gateway.take_predecessor());
    let whole = if left { gateway.leave() } else { gateway.join() };
    if let Err(ended) = &whole {
        tracing::error!("gateway ends: {ended}");
    }
    if let Some(index) = index {
        index.end(IndexEnd::Closed);
    }
    recorder.finish();
    telemetry.flush(FAREWELL);
    // A replaced process may live on.
    drop((telemetry, duplicates));
    let Some(handed_over) = handed_over else {
        api.shut_down();
        attended?;
        return Ok(whole?);
    };
    api.leave();
    let status = runtime.block_on(handed_over.leave(&mut signals));
    // Signals are for the process that serves: this one ends with its last QUIC connection, or with that process.
    if let Some(predecessor) = predecessor {
        predecessor.wait();
    }
    match status? {
        0 => Ok(()),
        status => Err(ServeError::Successor(status)),
    }
}

/// Waits for the first policies, then takes over the sessions of the process that this one replaces, and returns their
/// number.
async fn take_over(
    successor: &mut Successor,
    gateway: &RunningGateway,
    recorder: &mut EventRecorder,
    signals: &mut PendingSignals,
) -> Result<usize, ServeError> {
    let handle = &gateway.handle;
    let withdrawal = successor.withdrawal();
    let mut taking = pin!(async {
        tokio::select! {
            stand = handle.policies_stand() => {
                stand.map_err(|_| ServeError::Upgrade("control ended".to_owned()))?;
            }
            () = successor.abandoned() => {
                let reason = "the running gateway gave the upgrade up".to_owned();
                return Err(ServeError::Upgrade(reason));
            }
        }
        successor.take_over(handle).await.map_err(ServeError::Upgrade)
    });
    let mut told = None;
    let outcome = tokio::select! {
        outcome = &mut taking => Ok(outcome),
        () = recorder.follow() => Err(ServeError::Upgrade("control ended".to_owned())),
        ended = gateway.ends() => match ended {
            Ok(()) => Err(ServeError::Upgrade("a thread ended".to_owned())),
            Err(failure) => Err(failure.into()),
        },
        signal = signals.recv() => {
            told = Some(signal);
            Err(ServeError::Upgrade("the new process was told to end".to_owned()))
        }
    };
    match outcome {
        Ok(outcome) => outcome,
        Err(failure) => {
            // After `go` the old process is gone: then this one serves, and ends in order.
            withdrawal.withdraw();
            let sessions = taking.await.map_err(|_| failure)?;
            told.into_iter().for_each(|signal| signals.repeat(signal));
            Ok(sessions)
        }
    }
}

/// Ends a gateway whose sessions continue at the process that it was to replace.
async fn end_unserved(handle: &Handle) {
    let ending = async {
        // Refused without sessions of the other process. Then there is none to close.
        if handle.release().await.is_err() {
            let _ = handle.shut_down(Duration::ZERO).await;
        }
    };
    let _ = tokio::time::timeout(LAST_ORDERS, ending).await;
}

/// True if an ordinary user could not start this configuration, or not its hooks.
fn needs_root(settings: &GatewayConfig) -> bool {
    let has_low_port = settings.listens.iter().any(|listen| {
        let rtcp = match listen.ingress {
            ListenIngress::Udp { rtcp, .. } => rtcp,
            ListenIngress::Quic { .. } => None,
        };
        let mut ports = rtcp.into_iter().chain([listen.address.port()]);
        ports.any(|port| (1..UNPRIVILEGED_PORT).contains(&port))
    });
    let mut addresses = settings.cluster.iter().flat_map(|group| &group.addresses);
    let changes_addresses =
        addresses.any(|moved| matches!(moved.place, AddressPlace::Interface(_)));
    !settings.gateway.sandbox || has_low_port || changes_addresses
}

/// Refuses an upgrade to a configuration of another member, or of a member that its peer would not recognise. `secrets`: those in force.
fn require_same_member(
    running: Option<&GroupSettings>,
    secrets: &[SecretFile],
    new: Option<&GroupSettings>,
) -> Result<(), String> {
    let (running, new) = match (running, new) {
        (None, None) => return Ok(()),
        (Some(running), Some(new)) => (running, new),
        (Some(_), None) | (None, Some(_)) => {
            return Err("a restart adds or removes [cluster], an upgrade does not".to_owned());
        }
    };
    let peers = |group: &GroupSettings| {
        group.peers.iter().map(|peer| Arc::clone(&peer.name)).collect::<Vec<_>>()
    };
    let keys = [
        (running.name != new.name, "name"),
        (running.listen != new.listen, "listen"),
        (peers(running) != peers(new), "peer.name"),
        (new.secrets.first().is_none_or(|first| !secrets.contains(first)), "secret_file"),
    ];
    let changed: Vec<&str> =
        keys.into_iter().filter(|(differs, _)| *differs).map(|(_, key)| key).collect();
    match changed.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "`{}` of [cluster] changed, and an upgrade continues the same member: restart the gateway instead",
            changed.join("`, `")
        )),
    }
}

/// Logs to standard error as selected by `EVENKEEL_LOG` (`info`, or `warn,evenkeel_server=debug`), and to the OTLP
/// receiver.
fn install_log(telemetry: &Telemetry) -> Result<(LastLines, LogFilter), ServeError> {
    let chosen = std::env::var("EVENKEEL_LOG").unwrap_or_else(|_| "info".to_owned());
    let lines = LogLines::to(std::io::stderr())?;
    let last_lines = lines.flushed_at_end();
    let (subscriber, filter) = telemetry
        .subscriber(&chosen, lines)
        .map_err(|error| ServeError::Telemetry(format!("EVENKEEL_LOG is {chosen:?}: {error}")))?;
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|error| ServeError::Telemetry(error.to_string()))?;
    Ok((last_lines, filter))
}

fn log_note(note: &impl Display, is_warning: bool) {
    if is_warning {
        tracing::warn!("{note}");
    } else {
        tracing::info!("{note}");
    }
}

/// The `service.instance.id`.
fn instance() -> String {
    format!("{}-{}", std::process::id(), fastrand::u32(..))
}

/// Returns once another process serves; never, if none can.
async fn upgrade(
    upgrader: Option<Upgrader<'_>>,
    upgrades: &Upgrades,
    requests: mpsc::Receiver<UpgradeRequest>,
) -> ReplacedGateway {
    match upgrader {
        Some(mut upgrader) => upgrader.follow(upgrades, requests).await,
        None => pending().await,
    }
}

/// Waits for a shutdown, the end of a thread, or another process that serves.
async fn attend(
    gateway: &RunningGateway,
    telemetry: &Telemetry,
    recorder: &mut EventRecorder,
    mut counters: CounterFollower,
    reloading: impl Future<Output = ()>,
    leaving: impl Future<Output = Result<ReplacedGateway, MemberEnd>>,
    end: OrderlyEnd<'_>,
) -> Result<Option<ReplacedGateway>, ServeError> {
    let handle = &gateway.handle;
    counters.begin().await;
    let cache = gateway.foundry.folder().map(PathBuf::from);
    let mut host = HostFollower::new(telemetry.instruments(), cache);
    let instruments = telemetry.instruments();
    let mut losses = LossFollower::new(handle.clone());
    // Requests that it holds are dropped after the release, so that they are repeated at the next process.
    let mut reloading = pin!(reloading);
    let ending = end.ending.clone();
    let outcome = tokio::select! {
        left = leaving => {
            let handed_over = match left {
                Ok(handed_over) => handed_over,
                Err(lost) => {
                    // Fails only if control has ended.
                    let _ = handle.abandon().await;
                    return Err(ServeError::Lost(lost));
                }
            };
            // Fails only if control has ended.
            let _ = handle.release().await;
            if *ending.borrow() {
                handed_over.pass_on_end();
            }
            return Ok(Some(handed_over));
        }
        () = recorder.follow() => Ok(()),
        () = counters.follow() => Ok(()),
        never = host.follow() => match never {},
        () = losses.follow(|levels| counters::measure_losses(&instruments, levels)) => Ok(()),
        () = &mut reloading => Ok(()),
        () = end.wait(handle) => Ok(()),
        result = gateway.ends() => result.map_err(ServeError::from),
    };
    // Closes the remaining sessions. If control has ended, all other threads have ended as well.
    let _ = tokio::time::timeout(LAST_ORDERS, handle.shut_down(Duration::ZERO)).await;
    outcome.map(|()| None)
}

struct OrderlyEnd<'a> {
    signals: &'a mut PendingSignals,
    /// Ends an upgrade that is under way.
    ending: cell::Sender<bool>,
    /// Held by an upgrade.
    turn: &'a Mutex<()>,
    within: Duration,
    group: Option<Group>,
}

impl OrderlyEnd<'_> {
    /// Waits for a signal, and then for the end of the drain. The owner of a group hands its calls to the standby instead.
    async fn wait(self, handle: &Handle) {
        self.signals.recv().await;
        self.ending.send_replace(true);
        // A failed upgrade has resumed the gateway when it ends its turn. A gateway that is handed over drains nothing.
        let _turn = self.turn.lock().await;
        if let Some(group) = self.group.filter(|group| group.owner() == GroupOwnership::Here) {
            let handing_over = async {
                match group.leave().await {
                    // The loss of the ownership ends the process.
                    Ok(_) => pending().await,
                    Err(reason) => tracing::warn!(%reason, "calls are not handed to the standby"),
                }
            };
            tokio::select! {
                () = handing_over => {}
                // A second signal ends all sessions at once.
                _ = self.signals.recv() => {
                    let _ = handle.shut_down(Duration::ZERO).await;
                    return;
                }
            }
        }
        let within = self.within;
        tracing::info!(
            ?within,
            "shutting down; open sessions may continue until the drain timeout"
        );
        let finished = handle.shut_down(within);
        tokio::select! {
            _ = finished => {}
            // A second signal ends all sessions at once.
            _ = self.signals.recv() => { let _ = handle.shut_down(Duration::ZERO).await; }
        }
    }
}
