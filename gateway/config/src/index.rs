//! `[index]`: where sessions of all gateways are listed.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use serde_json::Value;
use toml::Spanned;

use super::address::Url;
use super::check::{ConfigCheck, SecretFile};
use super::cluster::ClusterTable;

/// As many as a large NATS cluster has. Others are discovered.
const SERVERS_MAX: usize = 16;

/// Length of the seed of a user's key, in base 32.
const SEED_LENGTH: usize = 58;

const SERVER: &str =
    "a NATS server such as `nats://10.0.0.5:4222` or `tls://nats.example.net:4222`";

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct IndexTable {
    servers: Spanned<Vec<Spanned<String>>>,
    name: Option<Spanned<String>>,
    bucket: Option<Spanned<String>>,
    credentials_file: Option<Spanned<String>>,
    nkey_file: Option<Spanned<String>>,
    tls_ca_file: Option<Spanned<String>>,
    replicas: Option<Spanned<i64>>,
    votes: Option<Spanned<bool>>,
}

/// The shared index of sessions, in a key-value bucket of NATS JetStream.
#[derive(Clone, PartialEq, Debug)]
pub struct IndexSettings {
    /// The first part of this gateway's keys: its name, or those of its group's members.
    pub group: Arc<str>,
    /// This gateway's name in the store.
    pub gateway: Arc<str>,
    /// At least one URL.
    pub servers: Vec<String>,
    /// Default `evenkeel`.
    pub bucket: String,
    /// How the gateway proves itself to the store.
    pub login: Login,
    /// Requires TLS, with this certificate authority.
    pub tls_ca_file: Option<PathBuf>,
    /// Copies of a bucket that the gateway creates. Default 1.
    pub replicas: u8,
    /// The store votes on the ownership of the group, as a witness does. Default false.
    pub votes: bool,
}

/// How the gateway authenticates itself to the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Login {
    /// The store asks for nothing.
    None,
    /// A token of a user and its seed, as `nsc` writes them.
    Credentials(SecretFile),
    /// The seed of a user's key.
    Nkey(SecretFile),
}

impl Login {
    /// The end of the token of credentials, its claim `exp` (RFC 7519, section 4.1.4). `None`: it has none.
    pub fn ends(&self) -> Option<SystemTime> {
        let Login::Credentials(secret) = self else { return None };
        let text = std::str::from_utf8(secret.bytes()).ok()?;
        let token = text.lines().skip_while(|line| !line.starts_with("---")).nth(1)?;
        let claims = token.split('.').nth(1)?.trim_end_matches('=');
        let claims = BASE64URL_NOPAD.decode(claims.as_bytes()).ok()?;
        let claims: Value = serde_json::from_slice(&claims).ok()?;
        // NATS takes 0 for no end.
        let seconds = claims["exp"].as_u64().filter(|seconds| *seconds > 0)?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    }
}

pub(super) fn check(
    raw: &Spanned<IndexTable>,
    cluster: Option<&ClusterTable>,
    check: &mut ConfigCheck,
) -> Option<IndexSettings> {
    let (span, raw) = (raw.span(), raw.get_ref());
    let names = names(raw, span, cluster, check);
    if raw.servers.get_ref().is_empty() {
        check.refuse(raw.servers.span(), "no server", SERVER);
    }
    check.at_most(raw.servers.get_ref(), SERVERS_MAX, "servers");
    let encrypted = raw.tls_ca_file.is_some();
    let servers =
        raw.servers.get_ref().iter().filter_map(|raw| server(raw, encrypted, check)).collect();
    let bucket = raw.bucket.as_ref().map_or("evenkeel", |bucket| bucket.get_ref().as_str());
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if let Some(written) = raw
        .bucket
        .as_ref()
        .filter(|_| !(1..=64).contains(&bucket.len()) || !bucket.chars().all(plain))
    {
        let expected = "1 to 64 letters of ASCII, digits, `-` or `_`";
        check.refuse_text(written, expected);
    }
    let login = login(raw, check);
    if let Some(file) = &raw.tls_ca_file
        && let Err(error) = std::fs::metadata(check.path(file.get_ref()))
    {
        let found = format!("`{}`: {error}", file.get_ref());
        check.refuse(file.span(), found, "a file with certificates in PEM");
    }
    let replicas = check.number(&raw.replicas, 1, 1..=5);
    let votes = raw.votes.as_ref();
    if let Some(written) = votes.filter(|written| *written.get_ref() && cluster.is_none()) {
        let expected = "`[cluster]`, the group on whose owner the store votes";
        check.refuse(written.span(), "`votes` without `[cluster]`", expected);
    }
    let (group, gateway) = names?;
    Some(IndexSettings {
        group,
        gateway,
        servers,
        bucket: bucket.to_owned(),
        login: login?,
        tls_ca_file: raw.tls_ca_file.as_ref().map(|file| check.path(file.get_ref())),
        replicas,
        votes: votes.is_some_and(|written| *written.get_ref()),
    })
}

