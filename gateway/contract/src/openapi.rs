//! The description of the API by OpenAPI 3.1, made of the types of this crate. A test compares its paths and methods with the router.

use std::collections::{BTreeMap, BTreeSet};

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::alerts::AlertList;
use crate::blast::{Blast, BlastQuery};
use crate::errors::{ErrorAnswer, ErrorCode};
use crate::events;
use crate::gateway::{
    Configuration, GatewayList, HandOverRequest, IndexedGatewayList, IndexedSessionList, LogFilter,
    LogRequest, ModeList, NewOwner, ReloadRequest, Reloaded, Status, TakeOverRequest, TakenOver,
    UpgradeRequest, Upgraded,
};
use crate::nodes::{NodeList, RegionList, ZoneList};
use crate::offers::{LaterAnswer, LaterRequest, OfferAnswer, OfferRequest};
use crate::operations::{
    BreakRequest, BreakerRequest, ChangeList, ChangesQuery, DrainRequest, EjectRequest,
    FailbackRequest, FailureList, FailuresQuery, MoveRequest,
};
use crate::policies::{
    PolicyList, PushQuery, PushRequest, RecordingQuery, RefusalList, RolloutAnswer, VerbQuery,
};
use crate::probes::{ProbeAnswer, ProbeReport, ProbeRequest, ProbeRoundTrips};
use crate::sessions::{
    Explanation, FeedbackRequest, HistoryPage, HistoryQuery, PageQuery, RatingComparison,
    RoomExplanation, RoomPage, Session, SessionPage,
};

pub(crate) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain";

/// Errors that come with the outcome of a rollout.
const REFUSED: (u16, &str) = (400, "The outcome `refused` with `code` and `reason`, or an error.");
const UNCONFIRMED: (u16, &str) = (
    503,
    "The outcome with `error`: executed, but a restart or a takeover may forget it. Or an error alone.",
);

/// The description, an OpenAPI object. Requests have the form in which a gateway reads them, answers that in which it writes them.
/// `x-events` has the schema of each event of `GET /v1/events` by its name.
pub fn document() -> Value {
    let mut schemas = Schemas::new();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for endpoint in endpoints() {
        let methods = paths.entry(endpoint.path).or_default();
        methods.insert(endpoint.method.to_owned(), endpoint.operation(&mut schemas));
    }
    let error = schemas.answers.subschema_for::<ErrorAnswer>();
    let codes = ErrorCode::ALL.map(|code| format!("`{}` ({})", code.name(), code.status()));
    let error = json!({
        "description": format!("An error: {}.", codes.join(", ")),
        "content": {JSON: {"schema": error}},
    });
    let events = schemas.events();
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "Evenkeel admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "paths": paths,
        "x-events": events,
        "security": [{}, {"token": []}],
        "components": {
            "schemas": schemas.components(),
            "responses": {"Error": error},
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Of each request over TCP; the Unix socket needs none.",
                },
            },
        },
    })
}

/// The fields of each event of `GET /v1/events` by its name, with those of the objects in it.
pub fn event_fields() -> BTreeMap<String, BTreeSet<String>> {
    let mut schemas = Schemas::new();
    let events = schemas.events();
    let components = schemas.components();
    let fields_of = |schema: &Value| {
        let (mut fields, mut followed) = (BTreeSet::new(), BTreeSet::new());
        let mut rest = vec![schema];
        while let Some(schema) = rest.pop() {
            if let Some(Value::Object(properties)) = schema.get("properties") {
                fields.extend(properties.keys().cloned());
            }
            let name = schema.get("$ref").and_then(Value::as_str);
            let name = name.and_then(|path| path.strip_prefix("#/components/schemas/"));
            rest.extend(name.filter(|&name| followed.insert(name)).map(|name| &components[name]));
            match schema {
                Value::Object(members) => rest.extend(members.values()),
                Value::Array(all) => rest.extend(all),
                _ => {}
            }
        }
        fields
    };
    events.iter().map(|(name, schema)| (name.clone(), fields_of(schema))).collect()
}

/// A type read by the gateway may have another schema than the same type written by it.
struct Schemas {
    requests: SchemaGenerator,
    answers: SchemaGenerator,
}

