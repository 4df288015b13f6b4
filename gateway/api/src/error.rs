//! Error answers of the API, and the errors of control as such answers.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use evenkeel_contract::errors::{ErrorAnswer, ErrorCode, ErrorFacts};
use evenkeel_control::{AgentError, ControlError, NodeNames, NodeOrder, NotReloaded};
use evenkeel_index::RoomOwner;
use evenkeel_media::trunk::message::NodeFault;
use evenkeel_model::{Impossible, NodeId, OfferRefusal};
use evenkeel_process::documents::WRITTEN_AGAIN_WITHIN;

use super::answers::milliseconds;

/// Default retry time.
const SOON: Duration = Duration::from_secs(2);

/// Maximum known names in an error text.
const NAMED_MAX: usize = 8;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ApiError {
    pub(super) code: ErrorCode,
    /// The invalid value, and what is expected.
    pub(super) message: String,
    /// The part of the request: `media[0].payload_types`.
    pub(super) field: Option<String>,
    pub(super) retry_after: Option<Duration>,
    /// The group that has the offered room.
    pub(super) room_owner: Option<Box<RoomOwner>>,
    /// The log has the reason by this id.
    pub(super) request_id: Option<String>,
}

impl ApiError {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> ApiError {
        ApiError {
            code,
            message: message.into(),
            field: None,
            retry_after: None,
            room_owner: None,
            request_id: None,
        }
    }

    pub(super) fn field(field: impl Into<String>, message: impl Into<String>) -> ApiError {
        ApiError { field: Some(field.into()), ..ApiError::new(ErrorCode::BadRequest, message) }
    }

    /// The room of an offer is at another group.
    pub(super) fn room_elsewhere(room: &str, owner: RoomOwner) -> ApiError {
        let RoomOwner { group, gateway, .. } = &owner;
        let message =
            format!("`{room}` is a room of group `{group}`: offer it to gateway `{gateway}`");
        ApiError {
            code: ErrorCode::Conflict,
            room_owner: Some(Box::new(owner)),
            ..ApiError::field("room", message)
        }
    }

    pub(super) fn retry_after(self, wait: Duration) -> ApiError {
        ApiError { retry_after: Some(wait), ..self }
    }

    /// With the default retry time.
    fn with_retry(self) -> ApiError {
        self.retry_after(jitter(SOON))
    }

    pub(super) fn body(&self) -> Vec<u8> {
        let answer = ErrorAnswer { error: self.facts() };
        serde_json::to_vec(&answer).expect("a reason is words and numbers")
    }

