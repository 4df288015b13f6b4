//! A gateway as a process: started, told of by telemetry, reloaded, shut down.

mod follow;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::api::{self, Names};
use crate::control::Handle;
use crate::run;
use crate::settings::{Invalid, Plugin, Settings};
use crate::telemetry::Telemetry;
use follow::{Counters, Follower};

/// How long what telemetry still holds may take to leave at the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why the process ended.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration is wrong.
    #[error("the configuration is not usable")]
    Invalid(Vec<Invalid>),
    /// The gateway did not start.
    #[error(transparent)]
    Start(#[from] run::Failure),
    /// The API did not start.
    #[error(transparent)]
    Api(#[from] api::Failure),
    /// Telemetry did not start.
    #[error("telemetry: {0}")]
    Telemetry(String),
    /// The system gave no event loop.
    #[error("the system gave no event loop: {0}")]
    System(#[from] std::io::Error),
}

/// Where the configuration is.
#[derive(Clone, Default, Debug)]
pub struct Place {
    /// `evenkeel.toml`; without it the gateway runs on loopback.
    pub config: Option<PathBuf>,
    /// The folder of policy sets; without it those that ship, and the one the configuration names.
    pub policies: Option<PathBuf>,
}

/// Where a gateway that has started listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listening {
    /// UDP, listener by listener.
    pub udp: Vec<SocketAddr>,
    /// QUIC.
    pub quic: Option<SocketAddr>,
    /// The API's Unix socket.
    pub socket: PathBuf,
    /// The API's TCP address.
    pub api: Option<SocketAddr>,
}

impl Place {
    /// Reads and checks it.
    ///
    /// # Errors
    /// Everything that is wrong, each with its place.
    pub fn load(&self) -> Result<Settings, Failure> {
        Settings::load(self.config.as_deref(), self.policies.as_deref()).map_err(Failure::Invalid)
    }

    /// Reads and checks it, and has every plugin take its settings; nothing runs afterwards.
    ///
    /// # Errors
    /// Everything that is wrong, each with its place.
    pub fn check(&self) -> Result<(), Failure> {
        let settings = self.load()?;
        let engine = evenkeel_host::Engine::new();
        let bindings = settings.sets.iter().flat_map(|set| &set.bindings);
        let invalid: Vec<Invalid> = bindings
            .filter_map(|binding| run::try_binding(&engine, &settings, binding).err())
            .map(|invalid| *invalid)
            .collect();
        if invalid.is_empty() { Ok(()) } else { Err(Failure::Invalid(invalid)) }
    }
}

/// Runs a gateway until it is told to end by SIGTERM or SIGINT, and its sessions have ended or its deadline is over.
/// SIGHUP, and every change of the policies' files, reload the policies. `started` hears once it forwards.
///
/// # Errors
/// Why it did not start.
pub fn serve(place: &Place, started: impl FnOnce(&Listening)) -> Result<(), Failure> {
    let settings = Arc::new(place.load()?);
    let telemetry = Telemetry::start(&settings, &instance())
        .map_err(|error| Failure::Telemetry(error.to_string()))?;
    install_log(&telemetry)?;
    let mut gateway = run::start(&settings)?;
    let trust = settings.admin.traceparent;
    let mut follower = Follower::new(gateway.events(), &telemetry, trust);
    let handle = gateway.handle.clone();
    let prometheus = telemetry.prometheus();
    let api = api::start(
        settings.admin.clone(),
        Names::of(&settings.core()),
        handle.clone(),
        Box::new(move || prometheus.render()),
    )?;
    let listening = Listening {
        udp: gateway.udp.clone(),
        quic: gateway.quic,
        socket: settings.admin.socket.clone(),
        api: api.address,
    };
    started(&listening);
    let within = settings.gateway.drain_within;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(attend(place, settings, &handle, &telemetry, &mut follower, within))?;
    follower.finish();
    gateway.join();
    telemetry.flush(FAREWELL);
    api.shut_down();
    Ok(())
}

/// Log lines go to standard error as `EVENKEEL_LOG` chooses (`info`, or `warn,evenkeel_server=debug`), and to the
/// OTLP receiver.
fn install_log(telemetry: &Telemetry) -> Result<(), Failure> {
    let chosen = std::env::var("EVENKEEL_LOG").unwrap_or_else(|_| "info".to_owned());
    let subscriber = telemetry
        .subscriber(&chosen)
        .map_err(|error| Failure::Telemetry(format!("EVENKEEL_LOG is {chosen:?}: {error}")))?;
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|error| Failure::Telemetry(error.to_string()))
}

/// Tells gateways of one host apart in telemetry.
fn instance() -> String {
    format!("{}-{}", std::process::id(), fastrand::u32(..))
}

