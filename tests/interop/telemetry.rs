//! A strict OpenTelemetry receiver compares all that the gateway sends with the registry.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use evenkeel_client::ApiCall;
use evenkeel_contract::offers::OfferIngress;
use evenkeel_telemetry::registry;
use evenkeel_telemetry::registry::{Attribute, Count, Histogram, Level};

use crate::otlp::{Books, Listen, Receiver, Span, Value};
use crate::stage::{Stage, offer, voice};

/// The trace of a client, from outside of the gateway.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// The type of an attribute's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    Text,
    Bool,
    Int,
    Number,
    Texts,
}

fn shape(attribute: Attribute) -> Shape {
    match attribute {
        Attribute::Differs => Shape::Bool,
        Attribute::Incarnation
        | Attribute::DroppedLinks
        | Attribute::DroppedNodes
        | Attribute::Note
        | Attribute::Rooms
        | Attribute::Rows
        | Attribute::Sessions => Shape::Int,
        Attribute::Confidence | Attribute::Duration | Attribute::Loss => Shape::Number,
        Attribute::Nodes | Attribute::Witness => Shape::Texts,
        Attribute::AdmittedBy
        | Attribute::Advice
        | Attribute::Arm
        | Attribute::By
        | Attribute::Cause
        | Attribute::Credential
        | Attribute::Dependency
        | Attribute::Direction
        | Attribute::Document
        | Attribute::Ends
        | Attribute::Fault
        | Attribute::From
        | Attribute::Gateway
        | Attribute::Guard
        | Attribute::Hook
        | Attribute::ImpairedBy
        | Attribute::Interface
        | Attribute::Label
        | Attribute::LabelValue
        | Attribute::Mode
        | Attribute::Native
        | Attribute::Node
        | Attribute::Op
        | Attribute::Outcome
        | Attribute::Phase
        | Attribute::Policy
        | Attribute::Previous
        | Attribute::Provider
        | Attribute::Reason
        | Attribute::Receiver
        | Attribute::Region
        | Attribute::Repair
        | Attribute::Revision
        | Attribute::Room
        | Attribute::RoomName
        | Attribute::RoutedBy
        | Attribute::Rung
        | Attribute::Scenario
        | Attribute::Scope
        | Attribute::Segment
        | Attribute::Session
        | Attribute::Signal
        | Attribute::Slo
        | Attribute::ErrorType
        | Attribute::Event
        | Attribute::Window
        | Attribute::Zone => Shape::Text,
    }
}

fn fits(shape: Shape, value: &Value) -> bool {
    match (shape, value) {
        (Shape::Text, Value::Text(text)) => !text.is_empty(),
        (Shape::Bool, Value::Bool(_)) => true,
        (Shape::Int, Value::Int(_)) => true,
        (Shape::Number, Value::Double(number)) => number.is_finite() && *number >= 0.0,
        (Shape::Texts, Value::List(all)) => {
            !all.is_empty() && all.iter().all(|one| matches!(one, Value::Text(_)))
        }
        (Shape::Text | Shape::Bool | Shape::Int | Shape::Number | Shape::Texts, _) => false,
    }
}

/// Deviations of a span from the registry.
fn wrong(span: &Span) -> Vec<String> {
    let kind = registry::Span::ALL.iter().find(|kind| kind.name() == span.name);
    let Some(kind) = kind else { return vec!["is not registered".to_owned()] };
    let mut wrong = Vec::new();
    for (key, value) in &span.attributes {
        let names = |attribute: &&Attribute| match attribute {
            Attribute::Note => {
                key.strip_prefix("evenkeel.note.").is_some_and(|note| !note.is_empty())
            }
            other => other.key() == key,
        };
        match kind.attributes().iter().find(names) {
            None => wrong.push(format!("{key} is not registered")),
            Some(attribute) if !fits(shape(*attribute), value) => {
                wrong.push(format!("{key} is {value:?}, not {:?}", shape(*attribute)));
            }
            Some(_) => {}
        }
    }
    let (server, internal) = (2, 1);
    let expected = if *kind == registry::Span::SessionOpen { server } else { internal };
    if span.kind != expected {
        wrong.push(format!("its kind is {}", span.kind));
    }
    if span.scope.name != "evenkeel" || !span.events.is_empty() {
        wrong.push(format!("{:?} with {:?}", span.scope, span.events));
    }
    let resource: BTreeSet<_> = span.resource.keys().map(String::as_str).collect();
    let expected =
        ["cloud.region", "host.name", "service.instance.id", "service.name", "service.version"];
    if resource != BTreeSet::from(expected) {
        wrong.push(format!("its resource is {:?}", span.resource));
    }
    wrong
}

