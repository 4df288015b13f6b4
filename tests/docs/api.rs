//! `docs/api.md`: its endpoints are the router's, its error codes those of the API.

use std::collections::BTreeSet;
use std::fs;

use evenkeel_contract::errors::ErrorCode;

use crate::gateway::Gateway;
use crate::page::{Page, quoted, root};
use crate::schema::ApiDescription;
use crate::telemetry::RENEW;

const PAGE: &str = "docs/api.md";
const OPENAPI: &str = "docs/openapi.json";

#[test]
fn endpoints_equal_the_router() {
    let page = Page::read(PAGE);
    let rows = page.rows();
    let cells = rows.iter().flat_map(|(_, cells)| quoted(&cells[0]));
    let listed: BTreeSet<String> = cells.filter_map(endpoint).collect();
    let routed = routed(&Gateway::start());
    let missing: Vec<_> = routed.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&routed).collect();
    assert!(missing.is_empty(), "{PAGE} lacks the endpoints {missing:#?}");
    assert!(gone.is_empty(), "{PAGE} lists endpoints that the router has not: {gone:#?}");
}

#[test]
fn openapi_describes_each_endpoint() {
    let gateway = Gateway::start();
    let ApiDescription(description) = gateway.description();
    let routed = routed(&gateway);
    let paths = description["paths"].as_object().unwrap().iter();
    let described: BTreeSet<String> = paths
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(|method| format!("{} {}", method.to_uppercase(), anonymous(path)))
        })
        .collect();
    let missing: Vec<_> = routed.difference(&described).collect();
    let gone: Vec<_> = described.difference(&routed).collect();
    assert!(missing.is_empty(), "/openapi.json lacks the endpoints {missing:#?}");
    assert!(gone.is_empty(), "/openapi.json has endpoints that the router has not: {gone:#?}");
}

#[test]
fn openapi_file_equals_the_answer() {
    let ApiDescription(description) = Gateway::start().description();
    let text = format!("{}\n", serde_json::to_string_pretty(&description).unwrap());
    let file = root().join(OPENAPI);
    if std::env::var_os(RENEW).is_some() {
        fs::write(file, text).unwrap();
        return;
    }
    let is_new = fs::read_to_string(file).is_ok_and(|found| found == text);
    assert!(is_new, "{OPENAPI} is not what the gateway answers; run `make reference`");
}

#[test]
fn json_blocks_of_the_page_are_of_the_contract() {
    let description = Gateway::start().description();
    let mut wrong = Vec::new();
    for block in Page::read(PAGE).blocks().into_iter().filter(|block| block.language == "json") {
        let schema = match block.info.split_once(' ') {
            Some((method, path)) => description.body(method, path),
            None => description.named(&block.info),
        };
        let value = serde_json::from_str(&block.text).unwrap();
        let right = schema.ok_or_else(|| format!("`{}` is no type or request", block.info));
        if let Err(why) = right.and_then(|schema| description.check(schema, &value)) {
            wrong.push(format!("{}: {why}", block.place));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn answers_are_as_openapi_describes_them() {
    let gateway = Gateway::start();
    let description = gateway.description();
    let policy = "/v1/policies/{set}/{hook}";
    let requests = [
        ("GET", "/v1/status", "/v1/status", 200),
        ("GET", "/v1/nodes", "/v1/nodes", 200),
        ("GET", "/v1/policies", "/v1/policies", 200),
        ("GET", "/v1/gateways", "/v1/gateways", 404),
        ("PUT", policy, "/v1/policies/call/routing", 400),
        ("PUT", policy, "/v1/policies/call/routing?canary=0", 400),
        ("PUT", policy, "/v1/policies/opera/routing", 404),
    ];
    for (method, path, target, status) in requests {
        let answer = gateway.ask(method, target, "no plugin");
        assert_eq!(answer.status, status, "{method} {target}: {}", answer.body);
        let schema = description.answer(method, path, status).unwrap();
        let body = serde_json::from_str(&answer.body).unwrap();
        let checked = description.check(schema, &body);
        assert_eq!(checked, Ok(()), "{method} {target}: {body}");
    }
}

#[test]
fn error_codes_equal_those_of_the_api() {
    let codes = ErrorCode::ALL.map(|code| code.name().to_owned()).into();
    let listed = Page::read(PAGE).names_under("## Errors");
    assert_eq!(listed, codes, "{PAGE}: left, the codes listed; right, those of the contract");
}

/// `POST /v1/nodes/NAME:drain?x=1` as `POST /v1/nodes/*:drain`.
fn endpoint(text: &str) -> Option<String> {
    let (method, path) = text.split_once(' ')?;
    if !["GET", "PUT", "POST", "DELETE"].contains(&method) || !path.starts_with('/') {
        return None;
    }
    let path = path.split('?').next().unwrap();
    let segments = path.split('/').map(|segment| {
        let name: String = segment.chars().take_while(char::is_ascii_uppercase).collect();
        if name.is_empty() { segment.to_owned() } else { segment.replacen(&name, "*", 1) }
    });
    Some(format!("{method} {}", segments.collect::<Vec<_>>().join("/")))
}

/// All that the router takes: paths from its source, methods and verbs as it answers.
fn routed(gateway: &Gateway) -> BTreeSet<String> {
    let source = fs::read_to_string(root().join("gateway/api/src/thread.rs")).unwrap();
    let paths = source.split(".route(").skip(1).map(|rest| rest.split('"').nth(1).unwrap());
    let mut routed = BTreeSet::new();
    for path in paths {
        let shown = with_parameters(path, &|_| "*");
        let sample = with_parameters(path, &|name| match name {
            "set" => "call",
            _ if path.contains("policies") => "routing",
            _ => "s1",
        });
        let answer = gateway.ask("OPTIONS", &sample, "");
        let allowed = answer.header("allow");
        let allowed = allowed.unwrap_or_else(|| panic!("{sample}: {}", answer.head)).to_uppercase();
        for method in allowed.split(',').filter(|method| *method != "HEAD") {
            if method != "POST" || !path.ends_with('}') {
                routed.insert(format!("{method} {shown}"));
                continue;
            }
            let unknown = gateway.ask("POST", &format!("{sample}:no-verb"), "").body;
            let known = unknown.split("expected ").nth(1).unwrap_or_else(|| panic!("{unknown}"));
            routed.extend(quoted(known).iter().map(|verb| format!("POST {shown}:{verb}")));
        }
    }
    routed
}

/// `/v1/nodes/{node}:drain` as `/v1/nodes/*:drain`.
fn anonymous(path: &str) -> String {
    let mut parts = path.split('{');
    let before = parts.next().unwrap().to_owned();
    parts.fold(before, |path, part| path + "*" + part.split_once('}').unwrap().1)
}

fn with_parameters(path: &str, value: &dyn Fn(&str) -> &'static str) -> String {
    let segments = path.split('/').map(|segment| {
        let name = segment.strip_prefix('{').and_then(|segment| segment.strip_suffix('}'));
        name.map_or_else(|| segment.to_owned(), |name| value(name).to_owned())
    });
    segments.collect::<Vec<_>>().join("/")
}
