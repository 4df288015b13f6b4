//! Sessions at any media server, opened by POST requests with JSON to an operator's URL. Each request has a verb, and
//! each session a nonce, so that a repeated request has no effect. A session that is not refreshed within its lease is
//! over.

mod messages;
mod record;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_config::{
    DriverKey, DriverKeys, DriverKind, DriverSettings, NodeConfig, Signalling, WebhookTarget,
};
use evenkeel_dataplane::worker::{NodeLeg, NodePort};
use evenkeel_http::Posted;
use evenkeel_model::{Hop, NodeId, SessionId};
use messages::WebhookAnswer;
pub(crate) use record::WebhookLeaseRecord;

use crate::driver::{Driver, DriverContext, NodeDriver, NodeInput, RecordScope};
use crate::message::DriverMessage;
use crate::record::DriversRecord;
use crate::session::{
    Clock, ContinuedSession, DriverAction, LocalSource, OpenRequest, SessionFacts, Transport,
};

/// Lifetime of a session without a refresh. It covers three refreshes, so two in a row may be lost.
const LEASE: Duration = Duration::from_secs(30);
const REFRESH_EVERY: Duration = Duration::from_secs(9);

/// Sessions per refresh request.
const REFRESHED_AT_ONCE: usize = 256;

/// Timeout of an opening, below the core's.
const OPEN_WITHIN: Duration = Duration::from_millis(1_800);

const SAY_WITHIN: Duration = Duration::from_secs(5);

struct WebhookLease {
    session: SessionId,
    hop: Hop,
    /// The opening request, repeated if the server has lost the session.
    opens: DriverMessage,
    rtcp_apart: bool,
    taken: Option<NodePort>,
    /// The session's lease on other ports, which ends once this one is open.
    before: Option<u64>,
}

enum WebhookCall {
    Open(u64),
    Refresh,
    Close,
}

pub(crate) struct Webhook;

impl DriverKind for Webhook {
    fn name(&self) -> &'static str {
        "webhook"
    }

    fn keys(&self) -> &'static [DriverKey] {
        const {
            &[
                DriverKey::new("address"),
                DriverKey::new("probe"),
                DriverKey::new("webhook"),
                DriverKey::new("token_file"),
            ]
        }
    }

    fn read(&self, keys: &mut DriverKeys<'_>) -> Option<DriverSettings> {
        let probe = keys.probe();
        let hook = keys.hook("webhook", "a URL such as `http://10.0.1.11:8080/sessions`")?;
        let posts = Signalling::Posts(Arc::new(hook));
        let settings = DriverSettings::new(self.name(), probe, posts);
        Some(settings.showing("probe", probe.name()))
    }
}

impl Driver for Webhook {
    fn start(
        &self,
        node: NodeId,
        config: &NodeConfig,
        context: &DriverContext,
    ) -> Box<dyn NodeDriver> {
        let hook = config.driver.signalling.hook().expect("the driver reads a target of POSTs");
        Box::new(WebhookNode::new(node, config, Arc::clone(hook), context.source))
    }
}

struct WebhookNode {
    node: NodeId,
    name: Arc<str>,
    address: SocketAddr,
    hook: Arc<WebhookTarget>,
    source: LocalSource,
    /// Leases by nonce.
    leases: BTreeMap<u64, WebhookLease>,
    nonces: BTreeMap<(SessionId, Hop), u64>,
    unanswered: BTreeMap<u64, WebhookCall>,
    posts: u64,
    refresh: Option<Instant>,
    acts: VecDeque<DriverAction>,
}

impl NodeDriver for WebhookNode {
    fn open(
        &mut self,
        request: &OpenRequest<'_>,
        draw: &mut dyn FnMut() -> u64,
        clock: Clock,
    ) -> Option<DriverAction> {
        let &OpenRequest { session, hop, facts, rtcp_apart, .. } = request;
        let facts: &SessionFacts = facts?;
        let Some(own) = self.source.towards(self.address) else {
            let reason = format!("no route to {}", self.address).into();
            return Some(DriverAction::Refused { session, hop, unwilling: false, reason });
        };
        let nonce = draw();
        let opens: DriverMessage =
            messages::open(&self.name, session, nonce, facts, own, LEASE).into();
        let before = self.nonces.insert((session, hop), nonce);
        before.iter().for_each(|before| _ = self.leases.remove(before));
        let lease =
            WebhookLease { session, hop, opens: opens.clone(), rtcp_apart, taken: None, before };
        self.leases.insert(nonce, lease);
        self.refresh.get_or_insert(clock.now + REFRESH_EVERY);
        Some(self.post(WebhookCall::Open(nonce), Some(session), opens, OPEN_WITHIN))
    }

    fn close(&mut self, session: SessionId, hop: Hop, _clock: Clock) -> Option<DriverAction> {
        let nonce = self.nonces.remove(&(session, hop))?;
        self.leases.remove(&nonce)?;
        let body = messages::close(&self.name, session, nonce);
        Some(self.post(WebhookCall::Close, Some(session), body.into(), SAY_WITHIN))
    }

    fn handle(
        &mut self,
        input: NodeInput,
        _draw: &mut dyn FnMut() -> u64,
        _clock: Clock,
    ) -> Option<DriverAction> {
        if let NodeInput::Posted { number, response } = input {
            self.handle_posted(number, response);
        }
        None
    }

    fn poll(&mut self, clock: Clock) -> Option<DriverAction> {
        let now = clock.now;
        if self.refresh.is_some_and(|due| due <= now) {
            let open = self.leases.iter().filter(|(_, lease)| lease.taken.is_some());
            let open: Vec<(SessionId, u64)> =
                open.map(|(nonce, lease)| (lease.session, *nonce)).collect();
            for some in open.chunks(REFRESHED_AT_ONCE) {
                let body = messages::refresh(&self.name, some, LEASE);
                let act = self.post(WebhookCall::Refresh, None, body.into(), SAY_WITHIN);
                self.acts.push_back(act);
            }
            self.refresh = (!self.leases.is_empty()).then(|| now + REFRESH_EVERY);
        }
        self.acts.pop_front()
    }