/// The number in the id of the span's session.
/// The count in the session's id: `1` of `s4k7mq2-1`.
fn session(span: &Span) -> &str {
    text(span, Attribute::Session).rsplit('-').next().unwrap_or_default()
}

fn text(span: &Span, attribute: Attribute) -> &str {
    match span.attributes.get(attribute.key()) {
        Some(Value::Text(text)) => text,
        other => panic!("{attribute:?} of {} is {other:?}", span.name),
    }
}

fn has(span: &Span, attributes: &[Attribute]) {
    for attribute in attributes {
        let found = span.attributes.contains_key(attribute.key());
        assert!(found, "{} lacks {attribute:?}: {:?}", span.name, span.attributes);
    }
}

fn children<'a>(books: &'a Books, of: &'a Span, name: &'a str) -> impl Iterator<Item = &'a Span> {
    books.spans_named(name).filter(move |span| {
        span.trace_id == of.trace_id && span.parent.as_ref() == Some(&of.span_id)
    })
}

/// Opens sessions, sends an invalid offer, pushes valid and invalid plugins and kills a node; then checks all spans,
/// metrics and logs.
fn assert_matches_registry(protocol: &str, traceparent: &str) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let receiver = Receiver::start(Listen { grpc: any, http: any }).expect("loopback has ports");
    let endpoint = match protocol {
        "grpc" => receiver.grpc_endpoint(),
        _ => receiver.http_endpoint(),
    };
    let more = format!(
        "traceparent = \"{traceparent}\"\n\n[telemetry]\notlp = \"{endpoint}\"\n\
         protocol = \"{protocol}\"\nmetrics_interval = \"1s\"\n"
    );
    let mut stage = Stage::set(&format!("telemetry-{protocol}"), &more);

    let quic = || OfferIngress::quic();
    let first = offer("traced", quic(), vec![voice()]);
    let body = serde_json::to_vec(&first).expect("an offer serialises").into();
    let header = format!("00-{TRACE}-{CALLER}-01");
    let headers = [("traceparent", &*header)];
    let post = ApiCall {
        method: "POST".parse().expect("a method"),
        path: "/v1/sessions",
        headers: &headers,
        body,
    };
    let reply = stage.ask(post).accepted().expect("the offer is accepted");
    let node = reply["route"][0]["node"].as_str().expect("a route").to_owned();
    stage.open(&first);
    let mut unknown = offer("nowhere", quic(), vec![voice()]);
    unknown.scenario = "no-such".to_owned();
    let body = serde_json::to_vec(&unknown).expect("an offer serialises").into();
    let post = ApiCall {
        method: "POST".parse().expect("a method"),
        path: "/v1/sessions",
        headers: &[],
        body,
    };
    assert_eq!(stage.ask(post).status / 100, 4);

    let plugin = evenkeel_host::shipped().iter().find(|plugin| plugin.name == "route-nearest");
    let plugin = plugin.expect("it is shipped").bytes;
    // Another section gives the same plugin another digest, and so another revision.
    let again = [plugin, &[0, 2, 1, b'x']].concat();
    let pushed = stage.push("call", "routing", &again).expect("the API answers");
    assert_eq!(pushed["outcome"], "activated", "{pushed}");
    let revision = pushed["revision"].as_str().expect("a revision").to_owned();
    let pushed = stage.push("call", "routing", b"no plugin").expect("the API answers");
    assert!(pushed["outcome"] == "refused" || pushed["error"].is_object(), "{pushed}");

    let moved = stage.kill_under(&node, "traced");
    assert_eq!(moved["sessions"].as_array().map(Vec::len), Some(2), "{moved}");
    stage.end_gateway();

    let books = receiver.books();
    check_all(&books);
    check_opening(&books, traceparent);
    check_rollouts(&books, &revision);
    check_failover(&books, &node);
}

