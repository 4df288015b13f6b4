//! A gateway in this process.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use evenkeel_config::{Colour, Compiler, GatewayConfig, InvalidSetting};
use evenkeel_control::{
    ControlError, EventRecord, GatewayEvent, Handle, OfferedSession, SessionAnswer, SessionView,
    StatusReport,
};
use evenkeel_drivers::{DRIVERS, DriverTable, kinds};
use evenkeel_model::CoreEvent;
use evenkeel_runtime::{RunError, RunningGateway};
use tokio::runtime::Runtime;
use tokio::sync::broadcast;

use super::{Node, SECRET, TIMEOUT, wait_until};

/// Limit of gateways that run at the same time: each has threads with deadlines, and tests run in parallel.
const RUNNING_MAX: usize = 2;

/// The configuration of a gateway, in parts that a test replaces.
pub(crate) struct World {
    /// `[[listen]]` tables.
    pub(crate) listens: String,
    /// `[[node]]` tables.
    pub(crate) nodes: String,
    /// Lines of `[admin]` beside `socket`.
    pub(crate) admin: String,
    /// Further lines of `[gateway]`.
    pub(crate) gateway: String,
    /// Lines of `[limits]`.
    pub(crate) limits: String,
    /// Lines of `[scenario.call]`.
    pub(crate) scenario: String,
    /// The hooks that the policy set `call` binds.
    pub(crate) hooks: String,
    /// The text of the policy set `conference`.
    pub(crate) conference: String,
    /// The text of the policy set `live`.
    pub(crate) live: String,
    /// Nothing is sent to a declared address before a packet came from it, unless the set says so. Default false: tests
    /// count packets from the first.
    pub(crate) await_first_packet: bool,
    /// The node is marked down after this time of unanswered probes, without another witness.
    pub(crate) probe_timeout: &'static str,
    /// Further lines of `[detector]`.
    pub(crate) detector: String,
    /// Compiles pushed plugins; without it they are compiled in this process.
    pub(crate) compiler: Option<Compiler>,
    pub(crate) drivers: DriverTable,
}

impl World {
    /// One UDP listener for declared addresses, one worker, no policies: native defaults decide.
    pub(crate) fn of(nodes: &[&Node]) -> World {
        World {
            listens: "[[listen]]\nudp = \"127.0.0.1:0\"\nidentity = [\"declared\"]\n".into(),
            nodes: nodes.iter().map(|node| node.text()).collect(),
            admin: String::new(),
            gateway: String::new(),
            limits: "workers = 1\n".into(),
            scenario: "spares = 2\n".into(),
            hooks: String::new(),
            conference: "[scenario.conference]\n".into(),
            live: "[scenario.live]\n".into(),
            await_first_packet: false,
            probe_timeout: "400ms",
            detector: String::new(),
            compiler: None,
            drivers: DRIVERS,
        }
    }

    /// Replaces the listeners by one for UDP clients with these identities.
    pub(crate) fn with_identities(mut self, identities: &str) -> World {
        self.listens = format!("[[listen]]\nudp = \"127.0.0.1:0\"\nidentity = {identities}\n");
        self
    }

    pub(crate) fn with_quic(mut self) -> World {
        self.listens += "[[listen]]\nquic = \"127.0.0.1:0\"\n";
        self
    }

    /// Binds the shipped routing policy, with delay as its only cost.
    pub(crate) fn routed(mut self) -> World {
        self.hooks += "[routing]\nplugin = \"route-nearest\"\nsettings = { review_interval = \"0s\", min_stay = \"1h\" }\n";
        self
    }

    pub(crate) fn start(&self) -> Gateway {
        self.try_start().unwrap()
    }

    pub(crate) fn try_start(&self) -> Result<Gateway, RunError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("gateway-{}-{number}", std::process::id()));
        let settings = self.settings(&folder);
        let slot = Slot::take();
        let running = evenkeel_runtime::start(&settings, self.drivers)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let events = running.handle.events();
        Ok(Gateway {
            handle: running.handle.clone(),
            running: Some(running),
            runtime,
            settings,
            events: Mutex::new((events, Vec::new())),
            folder,
            _slot: slot,
        })
    }

    /// The nodes, parsed as the gateway parses its node list.
    pub(crate) fn listed(&self) -> Vec<evenkeel_config::NodeConfig> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("listed-{}-{number}", std::process::id()));
        let nodes = self.settings(&folder).nodes.clone();
        let _ = std::fs::remove_dir_all(&folder);
        nodes
    }

    fn settings(&self, folder: &Path) -> Arc<GatewayConfig> {
        match GatewayConfig::load(Some(&self.write(folder)), None, &kinds(self.drivers)) {
            Ok(settings) => Arc::new(GatewayConfig { compiler: self.compiler.clone(), ..settings }),
            Err(invalid) => panic!("{}", InvalidSetting::render(&invalid, Colour::Plain)),
        }
    }

    /// Writes the configuration and the files that it names, and returns its path.
    pub(crate) fn write(&self, folder: &Path) -> PathBuf {
        let policies = folder.join("policies");
        std::fs::create_dir_all(&policies).unwrap();
        std::fs::write(folder.join("secret"), SECRET).unwrap();
        std::fs::write(folder.join("cluster.secret"), [b'c'; 32]).unwrap();
        let World { listens, nodes, gateway, admin, limits, scenario, hooks, .. } = self;
        let World { probe_timeout, detector, .. } = self;
        let write = |name: &str, text: &str| {
            let table = format!("[scenario.{name}]\n");
            let key = format!("{table}await_first_packet = {}\n", self.await_first_packet);
            // A shipped set has the key.
            let is_set = text.contains("\nawait_first_packet");
            let text = if is_set { text.to_owned() } else { text.replacen(&table, &key, 1) };
            std::fs::write(policies.join(format!("{name}.toml")), text).unwrap();
        };
        write("call", &format!("[scenario.call]\n{scenario}\n{hooks}"));
        write("conference", &self.conference);
        write("live", &self.live);
        // Timeouts are longer than the defaults because tests share the machine.
        let text = format!(
            "{listens}\n{nodes}\n[gateway]\nregion = \"east\"\npolicies = \"policies\"\n{gateway}\n\
             [admin]\nsocket = \"admin.sock\"\n{admin}\n[limits]\n{limits}\n\
             [detector]\n{detector}\nprobe_slack = \"100ms\"\nsilence = \"100ms\"\n\
             base_ejection_time = \"10ms\"\nwary_for = \"10ms\"\n\
             in_region = {{ probe_interval = \"20ms\", down_after = \"{probe_timeout}\" }}\n\
             cross_region = {{ probe_interval = \"20ms\", down_after = \"{probe_timeout}\" }}\n"
        );
        let config = folder.join("evenkeel.toml");
        std::fs::write(&config, text).unwrap();
        config
    }
}

