//! The API's threads, for operators and for WebRTC clients: start, paths and methods, authentication, shutdown.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::http::{Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use evenkeel_alerts::AlertHandle;
use evenkeel_config::{AdminSettings, AdminTcp, ConfigInForce, WebrtcSettings};
use evenkeel_contract::errors::ErrorCode;
use evenkeel_control::{Handle, Inherited, NamedSockets, SocketName, TokensRefused};
use evenkeel_group::{Access, PeerStream};
use evenkeel_handover::{RequestGate, Upgrades};
use evenkeel_index::IndexReader;
use evenkeel_process::scheduling;
use evenkeel_telemetry::{ExportFailures, Instruments};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc, watch};

use super::advice_feed::AdviceFeed;
use super::change_log::ChangeLog;
use super::changes::SocketPeer;
use super::context::{ApiContext, BODIES_MAX, CredentialEnd, MetricsText, UPLOADS_MAX};
use super::error::{ApiError, unknown_path};
use super::event_feed::EventFeed;
use super::events::NoticeWriter;
use super::failure_log::FailureLog;
use super::listener::{
    self, ConnectionLimits, Entrance, Gate, Gated, ProvenCredential, SocketFile, TcpPlace,
};
use super::probe_results::UsedResults;
use super::relay::{self, PeerRelay, RelayLimits, Relayed};
use super::request::{BodyBudget, bearer};
use super::secrets::ClientSecrets;
use super::whip::tls::{WebrtcCertificate, WebrtcCertificateError, WebrtcTls};
use super::{
    alerts, blast, changes, failures, feedback, gateway, offer, operations, policies, probes,
    recording, sessions, whip,
};

/// Maximum connections on the Unix socket, including event listeners. Further connections wait.
const CONNECTIONS_MAX: usize = 1_024;

/// Time in which requests arrive on connections that a process accepted before another one replaced it.
const LAST_REQUESTS: Duration = Duration::from_millis(100);

/// Time for the last answers of a process that another one replaces.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ApiStartError {
    /// A process listens at the Unix socket.
    #[error(
        "another gateway, or another process, listens at {}; end it, or name another path by `socket` in [admin]",
        .path.display()
    )]
    Occupied {
        /// The socket of `[admin]`.
        path: PathBuf,
    },
    /// The Unix socket cannot be created.
    #[error("cannot listen for the API at {}: {error}", .path.display())]
    Socket {
        /// The socket of `[admin]`.
        path: PathBuf,
        /// The refusal of the system, or the file that is at this path.
        error: io::Error,
    },
    /// The TCP address cannot be bound.
    #[error("cannot listen for the API on {address}: {error}")]
    Tcp {
        /// `tcp` of `[admin]`.
        address: SocketAddr,
        /// The refusal of the system.
        error: io::Error,
    },
    /// The address of WHIP and WHEP cannot be bound.
    #[error("cannot listen for WHIP and WHEP on {address}: {error}")]
    Webrtc {
        /// `listen` of `[webrtc]`.
        address: SocketAddr,
        /// The refusal of the system.
        error: io::Error,
    },
    /// The certificate of WHIP and WHEP cannot be used.
    #[error("[webrtc]: {0}")]
    Certificate(#[from] WebrtcCertificateError),
    /// The system provided no thread, or no descriptor for the event loop.
    #[error("cannot start a thread of the API: {0}")]
    Thread(io::Error),
}