fn check_all(books: &Books) {
    let report = books.report();
    println!(
        "{:?}, {} metrics, {} log lines",
        report.spans_received,
        report.metrics_received.len(),
        report.logs_received
    );
    assert_eq!((report.refused, &report.reasons[..]), (0, &[][..]));
    let mut ids = BTreeSet::new();
    for span in books.spans() {
        assert_eq!(wrong(span), [""; 0], "{span:?}");
        assert!(ids.insert((&span.trace_id, &span.span_id)), "{} is a duplicate", span.name);
    }
    for span in books.spans().iter().filter(|span| span.trace_id != TRACE) {
        if let Some(parent) = &span.parent {
            let parent = books.span(&span.trace_id, parent);
            let parent = parent.unwrap_or_else(|| panic!("the parent of {span:?} is missing"));
            // The start of a session is computed from clocks that are read one after the other.
            let begins = parent.start_ns <= span.start_ns + 1_000_000;
            assert!(begins, "{} began before {}", span.name, parent.name);
        }
    }
    let names: BTreeSet<_> = books.spans().iter().map(|span| &*span.name).collect();
    let played = [
        "admission",
        "node.failover",
        "policy.decide",
        "policy.rollout",
        "session",
        "session.move",
        "session.open",
    ];
    assert_eq!(names, BTreeSet::from(played));
    let not_played = [
        "client.breaker",
        "gateway.continued",
        "gateway.reload",
        "node.drain",
        "node.drill",
        "node.start",
        "node.stop",
        "region.breaker",
        "session.continued",
        "session.degraded",
        "session.impaired",
    ];
    let registered: BTreeSet<_> = registry::Span::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(registered, played.into_iter().chain(not_played).collect());

    let counts = Count::ALL.iter().map(|metric| metric.described().name);
    let levels = Level::ALL.iter().map(|metric| metric.described().name);
    let times = Histogram::ALL.iter().map(|metric| metric.described().name);
    let registered: BTreeSet<_> = counts.chain(levels).chain(times).collect();
    for metric in report.metrics_received.keys() {
        assert!(registered.contains(&**metric), "{metric} is not registered");
    }
    for metric in [
        Count::SessionsOpened.described().name,
        Count::SessionsRefused.described().name,
        Count::NodeFailures.described().name,
        Count::PolicyRollouts.described().name,
        Level::SessionsActive.described().name,
        Histogram::Detection.described().name,
    ] {
        assert!(report.metrics_received.contains_key(metric), "{metric} is missing");
    }
    assert!(report.logs_received > 0, "a node's death is logged");
}