type EventFeed = (broadcast::Receiver<Arc<EventRecord>>, Vec<Arc<EventRecord>>);

pub(crate) struct Gateway {
    pub(crate) handle: Handle,
    pub(crate) running: Option<RunningGateway>,
    pub(crate) runtime: Runtime,
    pub(crate) settings: Arc<GatewayConfig>,
    events: Mutex<EventFeed>,
    folder: PathBuf,
    _slot: Slot,
}

impl Gateway {
    /// Waits for an answer of the control thread.
    pub(crate) fn ask<T>(&self, asked: impl Future<Output = T>) -> T {
        let limited = async { tokio::time::timeout(TIMEOUT, asked).await };
        self.runtime.block_on(limited).expect("control answers in time")
    }

    pub(crate) fn try_open(&self, wanted: OfferedSession) -> Result<SessionAnswer, ControlError> {
        self.ask(self.handle.offer(wanted))
    }

    pub(crate) fn open(&self, wanted: OfferedSession) -> SessionAnswer {
        self.try_open(wanted).unwrap()
    }

    pub(crate) fn status(&self) -> StatusReport {
        self.ask(self.handle.status()).unwrap()
    }

    pub(crate) fn drops(&self, reason: &str) -> u64 {
        self.status().drops.get(reason).copied().unwrap_or(0)
    }

    /// A counter of the QUIC endpoint.
    pub(crate) fn quic_count(&self, name: &str) -> u64 {
        self.status().quic_counts.get(name).copied().unwrap_or(0)
    }

    /// Waits until these counters of the QUIC endpoint meet the condition. A client may hear of an event before it is counted.
    pub(crate) fn await_quic_counts(&self, names: &[&str], holds: impl Fn(u64) -> bool) {
        let what = format!("the counts of {names:?}");
        wait_until(&what, || names.iter().all(|name| holds(self.quic_count(name))));
    }

    pub(crate) fn session(&self, opened: &SessionAnswer) -> Option<SessionView> {
        let sessions = self.ask(self.handle.sessions()).unwrap();
        sessions.into_iter().find(|session| session.state.session == opened.session)
    }

    /// The first event so far that `see` accepts.
    pub(crate) fn happened<T>(&self, see: impl FnMut(&EventRecord) -> Option<T>) -> Option<T> {
        let mut seen = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        while let Ok(told) = seen.0.try_recv() {
            seen.1.push(told);
        }
        seen.1.iter().map(|told| &**told).find_map(see)
    }

    /// Waits for an event that `see` accepts.
    pub(crate) fn expect<T>(
        &self,
        what: &str,
        mut see: impl FnMut(&EventRecord) -> Option<T>,
    ) -> T {
        let mut found = None;
        wait_until(what, || {
            found = self.happened(&mut see);
            found.is_some()
        });
        found.unwrap()
    }

    /// Waits for an event of the core that `see` accepts.
    pub(crate) fn expect_event<T>(
        &self,
        what: &str,
        mut see: impl FnMut(&CoreEvent) -> Option<T>,
    ) -> T {
        self.expect(what, |told| match &told.event {
            GatewayEvent::Core(event) => see(event),
            _ => None,
        })
    }

    /// Prints the gateway's state, for the analysis of a failed test.
    fn print_state(&self) {
        let told = self.runtime.block_on(async {
            tokio::time::timeout(TIMEOUT, async {
                (
                    self.handle.status().await,
                    self.handle.nodes().await,
                    self.handle.rooms().await,
                    self.handle.sessions().await,
                )
            })
            .await
        });
        eprintln!("{told:#?}");
        self.happened(|told| {
            eprintln!("{:?}", told.event);
            None::<()>
        });
    }

    pub(crate) fn running(&mut self) -> &mut RunningGateway {
        self.running.as_mut().unwrap()
    }

    /// Shuts down at once and waits for the threads.
    pub(crate) fn end(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = self.ask(self.handle.shut_down(Duration::ZERO));
            running.join().unwrap();
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_state();
        } else {
            self.end();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Permission to run one of `RUNNING_MAX` gateways.
struct Slot;

static RUNNING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

impl Slot {
    fn take() -> Slot {
        let (running, freed) = &RUNNING;
        let began = Instant::now();
        let guard = running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut guard = freed
            .wait_while(guard, |running| *running >= RUNNING_MAX)
            .unwrap_or_else(PoisonError::into_inner);
        *guard += 1;
        assert!(began.elapsed() < Duration::from_secs(600), "no running gateway ended");
        Slot
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let (running, freed) = &RUNNING;
        *running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        freed.notify_all();
    }
}