/// The running API; its threads end when it is dropped.
#[derive(Debug)]
pub struct ApiThread {
    /// The TCP address, if TCP is configured.
    pub address: Option<SocketAddr>,
    /// The address of WHIP and WHEP, if they are configured.
    pub webrtc: Option<SocketAddr>,
    gate: watch::Sender<Gate>,
    /// The threads stop once it is written or dropped.
    stop: Option<watch::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

/// The API's sockets, and the event loops that will serve them.
pub struct BoundApi {
    settings: AdminSettings,
    webrtc: Option<BoundWebrtc>,
    listening: ApiListeners,
    runtime: Runtime,
    /// The secrets of clients, which a reload replaces.
    pub secrets: ClientSecrets,
    /// Counts refused tokens of WebRTC clients.
    pub instruments: Option<Arc<Instruments>>,
    /// Replaces the process on a client's request.
    pub upgrades: Option<Upgrades>,
    bodies: Arc<BodyBudget>,
    relay: Option<Arc<PeerRelay>>,
    /// Relays requests of WebRTC clients, on a connection of their own.
    webrtc_relay: Option<Arc<PeerRelay>>,
    /// Answers requests about sessions of all gateways.
    pub index: Option<IndexReader>,
    /// Answers requests about alerts and dependencies.
    pub alerts: Option<AlertHandle>,
    /// Exports that the receiver of telemetry does not take.
    pub export_failures: ExportFailures,
    pub configuration: Option<watch::Receiver<ConfigInForce>>,
}

/// Binds the API's sockets, or takes them from the process that this one replaces. A client that connects waits until
/// they are served.
pub fn bind(
    settings: AdminSettings,
    webrtc: Option<WebrtcSettings>,
    inherited: &mut Inherited,
) -> Result<BoundApi, ApiStartError> {
    let runtime = event_loop()?;
    let listening = runtime.block_on(listen(&settings, inherited))?;
    let secrets = ClientSecrets::of(settings.tcp.as_ref(), webrtc.as_ref());
    let webrtc = webrtc.map(|settings| BoundWebrtc::new(settings, inherited)).transpose()?;
    let bodies = BodyBudget::new(BODIES_MAX);
    Ok(BoundApi {
        settings,
        webrtc,
        listening,
        runtime,
        secrets,
        instruments: None,
        upgrades: None,
        bodies,
        relay: None,
        webrtc_relay: None,
        index: None,
        alerts: None,
        export_failures: ExportFailures::default(),
        configuration: None,
    })
}

fn event_loop() -> Result<Runtime, ApiStartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(ApiStartError::Thread)
}

/// Starts the API on its own thread.
pub fn start(
    settings: AdminSettings,
    handle: Handle,
    metrics: MetricsText,
) -> Result<ApiThread, ApiStartError> {
    let api = bind(settings, None, &mut Inherited::default())?;
    let api = api.serve(handle, metrics, Vec::new())?;
    api.open();
    Ok(api)
}

impl BoundApi {
    /// Answers requests about the group, and those that its other gateway relays.
    pub fn join(&mut self, access: Access, instruments: Arc<Instruments>) {
        let Access { group, peer, streams } = access;
        self.listening.peer = Some(streams);
        if self.webrtc.is_some() {
            let relay = PeerRelay::new(group.clone(), peer.clone(), Arc::clone(&instruments));
            self.webrtc_relay = Some(Arc::new(relay));
        }
        self.relay = Some(Arc::new(PeerRelay::new(group, peer, instruments)));
    }

    /// The certificate of WHIP and WHEP, if they have one.
    pub fn webrtc_certificate(&self) -> Option<&WebrtcCertificate> {
        Some(&self.webrtc.as_ref()?.tls.as_ref()?.certificate)
    }

    /// Duplicates of the sockets, for the process of an upgrade.
    pub fn duplicates(&self) -> io::Result<NamedSockets> {
        let (path, tcp) = (self.settings.socket.clone(), self.settings.tcp.as_ref());
        let unix = self.listening.unix.as_fd().try_clone_to_owned()?;
        let mut duplicates = vec![(SocketName::ApiUnix { path }, unix)];
        let tcp = tcp.map(|tcp| tcp.address).zip(self.listening.tcp.as_ref());
        let webrtc = self.webrtc.as_ref().map(|it| (it.settings.listen, &it.listener));
        for (address, (listener, _)) in tcp.into_iter().chain(webrtc) {
            let name = SocketName::ApiTcp { address };
            duplicates.push((name, listener.as_fd().try_clone_to_owned()?));
        }
        Ok(duplicates)
    }

