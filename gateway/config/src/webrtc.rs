//! `[webrtc]`: WHIP and WHEP.

use std::net::SocketAddr;

use crate::token::TokenKeys;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use toml::Spanned;

use super::address::Url;
use super::check::{ConfigCheck, SecretFile};
use super::listen::{self, CertificateFiles};

/// Maximum origins; the sites of one operator.
const ORIGINS_MAX: usize = 64;

/// Maximum servers that a client is told. Browsers warn of five.
const ICE_SERVERS_MAX: usize = 8;

const ORIGIN: &str = "an origin such as `https://live.example.org`, or `*`";

const ICE_URL: &str =
    "a URL such as `stun:stun.example.org` or `turn:turn.example.org?transport=udp`";

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct WebrtcTable {
    listen: Spanned<String>,
    certificate: Option<Spanned<String>>,
    key: Option<Spanned<String>>,
    host: Option<Spanned<String>>,
    token_key_file: Spanned<String>,
    #[serde(default)]
    origins: Vec<Spanned<String>>,
    #[serde(default)]
    ice_server: Vec<Spanned<IceServerTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct IceServerTable {
    url: Spanned<String>,
    username: Option<Spanned<String>>,
    credential_file: Option<Spanned<String>>,
}

/// `[webrtc]`: the address of WHIP (RFC 9725) and WHEP.
#[derive(Clone, PartialEq, Debug)]
pub struct WebrtcSettings {
    /// Port 0: chosen by the system.
    pub listen: SocketAddr,
    /// `None` on loopback only: plain HTTP.
    pub certificate: Option<CertificateFiles>,
    /// The name or address by which clients reach `listen`. `None`: it is not known.
    pub host: Option<String>,
    /// Verify the tokens of clients.
    pub token_keys: TokenKeys,
    /// Origins of the pages that may send requests (CORS). Default: none.
    pub origins: Vec<String>,
    /// STUN and TURN servers that clients are told. Default: none.
    pub ice_servers: Vec<IceServer>,
}

/// A STUN server (RFC 7064) or TURN server (RFC 7065).
#[derive(Clone, PartialEq, Debug)]
pub struct IceServer {
    /// Visible ASCII without quotes.
    pub url: String,
    /// `None` for STUN.
    pub login: Option<IceServerLogin>,
}

/// The credentials that all clients are told.
#[derive(Clone, PartialEq, Debug)]
pub struct IceServerLogin {
    /// Visible ASCII without quotes.
    pub username: String,
    /// Visible ASCII without quotes.
    pub credential: SecretFile,
}

pub(super) fn check(raw: &Spanned<WebrtcTable>, check: &mut ConfigCheck) -> Option<WebrtcSettings> {
    let raw = raw.get_ref();
    let expected = "an address and port such as `0.0.0.0:8443`";
    let listen: Option<SocketAddr> = check.address(&raw.listen, expected);
    let certificate = listen::certificate(&raw.certificate, &raw.key, check);
    if let Some(listen) = listen
        && raw.certificate.is_none()
        && !listen.ip().to_canonical().is_loopback()
    {
        let found = format!("`{listen}` without `certificate`");
        let expected =
            "`certificate` and `key`, or a loopback address behind a proxy that ends TLS";
        check.refuse(raw.listen.span(), found, expected);
    }
    if let Some(host) = &raw.host {
        check_host(host, check);
        if raw.certificate.is_none() {
            let expected = "`certificate` and `key`, or no `host`";
            check.refuse(host.span(), "`host` without `certificate`", expected);
        }
    }
    let host = raw.host.as_ref().map(|host| host.get_ref().clone());
    let token_keys = token_keys(&raw.token_key_file, check);
    check.at_most(&raw.origins, ORIGINS_MAX, "origins");
    raw.origins.iter().for_each(|origin| check_origin(origin, check));
    check.at_most(&raw.ice_server, ICE_SERVERS_MAX, "servers");
    let ice_servers = raw.ice_server.iter().filter_map(|server| ice_server(server, check));
    let ice_servers = ice_servers.collect();
    let origins = raw.origins.iter().map(|origin| origin.get_ref().clone()).collect();
    Some(WebrtcSettings {
        listen: listen?,
        certificate,
        host,
        token_keys: token_keys?,
        origins,
        ice_servers,
    })
}

/// A name of DNS or an address, without scheme and port.
fn check_host(raw: &Spanned<String>, check: &mut ConfigCheck) {
    // A certificate may be for a name with an underscore, but no host has one.
    let is_host = |text: &str| ServerName::try_from(text).is_ok() && !text.contains('_');
    if !is_host(raw.get_ref()) {
        check.refuse_text(raw, "a host such as `live.example.org`, or an address");
    }
}

fn token_keys(raw: &Spanned<String>, check: &mut ConfigCheck) -> Option<TokenKeys> {
    let file = check.secret_file(raw, 32)?;
    match TokenKeys::read(&file) {
        Ok(keys) => {
            if keys.are_secret() {
                check.warn_of_readers(raw);
            }
            Some(keys)
        }
        Err(wrong) => {
            let found = format!("`{}` with {}", raw.get_ref(), wrong.found);
            check.refuse(raw.span(), found, wrong.expected);
            None
        }
    }
}

/// Browsers send an origin in lower case and without a path (RFC 6454, section 6.2), and compare it byte by byte.
fn check_origin(raw: &Spanned<String>, check: &mut ConfigCheck) {
    let text = raw.get_ref();
    let is_origin = |url: Url| {
        let scheme = if url.is_https() { "https" } else { "http" };
        let origin = format!("{scheme}://{}", url.authority());
        *text == origin.to_ascii_lowercase() && !text.contains('*')
    };
    if text != "*" && !text.parse().is_ok_and(is_origin) {
        check.refuse_text(raw, ORIGIN);
    }
}

fn ice_server(raw: &Spanned<IceServerTable>, check: &mut ConfigCheck) -> Option<IceServer> {
    let IceServerTable { url, username, credential_file } = raw.get_ref();
    let scheme = url.get_ref().split_once(':').map_or("", |(scheme, _)| scheme);
    let is_turn = matches!(scheme, "turn" | "turns");
    if !is_turn && !matches!(scheme, "stun" | "stuns") || !is_plain(url.get_ref()) {
        check.refuse_text(url, ICE_URL);
        return None;
    }
    let login = match (username, credential_file) {
        (None, None) if is_turn => {
            check.refuse_text(url, "`username` and `credential_file` of a TURN server");
            None
        }
        (None, None) => None,
        (Some(username), Some(file)) if is_turn => {
            if !is_plain(username.get_ref()) {
                check.refuse_text(username, "visible ASCII without quotes");
            }
            let credential = check.secret(file)?;
            if !str::from_utf8(credential.bytes()).is_ok_and(is_plain) {
                let found = format!("`{}` with other characters", file.get_ref());
                check.refuse(file.span(), found, "visible ASCII without quotes");
            }
            Some(IceServerLogin { username: username.get_ref().clone(), credential })
        }
        (Some(_), Some(_)) => {
            check.refuse_text(url, "a TURN server, or no `username` and `credential_file`");
            None
        }
        (Some(alone), None) | (None, Some(alone)) => {
            let found = "one of `username` and `credential_file`";
            check.refuse(alone.span(), found, "both, for a TURN server");
            None
        }
    };
    Some(IceServer { url: url.get_ref().clone(), login })
}

/// Fits into a header as `<…>` and `"…"`.
fn is_plain(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"\\<>".contains(&byte);
    !text.is_empty() && text.bytes().all(is_plain)
}

#[cfg(test)]
mod tests;