    /// The object `error` of an answer.
    pub(super) fn facts(&self) -> ErrorFacts {
        let owner = self.room_owner.as_ref();
        ErrorFacts {
            code: self.code.name().into(),
            message: self.message.clone(),
            field: self.field.clone(),
            retry_after_ms: milliseconds(self.retry_after),
            group: owner.map(|owner| owner.group.clone()),
            gateway: owner.map(|owner| Arc::clone(&owner.gateway)),
            api: owner.and_then(|owner| owner.api),
            request_id: self.request_id.clone(),
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self.code {
            ErrorCode::Refused if self.retry_after.is_some() => StatusCode::TOO_MANY_REQUESTS,
            code => StatusCode::from_u16(code.status()).expect("a code has a status of HTTP"),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let json = HeaderValue::from_static("application/json");
        let headers = [(header::CONTENT_TYPE, json)];
        let mut response = (self.status(), headers, self.body()).into_response();
        if let Some(wait) = self.retry_after {
            note_retry(response.headers_mut(), wait);
        }
        if self.code == ErrorCode::Unauthorized {
            let bearer = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}

/// Adds the time after which a request may be repeated: whole seconds, rounded up (RFC 9110, section 10.2.3). Without a
/// wait the next process serves, which has other connections.
pub(super) fn note_retry(headers: &mut HeaderMap, wait: Duration) {
    headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs_f64().ceil() as u64));
    if wait.is_zero() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

pub(super) fn no_policy(name: &str) -> ApiError {
    ApiError::new(
        ErrorCode::NotFound,
        format!(
            "there is no policy `{name}`; one looks like `call/routing`, and `evenkeel policy list` names all"
        ),
    )
}

/// The answer to a request that control refused. `said`: the name in the request.
pub(super) fn refused(failed: ControlError, said: &str, names: &NodeNames) -> ApiError {
    match failed {
        ControlError::Refused(refusal) => refused_offer(refusal, names),
        ControlError::NotOpened { node, reason } => {
            not_opened(node, &format!(": {reason}"), jitter(SOON), names)
        }
        ControlError::Impossible(reason) => impossible(reason, said),
        ControlError::Unfound { reason, known } => {
            let mut error = impossible(reason, said);
            error.message.push_str(&there_are(&known));
            error
        }
        ControlError::Unfit { health, draining, load_permille, capacity_kbps } => {
            let mut error = impossible(Impossible::NodeUnfit, said);
            let drains = if draining { ", draining" } else { "" };
            let percent = load_permille / 10;
            error.message.push_str(&format!(
                "; it is {}{drains}, at {percent} % of {capacity_kbps} kbit/s",
                health.name()
            ));
            error
        }
        ControlError::NotCopied(reason) => {
            let message = format!("the gateway changed while it was copied, try again: {reason}");
            ApiError::new(ErrorCode::Conflict, message).with_retry()
        }
        ControlError::NoListener => {
            let message =
                "no listener accepts this ingress; see `udp`, `quic` and `identity` of [[listen]]";
            ApiError::field("ingress", message)
        }
        ControlError::SessionDataFull => {
            let message = "labels, media and addresses of all sessions have reached `session_data_mib` of [limits]";
            ApiError::new(ErrorCode::Full, message).with_retry()
        }
        ControlError::AddressTaken(address) => {
            let message = format!("{address} belongs to another session");
            conflict("ingress.udp.address", message)
        }
        ControlError::UnknownNode(node) => {
            ApiError::field(format!("nodes.{node}"), format!("there is no node `{node}`"))
        }
        ControlError::OutsideNetworks { node, address } => {
            let message = format!(
                "found `{address}`, expected the IP address of the node, or one in `node_networks` of [gateway]"
            );
            ApiError::field(format!("nodes.{node}"), message)
        }
        ControlError::SharedNodeAddress { nodes: [one, other], address } => {
            let message = format!(
                "`{one}` and `{other}` share {address}; RTCP without mux uses the next port"
            );
            ApiError::field("nodes", message)
        }
        ControlError::RoomFull { node, most } => {
            let message =
                format!("node `{node}` joins {most} sessions of a room, and there are {most}");
            conflict("room", message)
        }
        ControlError::NotWebrtc => {
            conflict("webrtc", "the session's client is not one of WebRTC".to_owned())
        }
        ControlError::OtherCertificate => {
            let message =
                "has another a=fingerprint than the session: a new certificate needs a new session";
            conflict("webrtc.offer", message.to_owned())
        }
        ControlError::OpenedWithout(kind) => {
            let kind = kind.name();
            let message = format!(
                "adds a format of {kind}, and the driver of the node opened the session without; a new session can have it"
            );
            conflict("webrtc.offer", message)
        }
        ControlError::Full => {
            let message = "no descriptor or local port is left for another session; see `LimitNOFILE` and `[limits] sessions`";
            ApiError::new(ErrorCode::Full, message).with_retry()
        }
        ControlError::Agent { node, why } => agent(&node, why),
        ControlError::NoPolicy(policy) => no_policy(&policy.to_string()),
        ControlError::Policy(reason) => ApiError::new(ErrorCode::Conflict, reason),
        ControlError::NotReloaded(reason) => not_reloaded(&reason),
        ControlError::NotOwner => no_owner(),
        ControlError::NotWritten(reason) => {
            let message = format!(
                "executed, but not written to the disk: {reason}; a restart would forget it: free space or repair the disk, and see `evenkeel status` until it is written, within {} s",
                WRITTEN_AGAIN_WITHIN.as_secs()
            );
            ApiError::new(ErrorCode::Unconfirmed, message)
        }
        ControlError::Starting => starting(),
        ControlError::Replaced => replaced(),
        ControlError::Unavailable => {
            ApiError::new(ErrorCode::Unavailable, "the gateway did not answer").with_retry()
        }
    }
}

/// An owner that ends is replaced within this time.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// No gateway of the group is known to own the addresses.
pub(super) fn no_owner() -> ApiError {
    let message = "no gateway of the group owns its addresses at present";
    ApiError::new(ErrorCode::Standby, message).retry_after(RETRY_AFTER)
}

/// The answer to a request without TLS at an address that has it. The connection is closed behind it.
pub(super) fn without_tls() -> Response {
    let message = "found HTTP without TLS, expected `https://` at this address";
    let mut response = ApiError::new(ErrorCode::BadRequest, message).into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Other versions recognise an unknown path by the message.
pub(super) fn unknown_path() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "unknown path")
}

/// The request is one that the owner alone answers.
pub(super) fn not_relayed(owner: &str) -> ApiError {
    let message = format!("ask `{owner}`, which owns the addresses of the group");
    ApiError::new(ErrorCode::Standby, message)
}

fn not_reloaded(reason: &NotReloaded) -> ApiError {
    let code = match reason {
        NotReloaded::Invalid { .. } => ErrorCode::BadRequest,
        NotReloaded::Untried(_) | NotReloaded::NoThread(_) => ErrorCode::Unavailable,
        NotReloaded::NodeList(_) => ErrorCode::Conflict,
        NotReloaded::NoReloader => ErrorCode::NotFound,
    };
    ApiError::new(code, reason.to_string())
}

pub(super) fn starting() -> ApiError {
    let message = "the first policies are still being compiled";
    ApiError::new(ErrorCode::Starting, message).with_retry()
}

/// The next process serves already, and the request may be repeated there.
pub(super) fn replaced() -> ApiError {
    let message = "another process serves since an upgrade; connect and ask again";
    ApiError::new(ErrorCode::Unavailable, message).retry_after(Duration::ZERO)
}

pub(super) fn draining() -> ApiError {
    ApiError::new(ErrorCode::Draining, "the gateway is shutting down")
}

fn refused_offer(refusal: OfferRefusal, names: &NodeNames) -> ApiError {
    match refusal {
        OfferRefusal::UnknownScenario(name) => {
            ApiError::field("scenario", format!("no policy set defines the scenario `{name}`"))
        }
        OfferRefusal::ScenarioOfRoom(other) => {
            conflict("room", format!("the room exists with the scenario `{other}`"))
        }
        OfferRefusal::Full { retry_after } => {
            let message = "the gateway has reached its session limit";
            ApiError::new(ErrorCode::Full, message).retry_after(retry_after)
        }
        OfferRefusal::Draining => draining(),
        OfferRefusal::Rejected { retry_after } => {
            ApiError::new(ErrorCode::Refused, "rejected by admission").retry_after(retry_after)
        }
        OfferRefusal::Redirected(region) => {
            let region = names.of_region(region);
            ApiError::new(
                ErrorCode::Refused,
                format!("redirected by admission: try the region `{region}`"),
            )
        }
        OfferRefusal::Closed => {
            ApiError::new(ErrorCode::Conflict, "the session was closed before it was open")
        }
        OfferRefusal::NoNode { retry_after } => {
            let message = "no node is available for the room";
            ApiError::new(ErrorCode::Unavailable, message).retry_after(retry_after)
        }
        OfferRefusal::PlacementRefused { reason, retry_after } => {
            let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            let message = format!("the routing policy gives the room no node{reason}");
            ApiError::new(ErrorCode::Refused, message).retry_after(retry_after)
        }
        OfferRefusal::ClientsImpaired { group, retry_after } => {
            let message =
                format!("breaker of clients with {group} is open: their media is impaired");
            ApiError::new(ErrorCode::Unavailable, message).retry_after(retry_after)
        }
        OfferRefusal::NotOpened { node, retry_after } => not_opened(node, "", retry_after, names),
    }
}

fn not_opened(node: NodeId, why: &str, retry_after: Duration, names: &NodeNames) -> ApiError {
    let node = names.of_node(node).node;
    let message = format!("the node `{node}` did not open the session{why}");
    ApiError::new(ErrorCode::Unavailable, message).retry_after(retry_after)
}

/// The known names, up to [`NAMED_MAX`].
fn there_are(known: &[Box<str>]) -> String {
    if known.is_empty() {
        return "; there is none".to_owned();
    }
    let named: Vec<&str> = known.iter().take(NAMED_MAX).map(|name| &**name).collect();
    let others = match known.len() - named.len() {
        0 => String::new(),
        others => format!(" and {others} others"),
    };
    format!("; there are {}{others}", named.join(", "))
}

fn impossible(reason: Impossible, said: &str) -> ApiError {
    let (code, message) = match reason {
        Impossible::NoSuchSession => (ErrorCode::NotFound, "there is no such session"),
        Impossible::NoSuchRoom => (ErrorCode::NotFound, "there is no such room"),
        Impossible::NoSuchNode => (ErrorCode::NotFound, "there is no such node"),
        Impossible::AlreadyThere => (ErrorCode::Conflict, "the room is already at this node"),
        Impossible::NodeUnfit => (ErrorCode::Conflict, "the node is down, draining or full"),
        Impossible::NoSuchRegion => (ErrorCode::NotFound, "there is no such region"),
        Impossible::NoSuchZone => (
            ErrorCode::NotFound,
            "no zone has this name, or several regions have one: write `region/zone`",
        ),
        Impossible::AlreadyEjected => (ErrorCode::Conflict, "the node or zone is ejected already"),
        Impossible::NodeLeaves => {
            (ErrorCode::Conflict, "the node was removed from the configuration; add it again")
        }
        Impossible::NodeDrains => (
            ErrorCode::Conflict,
            "the agent of the node requested the drain; end it by SIGUSR2 to the agent",
        ),
        Impossible::NoRoomForNodes => (ErrorCode::Conflict, "the limit of nodes is reached"),
        Impossible::NoBreakerAction => (
            ErrorCode::Conflict,
            "`action` in [breaker.clients] is `none`, so that an open breaker limits no newcomer",
        ),
        Impossible::NoRoomForBreakers => {
            (ErrorCode::Conflict, "the limit of breakers of clients is reached")
        }
        Impossible::NotDown => {
            (ErrorCode::Conflict, "the node is not down, or no node of the zone is ejected")
        }
    };
    ApiError::new(code, format!("{message}: {said}"))
}

fn agent(node: &str, why: AgentError) -> ApiError {
    let message = match why {
        AgentError::Silent => {
            let message = format!("the agent beside `{node}` did not answer");
            return ApiError::new(ErrorCode::Unavailable, message);
        }
        AgentError::NoAgent => format!(
            "`{node}` has no agent: run `evenkeel agent` beside it, and name it by `agent` in [[node]]"
        ),
        AgentError::Forbidden => format!(
            "`{node}` allows no drills: set `drills = true` in its agent's configuration, or start a sample node with --drills"
        ),
        AgentError::Unable(NodeOrder::Start) => {
            format!(
                "nothing can be started at `{node}`: its agent's configuration names no command"
            )
        }
        AgentError::Unable(NodeOrder::Break(how @ (NodeFault::Cut | NodeFault::Heal))) => {
            let how = how.name();
            format!("`{how}` cannot be done at `{node}`: its packets do not go through an agent")
        }
        AgentError::Unable(NodeOrder::Break(
            how @ (NodeFault::Kill | NodeFault::Hang | NodeFault::Wake),
        )) => {
            let how = how.name();
            format!("`{how}` cannot be done at `{node}`: no agent watches a running process there")
        }
    };
    ApiError::new(ErrorCode::Conflict, message)
}

fn conflict(field: &str, message: String) -> ApiError {
    ApiError { field: Some(field.to_owned()), ..ApiError::new(ErrorCode::Conflict, message) }
}

/// Adds up to half of the time, so that refused clients do not retry at once.
fn jitter(wait: Duration) -> Duration {
    wait.mul_f64(1.0 + fastrand::f64() / 2.0)
}