    /// Starts the API's threads, which serve once [`ApiThread::open`] is called. `metrics` renders `/metrics`. The API must
    /// start before the first session, because notices take room names from earlier events. `credentials`: those in use.
    pub fn serve(
        self,
        handle: Handle,
        metrics: MetricsText,
        credentials: Vec<CredentialEnd>,
    ) -> Result<ApiThread, ApiStartError> {
        let BoundApi { settings, webrtc, listening, runtime, upgrades, bodies, relay, .. } = self;
        let (secrets, instruments) = (self.secrets, self.instruments);
        let (index, alerts, configuration) = (self.index, self.alerts, self.configuration);
        let changes = Arc::new(ChangeLog::new(&handle.kept));
        let (stop, stopped) = watch::channel(());
        let gate = watch::Sender::new(Gate::Paused);
        let entrance = Entrance::at(&gate);
        let mut api = ApiThread {
            address: listening.tcp.as_ref().map(|(_, address)| *address),
            webrtc: webrtc.as_ref().map(|webrtc| webrtc.listener.1),
            gate,
            stop: Some(stop),
            threads: Vec::new(),
        };
        let group = relay.as_ref().map(|relay| relay.group.clone());
        let failures = Arc::new(FailureLog::new(&handle.kept, handle.names(), group));
        let notices = NoticeWriter::new(handle.names(), alerts.clone());
        let events = handle.events();
        let shared = Arc::new(ApiContext {
            names: handle.names(),
            seen: Arc::clone(&handle.idempotency_keys),
            handle,
            metrics,
            feed: EventFeed::default(),
            bodies,
            uploads: BodyBudget::new(UPLOADS_MAX),
            used_results: UsedResults::default(),
            drills: settings.drills,
            upgrades,
            relay,
            index,
            alerts,
            export_failures: self.export_failures,
            credentials,
            configuration,
            changes: Arc::clone(&changes),
            failures: Arc::clone(&failures),
        });
        if let Some(webrtc) = webrtc {
            let advice = Arc::new(AdviceFeed::default());
            let advised = Arc::clone(&advice).follow_events(shared.handle.events());
            let sessions = of_owner(&shared, self.webrtc_relay.as_ref());
            let sessions = sessions.with_state(Arc::clone(&shared));
            let whip = whip::router(
                sessions,
                Arc::clone(&shared.handle.session_urls),
                &webrtc.settings,
                secrets.clone(),
                instruments,
                advice,
                shared.group().cloned(),
            );
            let entrance = Entrance::at(&api.gate);
            let BoundWebrtc { listener: (listener, _), tls, runtime, .. } = webrtc;
            let served = serve_webrtc(listener, tls, whip, entrance, stopped.clone());
            api.threads.push(start_thread("evenkeel-webrtc", move || {
                // Offers of clients delay no operator.
                scheduling::run_after_others();
                runtime.block_on(async {
                    tokio::spawn(advised);
                    served.await;
                });
            })?);
        }
        let served = async move {
            tokio::spawn(shared.feed.clone().follow(events, notices, changes, failures));
            serve(listening, settings, secrets, &shared, entrance, stopped).await;
        };
        api.threads.push(start_thread("evenkeel-api", move || runtime.block_on(served))?);
        Ok(api)
    }
}

