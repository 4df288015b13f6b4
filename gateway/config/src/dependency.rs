//! `[[dependency]]`: services that calls depend on beside the nodes, such as a TURN server or an identity provider.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_process::setting_text::DurationText;
use serde::Deserialize;
use toml::Spanned;

use super::address::Url;
use super::check::ConfigCheck;

/// Maximum number of dependencies: each has a label of a metric.
pub(super) const DEPENDENCIES_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct DependencyTable {
    name: Spanned<String>,
    url: Option<Spanned<String>>,
    tcp: Option<Spanned<String>>,
    every: Option<Spanned<DurationText>>,
    timeout: Option<Spanned<DurationText>>,
    expect_status: Option<Spanned<i64>>,
}

/// A service, and the check of its health.
#[derive(Clone, PartialEq, Debug)]
pub struct DependencySettings {
    /// Its name in logs and metrics.
    pub name: Arc<str>,
    /// The endpoint and the answer of a healthy one.
    pub target: DependencyTarget,
    /// Interval of checks. Default 10 s.
    pub every: Duration,
    /// Time for an answer. Default 2 s.
    pub timeout: Duration,
}

/// The check of a dependency.
#[derive(Clone, PartialEq, Debug)]
pub enum DependencyTarget {
    /// A GET request.
    Http {
        /// `http` or `https`.
        url: Url,
        /// The status of a healthy answer. Default: any below 500.
        expect_status: Option<u16>,
    },
    /// A connection.
    Tcp {
        /// An address, or a name that is resolved for each check.
        host: Box<str>,
        port: u16,
    },
}

pub(super) fn check(
    raw: &[Spanned<DependencyTable>],
    check: &mut ConfigCheck,
) -> Vec<DependencySettings> {
    check.at_most(raw, DEPENDENCIES_MAX, "dependencies");
    let names: Vec<&Spanned<String>> = raw.iter().map(|raw| &raw.get_ref().name).collect();
    check.unique_names(&names);
    raw.iter().filter_map(|raw| dependency(raw, check)).collect()
}

fn dependency(
    raw: &Spanned<DependencyTable>,
    check: &mut ConfigCheck,
) -> Option<DependencySettings> {
    let (span, raw) = (raw.span(), raw.get_ref());
    let name = check.name(&raw.name);
    let seconds = Duration::from_secs;
    let every = check.duration(&raw.every, seconds(10), seconds(1)..=seconds(3_600));
    let within = Duration::from_millis(100)..=seconds(60);
    let timeout = check.duration(&raw.timeout, seconds(2), within);
    let status = raw.expect_status.as_ref();
    let expect_status = status.map(|_| check.number(&raw.expect_status, 200, 100..=599));
    let target = match (&raw.url, &raw.tcp) {
        (Some(url), None) => {
            let url = check.parse(url, "a URL such as `https://login.example.org/health`")?;
            DependencyTarget::Http { url, expect_status }
        }
        (None, Some(tcp)) => {
            if let Some(status) = status {
                check.refuse(status.span(), "`expect_status` beside `tcp`", "`url`");
            }
            tcp_target(tcp, check)?
        }
        (None, None) | (Some(_), Some(_)) => {
            let found =
                if raw.url.is_some() { "`url` and `tcp`" } else { "neither `url` nor `tcp`" };
            check.refuse(span, found, "one of them");
            return None;
        }
    };
    Some(DependencySettings { name, target, every, timeout })
}

fn tcp_target(raw: &Spanned<String>, check: &mut ConfigCheck) -> Option<DependencyTarget> {
    let text = raw.get_ref();
    // A host and port have the form of an `http` URL without a path.
    let url = format!("http://{text}").parse::<Url>().ok();
    let has_port = |url: &Url| url.authority().ends_with(&format!(":{}", url.port()));
    let Some(url) = url.filter(|url| url.authority() == text.as_str() && has_port(url)) else {
        check.refuse_text(raw, "a host and port such as `turn.example.org:3478`");
        return None;
    };
    Some(DependencyTarget::Tcp { host: url.host().into(), port: url.port() })
}

#[cfg(test)]
mod tests;