impl Schemas {
    fn new() -> Schemas {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        });
        // A gateway writes each member; the default is that of a client that reads an answer without it.
        let without_defaults = RecursiveTransform(|schema: &mut Schema| {
            schema.remove("default");
        });
        let without_links = RecursiveTransform(|schema: &mut Schema| {
            if let Some(Value::String(text)) = schema.get_mut("description") {
                *text = without_links(text);
            }
        });
        let settings = settings.with_transform(without_links);
        let requests = settings.clone().for_deserialize().into_generator();
        let answers = settings.for_serialize().with_transform(without_defaults).into_generator();
        Schemas { requests, answers }
    }

    /// Of several types with one name, an event has one.
    fn events(&mut self) -> Map<String, Value> {
        let mut named: BTreeMap<&str, Vec<Schema>> = BTreeMap::new();
        for &(name, schema_of) in events::SCHEMAS {
            named.entry(name).or_default().push(schema_of(&mut self.answers));
        }
        let schema_of = |all: &[Schema]| match all {
            [one] => json!(one),
            all => json!({"anyOf": all}),
        };
        named.into_iter().map(|(name, all)| (name.to_owned(), schema_of(&all))).collect()
    }

    fn components(&mut self) -> Map<String, Value> {
        let mut all = self.requests.take_definitions(true);
        all.extend(self.answers.take_definitions(true));
        all
    }
}

/// Leaves of links to Rust items the names.
fn without_links(text: &str) -> String {
    let mut parts = text.split("[`");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once("`]").unwrap_or((part, ""));
        let target = rest.strip_prefix('(').and_then(|rest| rest.split_once(')'));
        plain += &format!("`{name}`{}", target.map_or(rest, |(_, rest)| rest));
    }
    plain
}

struct Endpoint {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    query: Option<SchemaOf>,
    /// Name and description of each.
    headers: &'static [(&'static str, &'static str)],
    body: Option<RequestBody>,
    status: u16,
    /// `None`: the answer has no body.
    answer: Option<Content>,
    /// Statuses of errors that may have this answer as their body, with their descriptions.
    answered_errors: &'static [(u16, &'static str)],
}

struct RequestBody {
    required: bool,
    contents: Vec<Content>,
}

struct Content {
    media_type: &'static str,
    /// `None`: any bytes or text.
    schema: Option<SchemaOf>,
}

impl Content {
    fn json<T: JsonSchema>() -> Content {
        Content { media_type: JSON, schema: Some(SchemaGenerator::subschema_for::<T>) }
    }

    fn described(&self, generator: &mut SchemaGenerator) -> (String, Value) {
        let schema = self.schema.map_or_else(|| json!({}), |of| of(generator).to_value());
        (self.media_type.to_owned(), json!({"schema": schema}))
    }
}

impl Endpoint {
    const fn new(method: &'static str, path: &'static str, summary: &'static str) -> Endpoint {
        Endpoint {
            method,
            path,
            summary,
            query: None,
            headers: &[],
            body: None,
            status: 204,
            answer: None,
            answered_errors: &[],
        }
    }

    const fn get(path: &'static str, summary: &'static str) -> Endpoint {
        Endpoint::new("get", path, summary)
    }

    const fn post(path: &'static str, summary: &'static str) -> Endpoint {
        Endpoint::new("post", path, summary)
    }

    fn query<T: JsonSchema>(self) -> Endpoint {
        Endpoint { query: Some(T::json_schema), ..self }
    }

    fn body<T: JsonSchema>(self) -> Endpoint {
        let contents = vec![Content::json::<T>()];
        Endpoint { body: Some(RequestBody { required: true, contents }), ..self }
    }

    fn optional_body<T: JsonSchema>(self) -> Endpoint {
        let contents = vec![Content::json::<T>()];
        Endpoint { body: Some(RequestBody { required: false, contents }), ..self }
    }

    fn answer<T: JsonSchema>(self) -> Endpoint {
        Endpoint { status: 200, answer: Some(Content::json::<T>()), ..self }
    }

    fn answer_of_type(self, media_type: &'static str) -> Endpoint {
        Endpoint { status: 200, answer: Some(Content { media_type, schema: None }), ..self }
    }

    fn headers(self, headers: &'static [(&'static str, &'static str)]) -> Endpoint {
        Endpoint { headers, ..self }
    }

    fn status(self, status: u16) -> Endpoint {
        Endpoint { status, ..self }
    }