fn check_opening(books: &Books, traceparent: &str) {
    let opened: BTreeMap<_, _> = books
        .spans_named("session.open")
        .filter(|span| text(span, Attribute::Outcome) == "ok")
        .map(|span| (session(span), span))
        .collect();
    assert_eq!(opened.keys().copied().collect::<Vec<_>>(), ["1", "2"]);
    let traced = opened["1"];
    for (session, span) in &opened {
        let life = books.span(&span.trace_id, span.parent.as_deref().expect("a parent"));
        let life = life.unwrap_or_else(|| panic!("{session} has no span"));
        assert_eq!((&*life.name, self::session(life)), ("session", *session));
        assert_eq!(text(life, Attribute::Outcome), "affected", "its node died");
        let [moved] = children(books, life, "session.move").collect::<Vec<_>>()[..] else {
            panic!("{session} did not move once")
        };
        assert_eq!(text(moved, Attribute::Cause), "node-down");
        has(moved, &[Attribute::From, Attribute::Node]);
        let is_adopted = traceparent == "parent" && *session == "1";
        assert_eq!(life.parent.as_deref(), is_adopted.then_some(CALLER), "{session}");
    }
    if traceparent == "parent" {
        assert_eq!(traced.trace_id, TRACE);
        assert_eq!(traced.links, []);
    } else {
        assert_ne!(traced.trace_id, TRACE, "an untrusted caller is no parent");
        let links: Vec<_> =
            traced.links.iter().map(|link| (&*link.trace_id, &*link.span_id)).collect();
        assert_eq!(links, [(TRACE, CALLER)]);
    }
    assert!(opened["2"].links.is_empty());
    let is_late = books.spans_named("policy.decide").any(|decision| {
        let fault = decision.attributes.get(Attribute::ErrorType.key());
        text(decision, Attribute::Hook) == "routing" && fault == Some(&Value::Text("late".into()))
    });
    for (session, span) in &opened {
        has(span, &[Attribute::Room, Attribute::Node, Attribute::Region, Attribute::Zone]);
        assert_eq!(text(span, Attribute::RoomName), "traced");
        assert_eq!(text(span, Attribute::Scenario), "call");
        // A first answer may be later than the budget of an offer; then the native default routes.
        let routed_by = text(span, Attribute::RoutedBy);
        let is_native = is_late && routed_by == "native";
        assert!(is_native || routed_by.starts_with("call/routing@"), "{span:?}");
        let [admission] = children(books, span, "admission").collect::<Vec<_>>()[..] else {
            panic!("{session} was not admitted once")
        };
        assert_eq!(text(admission, Attribute::By), text(span, Attribute::AdmittedBy));
        let asked =
            children(books, admission, "policy.decide").map(|span| text(span, Attribute::Hook));
        assert_eq!(asked.collect::<Vec<_>>(), ["admission"], "{session}");
    }
    let asked = children(books, traced, "policy.decide").map(|span| text(span, Attribute::Hook));
    let asked: BTreeSet<_> = asked.collect();
    assert!(asked.contains("routing") && asked.contains("scenario"), "s1 waited for {asked:?}");
    for decision in books.spans_named("policy.decide") {
        has(
            decision,
            &[Attribute::Policy, Attribute::Outcome, Attribute::Rows, Attribute::Duration],
        );
    }

    let refused = books.spans_named("session.open").find(|span| span.error.is_some());
    let refused = refused.expect("a refused offer has a span");
    assert_eq!(text(refused, Attribute::Outcome), "refused");
    assert_eq!(text(refused, Attribute::Reason), "unknown-scenario");
}

fn check_rollouts(books: &Books, revision: &str) {
    let rollouts: Vec<_> = books
        .spans_named("policy.rollout")
        .filter(|span| text(span, Attribute::Policy) == "call/routing")
        .collect();
    let with = |outcome: &str, revision: Option<&str>| {
        let found = rollouts.iter().find(|span| {
            let of = || text(span, Attribute::Revision);
            text(span, Attribute::Outcome) == outcome && revision.is_none_or(|one| one == of())
        });
        *found.unwrap_or_else(|| panic!("no rollout is {outcome}: {rollouts:?}"))
    };
    let activated = with("activated", Some(revision));
    has(activated, &[Attribute::Previous]);
    assert_ne!(text(activated, Attribute::Previous), revision);
    assert_eq!((text(activated, Attribute::Hook), &activated.error), ("routing", &None));
    let refused = with("refused", None);
    assert_eq!(refused.error.as_deref(), Some(text(refused, Attribute::Reason)));
}

fn check_failover(books: &Books, node: &str) {
    let [failover] = books.spans_named("node.failover").collect::<Vec<_>>()[..] else {
        panic!("not one failover span")
    };
    assert_eq!(text(failover, Attribute::Node), node);
    has(failover, &[Attribute::Witness, Attribute::Region, Attribute::Zone]);
    let number = |attribute: Attribute| failover.attributes.get(attribute.key());
    assert_eq!(number(Attribute::Rooms), Some(&Value::Int(1)));
    assert_eq!(number(Attribute::Sessions), Some(&Value::Int(2)));
    assert_eq!(number(Attribute::DroppedLinks), Some(&Value::Int(0)));
    let linked: BTreeSet<_> = failover
        .links
        .iter()
        .map(|link| {
            let span = books.span(&link.trace_id, &link.span_id);
            let span = span.unwrap_or_else(|| panic!("{link:?} is dangling"));
            (&*span.name, session(span))
        })
        .collect();
    assert_eq!(linked, BTreeSet::from([("session", "1"), ("session", "2")]));
    assert!(failover.start_ns < failover.end_ns, "the failover has a duration");
}

#[test]
fn grpc_export_matches_registry() {
    assert_matches_registry("grpc", "link");
}

#[test]
fn http_export_matches_registry() {
    assert_matches_registry("http", "parent");
}