async fn attend(
    place: &Place,
    settings: Arc<Settings>,
    handle: &Handle,
    telemetry: &Telemetry,
    follower: &mut Follower,
    within: Duration,
) -> std::io::Result<()> {
    let mut counters = Counters::new(handle.clone(), telemetry.instruments());
    counters.begin().await;
    let reloads = reload(place, settings, handle.clone());
    let ended = end(handle, within);
    tokio::select! {
        () = follower.follow() => Ok(()),
        () = counters.follow() => Ok(()),
        result = reloads => result,
        result = ended => result,
    }
}

/// Waits for the word to end, and for the end.
async fn end(handle: &Handle, within: Duration) -> std::io::Result<()> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!(
        ?within,
        "shutting down: no new sessions; those that stand may end by themselves"
    );
    let finished = handle.shut_down(within);
    tokio::select! {
        _ = finished => {}
        // Whoever asks twice means it.
        _ = terminate.recv() => { let _ = handle.shut_down(Duration::ZERO).await; }
        _ = interrupt.recv() => { let _ = handle.shut_down(Duration::ZERO).await; }
    }
    Ok(())
}

/// Rolls out what changed in the policies' files, on SIGHUP and whenever a file changes.
async fn reload(place: &Place, mut standing: Arc<Settings>, handle: Handle) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let (changed_in, mut changed) = tokio::sync::mpsc::channel(1);
    let mut plugins = plugins(&standing);
    let folder = place.policies.clone().or_else(|| standing.gateway.policies.clone());
    let beside = plugins.keys().filter_map(|plugin| plugin.parent().map(Path::to_owned));
    let folders: BTreeSet<PathBuf> = folder.into_iter().chain(beside).collect();
    let _watchers: Vec<_> =
        folders.iter().map(|folder| watch(folder, changed_in.clone())).collect();
    loop {
        tokio::select! {
            _ = hangup.recv() => {}
            _ = changed.recv() => settle(&mut changed).await,
        }
        match place.load() {
            Ok(settings) => {
                let now = self::plugins(&settings);
                let changed =
                    |(path, digest): &(&PathBuf, &Digest)| plugins.get(*path) != Some(digest);
                let changed = now.iter().filter(changed).map(|(path, _)| path.clone()).collect();
                plugins = now;
                standing = roll_out(&standing, settings, &changed, &handle).await;
            }
            Err(Failure::Invalid(invalid)) => {
                let found = Invalid::render(&invalid, crate::settings::Colour::Plain);
                tracing::error!("the configuration is not usable, nothing changed:\n{found}");
            }
            Err(error) => tracing::error!(%error, "nothing changed"),
        }
    }
}

/// SHA-256 of a file.
type Digest = Option<[u8; 32]>;

/// The files of plugins, and what is in them; none where they cannot be read.
fn plugins(settings: &Settings) -> BTreeMap<PathBuf, Digest> {
    let bindings = settings.sets.iter().flat_map(|set| &set.bindings);
    let files = bindings.filter_map(|binding| match &binding.plugin {
        Plugin::File(path) => Some(path.clone()),
        Plugin::Shipped(_) => None,
    });
    let digest = |path: &Path| {
        let digest = ring::digest::digest(&ring::digest::SHA256, &std::fs::read(path).ok()?);
        digest.as_ref().try_into().ok()
    };
    files.map(|path| (path.clone(), digest(&path))).collect()
}

/// An editor writes a file in several steps: wait until it is quiet for a moment.
async fn settle(changed: &mut tokio::sync::mpsc::Receiver<()>) {
    while tokio::time::timeout(Duration::from_millis(50), changed.recv())
        .await
        .is_ok_and(|word| word.is_some())
    {}
}

fn watch(
    folder: &Path,
    changed: tokio::sync::mpsc::Sender<()>,
) -> notify::Result<notify::RecommendedWatcher> {
    use notify::Watcher;
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let touches = |event: &notify::Event| !matches!(event.kind, notify::EventKind::Access(_));
        if event.as_ref().is_ok_and(touches) {
            // One word that waits is enough.
            let _ = changed.try_send(());
        }
    })?;
    watcher.watch(folder, notify::RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// The settings that stand afterwards: a policy that was refused keeps what it had.
async fn roll_out(
    standing: &Settings,
    settings: Settings,
    changed: &BTreeSet<PathBuf>,
    handle: &Handle,
) -> Arc<Settings> {
    if run::differs_beyond_policies(standing, &settings) {
        tracing::warn!("changes outside the policy sets need a restart; only policies are taken");
    }
    for (policy, binding) in run::changed_bindings(standing, &settings, changed) {
        let began = Instant::now();
        let outcome = match run::source(&binding.plugin, binding.settings.clone()) {
            Ok(source) => handle.roll_out(policy.clone(), source).await,
            Err(reason) => {
                tracing::error!(%policy, reason, "the plugin cannot be read");
                continue;
            }
        };
        match outcome {
            Ok(rollout) => tracing::info!(
                %policy,
                outcome = rollout.outcome.name(),
                reason = rollout.reason.as_deref(),
                took = ?began.elapsed(),
                "policy reloaded"
            ),
            Err(failed) => tracing::error!(%policy, ?failed, "policy not reloaded"),
        }
    }
    Arc::new(settings)
}