fn start_thread(
    name: &str,
    serve: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, ApiStartError> {
    std::thread::Builder::new().name(name.into()).spawn(serve).map_err(ApiStartError::Thread)
}

impl RequestGate for ApiThread {
    fn open(&self) {
        self.gate.send_replace(Gate::Open);
    }

    fn pause(&self) {
        self.gate.send_replace(Gate::Paused);
    }
}

impl ApiThread {
    /// Ends the API after its last answers, while another process serves its sockets.
    pub fn leave(mut self) {
        self.gate.send_replace(Gate::Left);
        self.end();
    }

    /// Ends the API at once; event streams end.
    pub fn shut_down(mut self) {
        self.end();
    }

    /// Ends the API while the rest of the gateway continues.
    pub fn close(&self) {
        if let Some(stop) = &self.stop {
            // Fails only if the threads have ended.
            let _ = stop.send(());
        }
    }

    /// Returns true until a thread of the API has ended.
    pub fn is_running(&self) -> bool {
        self.stop.is_some() && !self.threads.iter().any(JoinHandle::is_finished)
    }

    fn end(&mut self) {
        drop(self.stop.take());
        for thread in self.threads.drain(..) {
            // The panic was reported already.
            let _ = thread.join();
        }
    }
}

impl Drop for ApiThread {
    fn drop(&mut self) {
        self.end();
    }
}

/// A socket, and the address that it got.
type BoundTcp = (TcpListener, SocketAddr);

/// The address of WHIP and WHEP, and the event loop that will serve it.
struct BoundWebrtc {
    settings: WebrtcSettings,
    listener: BoundTcp,
    tls: Option<WebrtcTls>,
    runtime: Runtime,
}

impl BoundWebrtc {
    fn new(
        settings: WebrtcSettings,
        inherited: &mut Inherited,
    ) -> Result<BoundWebrtc, ApiStartError> {
        let runtime = event_loop()?;
        let address = settings.listen;
        let tls = whip::tls::read(&settings).transpose()?;
        let listener = runtime.block_on(listen_on(address, inherited));
        let listener = listener.map_err(|error| ApiStartError::Webrtc { address, error })?;
        Ok(BoundWebrtc { settings, listener, tls, runtime })
    }
}

struct ApiListeners {
    unix: UnixListener,
    /// `None` for an inherited socket.
    file: Option<SocketFile>,
    /// Sockets of the replaced process that this one does not use, removed once this one serves.
    obsolete: Vec<PathBuf>,
    tcp: Option<BoundTcp>,
    /// Connections of the group's other gateway.
    peer: Option<mpsc::Receiver<PeerStream>>,
}

async fn listen(
    settings: &AdminSettings,
    inherited: &mut Inherited,
) -> Result<ApiListeners, ApiStartError> {
    let path = &settings.socket;
    let name = SocketName::ApiUnix { path: path.clone() };
    let unix = match inherited.take(&name).map(StdUnixListener::from) {
        Some(listener) => UnixListener::from_std(listener).map(|listener| (listener, None)),
        None => listener::bind(path).map(|(listener, file)| (listener, Some(file))),
    };
    let (unix, file) = unix.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => ApiStartError::Occupied { path: path.clone() },
        _ => ApiStartError::Socket { path: path.clone(), error },
    })?;
    let obsolete = inherited.remaining().filter_map(|name| match name {
        SocketName::ApiUnix { path } => Some(path.clone()),
        _ => None,
    });
    let obsolete = obsolete.collect();
    let mut listening = ApiListeners { unix, file, obsolete, tcp: None, peer: None };
    if let Some(AdminTcp { address, .. }) = settings.tcp {
        let listener = listen_on(address, inherited).await;
        listening.tcp = Some(listener.map_err(|error| ApiStartError::Tcp { address, error })?);
    }
    Ok(listening)
}