    fn answered_errors(self, answered_errors: &'static [(u16, &'static str)]) -> Endpoint {
        Endpoint { answered_errors, ..self }
    }

    fn operation(&self, schemas: &mut Schemas) -> Value {
        let mut operation = json!({"summary": self.summary, "responses": self.responses(schemas)});
        let parameters = self.parameters(&mut schemas.requests);
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        if let Some(RequestBody { required, contents }) = &self.body {
            let contents = contents.iter().map(|content| content.described(&mut schemas.requests));
            let contents: Map<String, Value> = contents.collect();
            operation["requestBody"] = json!({"required": required, "content": contents});
        }
        operation
    }

    fn responses(&self, schemas: &mut Schemas) -> Value {
        let answer = self.answer.as_ref().map(|content| content.described(&mut schemas.answers));
        let mut success = json!({"description": if answer.is_some() { "Done." } else { "Done, without a body." }});
        if let Some((media_type, content)) = &answer {
            success["content"] = json!({media_type: content});
        }
        let mut responses = json!({
            self.status.to_string(): success,
            "default": {"$ref": "#/components/responses/Error"},
        });
        let error = schemas.answers.subschema_for::<ErrorAnswer>();
        for (status, description) in self.answered_errors {
            let (media_type, content) =
                answer.as_ref().expect("only endpoints with an answer list such statuses");
            responses[status.to_string()] = json!({
                "description": description,
                "content": {media_type: {"schema": {"anyOf": [content["schema"], error]}}},
            });
        }
        responses
    }

    /// The names in the path, the members of the query, and the headers.
    fn parameters(&self, generator: &mut SchemaGenerator) -> Vec<Value> {
        let names = self.path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
        let mut parameters: Vec<Value> = names
            .map(|name| {
                json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
            })
            .collect();
        let query = self.query.map(|of| of(generator).to_value());
        let members = query.as_ref().and_then(|query| query.get("properties")?.as_object());
        parameters.extend(members.into_iter().flatten().map(|(name, schema)| {
            let mut schema = schema.clone();
            let description = schema.as_object_mut().and_then(|all| all.remove("description"));
            let description = description.as_ref().and_then(Value::as_str).map(without_links);
            json!({"name": name, "in": "query", "description": description, "schema": schema})
        }));
        parameters.extend(self.headers.iter().map(|(name, description)| {
            let schema = json!({"type": "string"});
            json!({"name": name, "in": "header", "description": description, "schema": schema})
        }));
        parameters
    }
}

