//! The gateway process: start, telemetry, reload, shutdown.

mod follow;
mod reload;
mod restart;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::api;
use crate::control::Handle;
use crate::descriptors::{self, Capacity};
use crate::policy::Foundry;
use crate::run::{self, Running, Sockets};
use crate::sandbox::{self, Missing};
use crate::settings::{Compiler, Invalid, Settings};
use crate::telemetry::Telemetry;
use follow::{Counters, Follower};
use reload::Applied;

/// Time limit of the last export of telemetry.
const FAREWELL: Duration = Duration::from_secs(2);

/// Time for control to close the sessions of a gateway that lost a thread.
const LAST_ORDERS: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("invalid configuration")]
    Invalid(Vec<Invalid>),
    #[error(transparent)]
    Start(#[from] run::Failure),
    #[error(transparent)]
    Ended(#[from] run::Ended),
    #[error(transparent)]
    Api(#[from] api::Failure),
    #[error("telemetry: {0}")]
    Telemetry(String),
    #[error("cannot create the event loop: {0}")]
    System(#[from] std::io::Error),
}

#[derive(Clone, Default, Debug)]
pub struct Place {
    /// The configuration file; without it the gateway listens on loopback.
    pub config: Option<PathBuf>,
    /// The folder of policy sets. Default: the folder that the configuration names, and the shipped sets.
    pub policies: Option<PathBuf>,
    /// Compiles pushed plugins; without it they are compiled in this process.
    pub compiler: Option<Compiler>,
}

/// The addresses of a running gateway.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listening {
    /// Addresses in the order of the listeners.
    pub udp: Vec<SocketAddr>,
    pub quic: Option<SocketAddr>,
    /// The API's Unix socket.
    pub socket: PathBuf,
    /// The API's TCP address.
    pub api: Option<SocketAddr>,
}

impl Place {
    /// Reads and checks the configuration.
    pub fn load(&self) -> Result<Settings, Failure> {
        let settings = Settings::load(self.config.as_deref(), self.policies.as_deref());
        let settings = settings.map_err(Failure::Invalid)?;
        Ok(Settings { compiler: self.compiler.clone(), ..settings })
    }

    /// Reads and checks the configuration and applies each plugin's settings, without starting the gateway. Returns
    /// notes for the operator.
    pub fn check(&self) -> Result<Vec<String>, Failure> {
        let settings = self.load()?;
        let foundry = Foundry::of(evenkeel_host::Engine::new(), &settings);
        let invalid: Vec<Invalid> = settings
            .bindings()
            .filter_map(|(_, binding)| {
                let tried = |source| {
                    run::try_out(&foundry, &settings, binding, &source)
                        .map_err(|refused| run::at_place(binding, &refused))
                };
                run::source(binding).and_then(tried).err()
            })
            .map(|invalid| *invalid)
            .collect();
        if !invalid.is_empty() {
            return Err(Failure::Invalid(invalid));
        }
        let mut notes = settings.notes();
        notes.push(Capacity::of(&settings, descriptors::hard_limit()).to_string());
        Ok(notes)
    }
}

/// Runs a gateway until SIGTERM or SIGINT, and then until its sessions have ended or the drain timeout has passed.
/// SIGHUP, changed files and operators' requests reload nodes, policies and modes. `started` is called once the gateway
/// forwards.
pub fn serve(place: &Place, started: impl FnOnce(&Listening)) -> Result<(), Failure> {
    crate::allocator::return_large_allocations();
    let settings = Arc::new(place.load()?);
    let capacity = Capacity::of(&settings, descriptors::raise_limit());
    let (sockets, api) = (Sockets::open(&settings)?, api::bind(settings.admin.clone())?);
    let sandbox = Sandbox::enter(place, &settings)?;
    let telemetry = Telemetry::start(&settings, &instance())
        .map_err(|error| Failure::Telemetry(error.to_string()))?;
    install_log(&telemetry)?;
    sandbox.log();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    log_capacity(&capacity);
    settings.notes().iter().for_each(|note| tracing::warn!("{note}"));
    let applied = Applied::of(&settings);
    let mut gateway = run::begin_with(&settings, sockets)?;
    let applied = applied.compiled_at(gateway.foundry.clone());
    let (events, names) = (gateway.events(), gateway.handle.names());
    let mut follower = Follower::new(events, names, &telemetry, settings.admin.traceparent);
    let prometheus = telemetry.prometheus();
    let api = api.serve(gateway.handle.clone(), Box::new(move || prometheus.render()))?;
    started(&Listening {
        udp: gateway.udp.clone(),
        quic: gateway.quic,
        socket: settings.admin.socket.clone(),
        api: api.address,
    });
    let attended =
        runtime.block_on(attend(place, applied, &settings, &gateway, &telemetry, &mut follower));
    let whole = gateway.join();
    if let Err(ended) = &whole {
        tracing::error!("gateway ends: {ended}");
    }
    follower.finish();
    telemetry.flush(FAREWELL);
    api.shut_down();
    attended?;
    Ok(whole?)
}

/// The privileges that the process gave up; `None`: the configuration keeps them.
struct Sandbox(Option<Vec<Missing>>);

impl Sandbox {
    /// Gives up the privileges. The sockets are open, and no thread has been started, which would keep its own. Fails if
    /// the configuration cannot be read without them, since a reload could not read it either.
    fn enter(place: &Place, settings: &Settings) -> Result<Sandbox, Failure> {
        if !settings.gateway.sandbox {
            return Ok(Sandbox(None));
        }
        let was_privileged = sandbox::is_privileged();
        let missing = sandbox::confine_gateway();
        if was_privileged {
            place.load()?;
        }
        Ok(Sandbox(Some(missing)))
    }

    fn log(&self) {
        let Sandbox(missing) = self;
        let Some(missing) = missing else {
            return tracing::warn!("sandbox is off ([gateway] sandbox = false)");
        };
        if missing.is_empty() {
            return tracing::info!("sandbox: no capabilities, system calls filtered");
        }
        let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
        tracing::warn!("kernel refused a part of the sandbox: {}", missing.join("; "));
    }
}

/// Logs to standard error as selected by `EVENKEEL_LOG` (`info`, or `warn,evenkeel_server=debug`), and to the OTLP
/// receiver.
fn install_log(telemetry: &Telemetry) -> Result<(), Failure> {
    let chosen = std::env::var("EVENKEEL_LOG").unwrap_or_else(|_| "info".to_owned());
    let subscriber = telemetry
        .subscriber(&chosen)
        .map_err(|error| Failure::Telemetry(format!("EVENKEEL_LOG is {chosen:?}: {error}")))?;
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|error| Failure::Telemetry(error.to_string()))
}

fn log_capacity(capacity: &Capacity) {
    if capacity.is_short() {
        tracing::warn!("{capacity}");
    } else {
        tracing::info!("{capacity}");
    }
}

/// The `service.instance.id`.
fn instance() -> String {
    format!("{}-{}", std::process::id(), fastrand::u32(..))
}

/// Waits for a shutdown or the end of a thread.
async fn attend(
    place: &Place,
    applied: Applied,
    settings: &Settings,
    gateway: &Running,
    telemetry: &Telemetry,
    follower: &mut Follower,
) -> Result<(), Failure> {
    let handle = &gateway.handle;
    let mut counters = Counters::new(handle.clone(), telemetry.instruments());
    counters.begin().await;
    let outcome = tokio::select! {
        () = follower.follow() => Ok(()),
        () = counters.follow() => Ok(()),
        result = reload::follow(place, applied, handle) => result.map_err(Failure::from),
        result = end(handle, settings.gateway.drain_timeout) => result.map_err(Failure::from),
        result = gateway.ends() => result.map_err(Failure::from),
    };
    // Closes the remaining sessions. If control has ended, all other threads have ended as well.
    let _ = tokio::time::timeout(LAST_ORDERS, handle.shut_down(Duration::ZERO)).await;
    outcome
}

/// Waits for a signal, and then for the end of the drain.
async fn end(handle: &Handle, within: Duration) -> std::io::Result<()> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!(?within, "shutting down; open sessions may continue until the drain timeout");
    let finished = handle.shut_down(within);
    tokio::select! {
        _ = finished => {}
        // A second signal ends all sessions at once.
        _ = terminate.recv() => { let _ = handle.shut_down(Duration::ZERO).await; }
        _ = interrupt.recv() => { let _ = handle.shut_down(Duration::ZERO).await; }
    }
    Ok(())
}