async fn listen_on(address: SocketAddr, inherited: &mut Inherited) -> io::Result<BoundTcp> {
    let inherited = inherited.take(&SocketName::ApiTcp { address });
    let listener = match inherited.map(StdTcpListener::from) {
        Some(listener) => TcpListener::from_std(listener)?,
        None => TcpListener::bind(address).await?,
    };
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

/// Accepts connections over TCP, which have limits of their own.
fn gated(listener: TcpListener, entrance: &Entrance) -> Gated<TcpListener> {
    let places = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
    Gated { listener, entrance: entrance.clone(), places }
}

async fn serve_webrtc(
    listener: TcpListener,
    tls: Option<WebrtcTls>,
    whip: Router,
    entrance: Entrance,
    mut stopped: watch::Receiver<()>,
) {
    let whip = whip.layer(middleware::from_fn_with_state(entrance.clone(), listener::pass));
    let (listener, tls) = (gated(listener, &entrance), tls.map(|tls| tls.acceptor));
    tokio::spawn(listener::serve_tcp(listener, tls, ConnectionLimits::OF_CLIENTS, whip));
    // Fails once it is dropped.
    let _ = stopped.changed().await;
    answer_last(&entrance).await;
}

/// Answers the last requests if another process serves.
async fn answer_last(entrance: &Entrance) {
    if entrance.gate() == Gate::Left {
        tokio::time::sleep(LAST_REQUESTS).await;
        // Longer answers, such as event streams, are cut off.
        let _ = tokio::time::timeout(LAST_ANSWERS, entrance.answered()).await;
    }
}

async fn serve(
    listening: ApiListeners,
    settings: AdminSettings,
    secrets: ClientSecrets,
    shared: &Arc<ApiContext>,
    entrance: Entrance,
    mut stopped: watch::Receiver<()>,
) {
    let ApiListeners { unix, file, obsolete, tcp, peer } = listening;
    let path = settings.socket;
    let enter = || middleware::from_fn_with_state(entrance.clone(), listener::pass);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let unix = Gated { listener: unix, entrance: entrance.clone(), places };
    let local = router(Arc::clone(shared))
        .layer(enter())
        .layer(middleware::from_fn(changes::name_user))
        .into_make_service_with_connect_info::<SocketPeer>();
    // All tasks run until this function returns and the runtime ends.
    let local = tokio::spawn(axum::serve(unix, local).into_future());
    if let Some((listener, _)) = tcp {
        let refused = Arc::clone(&shared.handle.tokens_refused);
        let guard = Arc::new(TokenGuard { secrets, refused });
        let guarded = router(Arc::clone(shared))
            .layer(enter())
            .layer(middleware::from_fn_with_state(guard, require_token));
        let listener = gated(listener, &entrance);
        tokio::spawn(listener::serve_tcp(listener, None, ConnectionLimits::OF_API, guarded));
    }
    if let Some(streams) = peer {
        let of_peer = router_of_peer(Arc::clone(shared)).layer(enter());
        tokio::spawn(relay::serve(streams, of_peer));
    }
    let mut opened = entrance.clone();
    tokio::spawn(async move {
        opened.opened().await;
        obsolete.into_iter().map(SocketFile).for_each(drop);
    });
    tokio::select! {
        _ = stopped.changed() => {}
        _ = local => {}
    }
    match entrance.gate() {
        Gate::Open => drop(file.unwrap_or(SocketFile(path))),
        // An inherited socket belongs to the process that serves.
        Gate::Paused => drop(file),
        Gate::Left => std::mem::forget(file),
    }
    answer_last(&entrance).await;
}

/// The requests that the owner of a group answers, also those to its standby.
fn of_owner(shared: &ApiContext, relay: Option<&Arc<PeerRelay>>) -> Router<Arc<ApiContext>> {
    let routes = Router::new()
        .route("/v1/sessions", get(sessions::sessions).post(offer::open))
        .route(
            "/v1/sessions/{id}",
            get(sessions::session).put(offer::later::change).delete(sessions::close),
        )
        .route("/v1/sessions/{id}/explain", get(sessions::explain))
        .route("/v1/probes", post(probes::open))
        .route("/v1/probes/{id}", put(probes::measure))
        .route("/v1/sessions/{id}/feedback", post(feedback::rate))
        .route("/v1/ratings", get(feedback::ratings))
        .route("/v1/rooms", get(sessions::rooms))
        .route("/v1/rooms/{target}", post(operations::room_verb))
        .route("/v1/rooms/{target}/explain", get(sessions::explain_room))
        .route("/v1/nodes/{target}", post(operations::node_verb))
        .route("/v1/zones/{target}", post(operations::zone_verb))
        .route("/v1/regions/{target}", post(operations::region_verb))
        .route("/v1/regions:failback", post(operations::failback_everywhere))
        .route("/v1/clients/{label}/{target}", post(operations::client_verb))
        .route("/v1/alerts", get(alerts::alerts))
        .route("/v1/alerts/{target}", post(alerts::alert_verb))
        .route("/v1/log", get(operations::log).post(operations::set_log))
        .route("/readyz", get(gateway::ready));
    let policies = Router::new().route("/v1/policies", get(policies::policies)).route(
        "/v1/policies/{set}/{target}",
        put(policies::push_policy).post(policies::policy_verb),
    );
    let documents = Router::new()
        .route("/v1/policies/{set}/{target}/data/{name}", get(policies::policy_document));
    let changes = Router::new()
        .route("/v1/changes", get(changes::changes))
        .route("/v1/failures", get(failures::failures));
    let relayed = |routes: Router<Arc<ApiContext>>, limits| match relay {
        Some(relay) => {
            let state = (Arc::clone(relay), limits);
            routes.route_layer(middleware::from_fn_with_state(state, relay::pass))
        }
        None => routes,
    };
    let of_calls = RelayLimits::of_calls(Arc::clone(&shared.bodies));
    let of_changes = RelayLimits::of_changes(Arc::clone(&shared.bodies));
    let of_policies = RelayLimits::of_policies(Arc::clone(&shared.uploads));
    let routes = relayed(routes, of_calls).merge(relayed(changes, of_changes));
    let policies = relayed(policies, of_policies.clone());
    // A standby refuses a reader before it relays the request.
    routes.merge(policies).merge(operators_only(relayed(documents, of_policies)))
}

/// The part of the API for the group's other gateway.
fn router_of_peer(shared: Arc<ApiContext>) -> Router {
    of_owner(&shared, shared.relay.as_ref())
        .fallback(async || unknown_path())
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), changes::pass))
        .layer(Extension(Relayed))
        .with_state(shared)
}