/// The names of the group and of this gateway.
fn names(
    raw: &IndexTable,
    span: Range<usize>,
    cluster: Option<&ClusterTable>,
    check: &mut ConfigCheck,
) -> Option<(Arc<str>, Arc<str>)> {
    match (cluster, &raw.name) {
        (None, Some(name)) => {
            let name = check.name(name);
            Some((Arc::clone(&name), name))
        }
        (None, None) => {
            check.refuse(span, "no `name`", "`name`, by which the index lists this gateway");
            None
        }
        (Some(cluster), None) => {
            let peers = cluster.peer.iter().map(|peer| peer.name.get_ref().as_str());
            let own = std::iter::once(cluster.name.get_ref().as_str());
            let mut members: Vec<&str> = own.chain(peers).collect();
            members.sort_unstable();
            Some((members.join("/").into(), cluster.name.get_ref().as_str().into()))
        }
        (Some(_), Some(name)) => {
            let found = format!("`{}` beside [cluster]", name.get_ref());
            check.refuse(name.span(), found, "no `name`: [cluster] names the members of the group");
            None
        }
    }
}

fn server(raw: &Spanned<String>, encrypted: bool, check: &mut ConfigCheck) -> Option<String> {
    let written = raw.get_ref();
    let (scheme, rest) = written.split_once("://").unwrap_or_default();
    if rest.contains('@') {
        // The password is not repeated.
        let expected = "a server without it; `credentials_file` or `nkey_file` names a secret";
        check.refuse(raw.span(), "a user or password in the address of a server", expected);
        return None;
    }
    // The rest has the form of an `http` URL.
    let parsed = format!("http://{rest}").parse::<Url>();
    let Some(url) = parsed.ok().filter(|_| matches!(scheme, "nats" | "tls")) else {
        check.refuse_text(raw, SERVER);
        return None;
    };
    if scheme == "nats" && !encrypted && url.crosses_in_clear_text() {
        let found = format!("`{written}`, which is not encrypted");
        check.warn(
            raw.span(),
            found,
            "`tls://`: entries name rooms and idempotency keys, and `votes` decides takeovers",
        );
    }
    Some(written.clone())
}

fn login(raw: &IndexTable, check: &mut ConfigCheck) -> Option<Login> {
    let (file, is_nkey) = match (&raw.credentials_file, &raw.nkey_file) {
        (None, None) => return Some(Login::None),
        (Some(file), None) => (file, false),
        (None, Some(file)) => (file, true),
        (Some(_), Some(file)) => {
            let found = "`credentials_file` and `nkey_file`";
            check.refuse(file.span(), found, "one of them");
            return None;
        }
    };
    let bytes = check.secret_file(file, SEED_LENGTH)?;
    check.warn_of_readers(file);
    let text = String::from_utf8(bytes).unwrap_or_default();
    if is_nkey {
        let seed = text.trim();
        if !is_seed(seed) {
            let found = format!("`{}` without a seed", file.get_ref());
            let expected = "the seed of a user: `SU` and 56 further letters or digits";
            check.refuse(file.span(), found, expected);
            return None;
        }
        return Some(Login::Nkey(SecretFile::new(seed.into())));
    }
    if !has_credentials(&text) {
        let found = format!("`{}` without a token and seed", file.get_ref());
        let expected = "a file of credentials, as `nsc generate creds` writes it";
        check.refuse(file.span(), found, expected);
        return None;
    }
    Some(Login::Credentials(SecretFile::new(text.into())))
}

fn is_seed(text: &str) -> bool {
    text.len() == SEED_LENGTH
        && text.starts_with("SU")
        && text.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7'))
}

/// A token, then a seed, each on a line between two lines that begin and end with hyphens.
fn has_credentials(text: &str) -> bool {
    let is_mark = |line: &str| line.starts_with("---") && line.ends_with("---");
    let lines: Vec<_> = text.split('\n').map(|line| line.trim_end_matches('\r')).collect();
    // The client needs the end of the last line.
    let blocks = lines.windows(4).filter(|part| is_mark(part[0]) && is_mark(part[2]));
    let mut blocks = blocks.map(|part| part[1]).filter(|line| !line.is_empty() && !is_mark(line));
    blocks.next().is_some() && blocks.next().is_some_and(is_seed)
}

#[cfg(test)]
mod tests;