fn endpoints() -> Vec<Endpoint> {
    let get = Endpoint::get;
    let post = Endpoint::post;
    let push = RequestBody {
        required: true,
        contents: vec![
            Content { media_type: "application/wasm", schema: None },
            Content::json::<PushRequest>(),
        ],
    };
    let policy_verb = |path, summary| {
        post(path, summary).answer::<RolloutAnswer>().answered_errors(&[UNCONFIRMED])
    };
    vec![
        post("/v1/sessions", "Opens a session")
            .headers(&[(
                "Idempotency-Key",
                "1 to 128 bytes. The same key with the same body gets the first answer.",
            )])
            .body::<OfferRequest>()
            .answer::<OfferAnswer>()
            .status(201),
        get("/v1/sessions", "Lists sessions in pages").query::<PageQuery>().answer::<SessionPage>(),
        get("/v1/sessions/history", "Lists ended sessions, the newest first")
            .query::<HistoryQuery>()
            .answer::<HistoryPage>(),
        get("/v1/sessions/{session}", "Shows a session").answer::<Session>(),
        get("/v1/sessions/{session}/explain", "Explains where a session is, and why")
            .answer::<Explanation>(),
        Endpoint::new("put", "/v1/sessions/{session}", "Takes a later offer of a WebRTC client")
            .body::<LaterRequest>()
            .answer::<LaterAnswer>(),
        Endpoint::new("delete", "/v1/sessions/{session}", "Closes a session"),
        post("/v1/probes", "Opens a probe of a client's path")
            .optional_body::<ProbeRequest>()
            .answer::<ProbeAnswer>()
            .status(201),
        Endpoint::new(
            "put",
            "/v1/probes/{probe}",
            "Measures the path from the client's round trips",
        )
        .body::<ProbeRoundTrips>()
        .answer::<ProbeReport>(),
        post("/v1/sessions/{session}/feedback", "Takes the rating of a session by its user")
            .body::<FeedbackRequest>(),
        get("/v1/ratings", "Compares ratings and measured quality").answer::<RatingComparison>(),
        get("/v1/rooms", "Lists rooms in pages").query::<PageQuery>().answer::<RoomPage>(),
        get("/v1/rooms/{room}/explain", "Explains where a room is, and which revisions decide")
            .answer::<RoomExplanation>(),
        post("/v1/rooms/{room}:move", "Starts a make-before-break move to a node")
            .body::<MoveRequest>()
            .status(202),
        get("/v1/nodes", "Lists nodes").answer::<NodeList>(),
        post("/v1/nodes/{node}:drain", "Admits no new rooms and moves those there")
            .optional_body::<DrainRequest>(),
        post("/v1/nodes/{node}:undrain", "Takes a drain back"),
        post("/v1/nodes/{node}:eject", "Marks the node down until `:uneject`")
            .optional_body::<EjectRequest>(),
        post("/v1/nodes/{node}:uneject", "Readmits a down node at its next answer"),
        post("/v1/nodes/{node}:start", "Has the node's agent start its server"),
        post("/v1/nodes/{node}:break", "Injects a fault through the node's agent")
            .body::<BreakRequest>(),
        get("/v1/zones", "Lists zones").answer::<ZoneList>(),
        post("/v1/zones/{zone}:drain", "Drains all nodes of the zone")
            .optional_body::<DrainRequest>(),
        post("/v1/zones/{zone}:undrain", "Takes the drain of a zone back"),
        post("/v1/zones/{zone}:eject", "Marks all nodes of the zone down until `:uneject`")
            .optional_body::<EjectRequest>(),
        post("/v1/zones/{zone}:uneject", "Readmits the ejected nodes of the zone"),
        post("/v1/zones/{zone}:breaker", "Holds the breaker of the zone").body::<BreakerRequest>(),
        get("/v1/blast", "Shows the effect of losses").query::<BlastQuery>().answer::<Blast>(),
        get("/v1/regions", "Lists regions").answer::<RegionList>(),
        post("/v1/regions/{region}:drain", "Drains all nodes of the region")
            .optional_body::<DrainRequest>(),
        post("/v1/regions/{region}:undrain", "Takes the drain of a region back"),
        post("/v1/regions/{region}:failback", "Sets how rooms return to the region")
            .body::<FailbackRequest>(),
        post("/v1/regions:failback", "Sets how rooms return to all regions")
            .body::<FailbackRequest>(),
        post("/v1/regions/{region}:breaker", "Holds the breaker of the region")
            .body::<BreakerRequest>(),
        post("/v1/clients/{label}/{value}:breaker", "Holds the breaker of a group of clients")
            .body::<BreakerRequest>(),
        get("/v1/alerts", "Lists the alerts that fire").answer::<AlertList>(),
        post("/v1/alerts/{alert}:acknowledge", "Acknowledges alerts, so that none is escalated"),
        get("/v1/log", "Shows the log filter").answer::<LogFilter>(),
        post("/v1/log", "Sets the log filter").body::<LogRequest>(),
        get("/v1/modes", "Shows cost and benefit of each redundancy mode").answer::<ModeList>(),
        get("/v1/status", "Shows the status of the gateway").answer::<Status>(),
        get("/v1/configuration", "Shows the configuration in force").answer::<Configuration>(),
        post("/v1/configuration:reload", "Reloads the configuration")
            .optional_body::<ReloadRequest>()
            .answer::<Reloaded>(),
        post("/v1/gateway:upgrade", "Replaces the process")
            .optional_body::<UpgradeRequest>()
            .answer::<Upgraded>(),
        post("/v1/gateway:hand-over", "Makes the standby the owner")
            .optional_body::<HandOverRequest>()
            .answer::<NewOwner>(),
        post("/v1/gateway:take-over", "Makes this gateway the owner while its peer is silent")
            .body::<TakeOverRequest>()
            .answer::<TakenOver>(),
        get("/v1/gateways", "Lists the gateways of the group").answer::<GatewayList>(),
        get("/v1/index/gateways", "Lists the gateways of all groups")
            .answer::<IndexedGatewayList>(),
        get("/v1/index/sessions/{session}", "Names the group of a session")
            .answer::<IndexedSessionList>(),
        get("/v1/policies", "Lists policies").answer::<PolicyList>(),
        get("/v1/policies/refusals", "Lists refused plugins").answer::<RefusalList>(),
        Endpoint {
            body: Some(push),
            ..Endpoint::new(
                "put",
                "/v1/policies/{set}/{hook}",
                "Pushes a plugin, settings or data documents",
            )
        }
        .query::<PushQuery>()
        .answer::<RolloutAnswer>()
        .answered_errors(&[REFUSED, UNCONFIRMED]),
        get("/v1/policies/{set}/{hook}/data/{document}", "Shows a data document")
            .answer_of_type(JSON),
        policy_verb(
            "/v1/policies/{set}/{hook}:rollback",
            "Cancels the rollout, or activates the previous revision",
        )
        .query::<VerbQuery>(),
        policy_verb("/v1/policies/{set}/{hook}:promote", "Takes the next step of the rollout"),
        policy_verb("/v1/policies/{set}/{hook}:promote-all", "Activates the candidate revision"),
        policy_verb("/v1/policies/{set}/{hook}:pause", "Keeps the rollout at its step"),
        policy_verb("/v1/policies/{set}/{hook}:resume", "Resumes a paused rollout"),
        policy_verb("/v1/policies/{set}/{hook}:abort", "Cancels the rollout"),
        get("/v1/recording", "Streams what policies are asked and answer")
            .query::<RecordingQuery>()
            .answer_of_type("application/octet-stream"),
        get("/v1/events", "Streams events; `x-events` has their schemas")
            .answer_of_type("text/event-stream"),
        get("/v1/failures", "Lists failures of nodes and gateways, the newest first")
            .query::<FailuresQuery>()
            .answer::<FailureList>(),
        get("/v1/changes", "Lists changes by operators, files and rollouts")
            .query::<ChangesQuery>()
            .answer::<ChangeList>(),
        get("/livez", "Answers while the process does").answer_of_type(TEXT),
        get("/readyz", "Answers 200 while sessions are admitted").answer_of_type(TEXT),
        get("/metrics", "Shows metrics as Prometheus reads them").answer_of_type(TEXT),
        get("/openapi.json", "Describes the API").answer_of_type(JSON),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_types_have_one_schema() {
        let mut schemas = Schemas::new();
        for endpoint in endpoints() {
            endpoint.operation(&mut schemas);
        }
        schemas.events();
        let requests = schemas.requests.take_definitions(true);
        let answers = schemas.answers.take_definitions(true);
        for (name, schema) in &requests {
            assert!(answers.get(name).is_none_or(|answer| answer == schema), "{name} has two");
        }
    }

    #[test]
    fn event_has_the_fields_of_its_objects() {
        let events = event_fields();
        let has = |event: &str, fields: &[&str]| {
            fields.iter().all(|&field| events[event].contains(field))
        };
        assert!(has("opened", &["at_us", "room", "hop", "node", "zone"]), "{events:?}");
        assert!(has("moved", &["witnesses", "for_us"]), "{events:?}");
        assert!(has("policy", &["outcome", "percent"]), "two types share the name: {events:?}");
        assert!(!has("moved", &["node"]), "{events:?}");
    }

    #[test]
    fn descriptions_have_no_links_to_items() {
        assert_eq!(
            without_links("As of a [`Gateway`](crate::Gateway), [`one`]."),
            "As of a `Gateway`, `one`."
        );
        assert!(!document().to_string().contains("[`"));
    }

    #[test]
    fn numbered_names_are_absent() {
        let document = document();
        let names = document["components"]["schemas"].as_object().unwrap().keys();
        let numbered: Vec<_> = names.filter(|name| name.ends_with(char::is_numeric)).collect();
        assert!(numbered.is_empty(), "two types share a name: {numbered:?}");
    }

    #[test]
    fn refused_push_is_answered_with_its_outcome() {
        let document = document();
        let push = &document["paths"]["/v1/policies/{set}/{hook}"]["put"]["responses"];
        let either = json!([
            {"$ref": "#/components/schemas/RolloutAnswer"},
            {"$ref": "#/components/schemas/ErrorAnswer"},
        ]);
        for status in ["400", "503"] {
            assert_eq!(push[status]["content"][JSON]["schema"]["anyOf"], either, "{status}");
        }
    }

    #[test]
    fn members_have_the_documentation_of_their_types() {
        let document = document();
        let node = &document["components"]["schemas"]["Node"];
        assert_eq!(node["properties"]["capacity_kbps"]["description"], "Measured capacity.");
        let required: Vec<_> = node["required"].as_array().unwrap().iter().collect();
        assert!(required.contains(&&json!("rooms")), "{node}");
        assert!(!required.contains(&&json!("needed_for")), "{node}");
        let opened = &document["x-events"]["opened"];
        assert_eq!(*opened, json!({"$ref": "#/components/schemas/Opened"}));
        assert_eq!(document["x-events"]["policy"]["anyOf"].as_array().unwrap().len(), 2);
    }
}