fn router(shared: Arc<ApiContext>) -> Router {
    // A recording holds one of few places, a blast radius copies the core, and commands and URLs of the configuration may contain
    // passwords.
    let for_operators = Router::new()
        .route("/v1/blast", get(blast::blast))
        .route("/v1/configuration", get(gateway::configuration))
        .route("/v1/recording", get(recording::record));
    of_owner(&shared, shared.relay.as_ref())
        .merge(operators_only(for_operators))
        .route("/v1/sessions/history", get(sessions::history))
        .route("/v1/modes", get(gateway::modes))
        .route("/v1/nodes", get(operations::nodes))
        .route("/v1/zones", get(operations::zones))
        .route("/v1/regions", get(operations::regions))
        .route("/v1/status", get(gateway::status))
        .route("/v1/configuration:reload", post(gateway::reload))
        .route("/v1/gateway:upgrade", post(gateway::upgrade))
        .route("/v1/gateway:hand-over", post(gateway::hand_over))
        .route("/v1/gateway:take-over", post(gateway::take_over))
        .route("/v1/gateways", get(gateway::gateways))
        .route("/v1/index/gateways", get(gateway::indexed_gateways))
        .route("/v1/index/sessions/{id}", get(gateway::indexed_session))
        .route("/v1/policies/refusals", get(policies::refusals))
        .route("/v1/events", get(gateway::follow))
        .route("/livez", get(async || "alive\n"))
        .route("/openapi.json", get(gateway::openapi))
        .route("/metrics", get(gateway::metrics))
        .fallback(async || unknown_path())
        .method_not_allowed_fallback(async || {
            ApiError::new(ErrorCode::MethodNotAllowed, "method not allowed at this path")
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), changes::pass))
        .with_state(shared)
}

/// Routes for which the token of `read_token_file` does not suffice.
fn operators_only(routes: Router<Arc<ApiContext>>) -> Router<Arc<ApiContext>> {
    routes.route_layer(middleware::from_fn(refuse_reader))
}

async fn refuse_reader(request: Request, next: Next) -> Response {
    match request.extensions().get::<ReaderToken>() {
        Some(ReaderToken) => reader_refused(),
        None => next.run(request).await,
    }
}

fn reader_refused() -> Response {
    let message = "found the token of `read_token_file`, expected that of `token_file`";
    closing(ApiError::new(ErrorCode::Refused, message))
}

/// Frees the connection for the next client.
fn closing(refused: ApiError) -> Response {
    ([(header::CONNECTION, "close")], refused).into_response()
}

/// The request has the token of `read_token_file`.
#[derive(Clone, Copy)]
struct ReaderToken;

struct TokenGuard {
    secrets: ClientSecrets,
    refused: Arc<TokensRefused>,
}

async fn require_token(
    State(guard): State<Arc<TokenGuard>>,
    Extension(place): Extension<Arc<TcpPlace>>,
    mut request: Request,
    next: Next,
) -> Response {
    let token = bearer(request.headers());
    let is_get = *request.method() == Method::GET;
    let Some(credential) = token.and_then(|token| guard.secrets.credential(token)) else {
        guard.refused.count(token.is_none());
        let read = if is_get { " or `read_token_file`" } else { "" };
        let expected = "expected the header `authorization: Bearer` with the token of `token_file`";
        return closing(ApiError::new(ErrorCode::Unauthorized, format!("{expected}{read}")));
    };
    if credential == ProvenCredential::ReaderToken {
        if !is_get {
            return reader_refused();
        }
        request.extensions_mut().insert(ReaderToken);
    }
    match place.trust(credential) {
        Ok(()) => next.run(request).await,
        Err(refused) => closing(refused),
    }
}