    fn record(&self, scope: RecordScope, record: &mut DriversRecord) {
        match scope {
            RecordScope::All => {
                record.webhooks.extend(self.leases.keys().filter_map(|nonce| self.lease(*nonce)));
            }
            RecordScope::Session { session, hop, .. } => {
                let nonce = self.nonces.get(&(session, hop));
                record.webhooks.extend(nonce.and_then(|nonce| self.lease(*nonce)));
            }
        }
    }

    fn restore(
        &mut self,
        record: DriversRecord,
        known: &ContinuedSession<'_>,
        _draw: &mut dyn FnMut() -> u64,
        now: Instant,
    ) {
        for lease in record.webhooks {
            if let Some(facts) = (known.facts)(lease.session) {
                self.restore_lease(lease, facts, now);
            }
        }
    }
}

impl WebhookNode {
    fn new(
        node: NodeId,
        config: &NodeConfig,
        hook: Arc<WebhookTarget>,
        source: LocalSource,
    ) -> WebhookNode {
        let (name, address) = (Arc::clone(&config.name), config.address);
        WebhookNode {
            node,
            name,
            address,
            hook,
            source,
            leases: BTreeMap::new(),
            nonces: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            posts: 0,
            refresh: None,
            acts: VecDeque::new(),
        }
    }

    /// The record of a lease, if it is open.
    fn lease(&self, nonce: u64) -> Option<WebhookLeaseRecord> {
        let &WebhookLease { session, hop, taken, .. } = self.leases.get(&nonce)?;
        taken.map(|_| WebhookLeaseRecord { nonce, session, hop, taken })
    }

    /// Continues a lease of another process.
    fn restore_lease(&mut self, record: WebhookLeaseRecord, facts: &SessionFacts, now: Instant) {
        let WebhookLeaseRecord { nonce, session, hop, taken } = record;
        // Without a route the session cannot be opened again, and its lease ends.
        let Some(own) = self.source.towards(self.address) else { return };
        let opens = messages::open(&self.name, session, nonce, facts, own, LEASE).into();
        let rtcp_apart = facts.ports.1.is_some();
        let lease = WebhookLease { session, hop, opens, rtcp_apart, taken, before: None };
        self.leases.insert(nonce, lease);
        self.nonces.insert((session, hop), nonce);
        self.refresh.get_or_insert(now + REFRESH_EVERY);
    }

    fn post(
        &mut self,
        call: WebhookCall,
        session: Option<SessionId>,
        body: DriverMessage,
        within: Duration,
    ) -> DriverAction {
        self.posts += 1;
        self.unanswered.insert(self.posts, call);
        let (number, hook) = (self.posts, Arc::clone(&self.hook));
        let transport = Transport::Post { number, hook, session, within };
        DriverAction::Send { node: self.node, transport, bytes: body }
    }

    fn handle_posted(&mut self, number: u64, posted: Posted) {
        match self.unanswered.remove(&number) {
            Some(WebhookCall::Open(nonce)) => self.opened(nonce, posted),
            Some(WebhookCall::Refresh) => self.refreshed(posted),
            Some(WebhookCall::Close) | None => {}
        }
    }

    fn opened(&mut self, nonce: u64, posted: Posted) {
        let Some(lease) = self.leases.get_mut(&nonce) else { return };
        let &mut WebhookLease { session, hop, rtcp_apart, taken, .. } = lease;
        let (unwilling, reason): (bool, Cow<'static, str>) =
            match messages::opened(posted, rtcp_apart) {
                WebhookAnswer::At(port) if port.address.is_ipv6() && self.address.is_ipv4() => {
                    let address = port.address;
                    let reason = format!("address {address} is IPv6, the node's `address` is IPv4");
                    (false, reason.into())
                }
                WebhookAnswer::At(port) => {
                    lease.taken = Some(port);
                    if let Some(before) = lease.before.take() {
                        let body = messages::close(&self.name, session, before);
                        let act =
                            self.post(WebhookCall::Close, Some(session), body.into(), SAY_WITHIN);
                        self.acts.push_back(act);
                    }
                    let leg = NodeLeg::Port(Box::new(port));
                    self.acts.extend(match taken {
                        None => Some(DriverAction::Opened { session, hop, leg }),
                        Some(before) if before != port => {
                            Some(DriverAction::Changed { session, hop, leg })
                        }
                        Some(_) => None,
                    });
                    return;
                }
                // The session was open before. The failure may be temporary; the next refresh reports again whether the
                // server knows the session.
                WebhookAnswer::Unanswered(_) if taken.is_some() => return,
                WebhookAnswer::Unanswered(reason) => (false, reason.into()),
                WebhookAnswer::Refused(reason) => (false, reason.into()),
                WebhookAnswer::Unwilling(reason) => (true, reason.into()),
            };
        self.leases.remove(&nonce);
        self.nonces.remove(&(session, hop));
        self.acts.push_back(DriverAction::Refused { session, hop, unwilling, reason });
    }

    /// Opens sessions again that the server has lost.
    fn refreshed(&mut self, posted: Posted) {
        for nonce in messages::unknown(posted) {
            if let Some(lease) = self.leases.get(&nonce) {
                let (session, opens) = (Some(lease.session), lease.opens.clone());
                let act = self.post(WebhookCall::Open(nonce), session, opens, OPEN_WITHIN);
                self.acts.push_back(act);
            }
        }
    }
}
