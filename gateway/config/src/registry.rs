//! References to plugins in registries (OCI), and `[[registry]]`: how a registry is reached.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use evenkeel_host::read_digest;
use serde::Deserialize;
use toml::Spanned;

use super::address::Url;
use super::check::{ConfigCheck, SecretFile};

/// Maximum number of registries: a few of an organisation.
const REGISTRIES_MAX: usize = 32;

/// Maximum length of a name (OCI distribution-spec 1.1, section "Pulling manifests").
const NAME_MAX: usize = 255;

/// Maximum length of a tag (ibid.).
const TAG_MAX: usize = 128;

const SCHEME: &str = "oci://";

/// The expected reference, for errors.
pub(super) const REFERENCE: &str =
    "`oci://HOST/NAME` with `:TAG`, `@sha256:` and 64 hexadecimal digits, or both";

/// A plugin in a registry: `oci://registry.example/voice/my-route:1.2@sha256:…`.
#[derive(Clone, PartialEq, Eq)]
pub struct PluginReference {
    registry: Box<str>,
    name: Box<str>,
    tag: Option<Box<str>>,
    digest: Option<[u8; 32]>,
}

/// The text is no reference to a plugin in a registry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("found {found}, expected {REFERENCE}")]
pub struct InvalidReference {
    pub(super) found: &'static str,
}

impl FromStr for PluginReference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<PluginReference, InvalidReference> {
        let bad = |found| InvalidReference { found };
        let rest = text.strip_prefix(SCHEME).ok_or(bad("another beginning"))?;
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(read_digest(digest).map_err(|_| bad("another form of digest"))?))
            }
            None => (rest, None),
        };
        let (registry, path) = rest.split_once('/').ok_or(bad("no name"))?;
        let url: Url = format!("https://{registry}/").parse().map_err(|_| bad("no host"))?;
        if url.authority() != registry {
            return Err(bad("no host"));
        }
        let (name, tag) = match path.split_once(':') {
            Some((name, tag)) => (name, Some(tag)),
            None => (path, None),
        };
        if !is_name(name) {
            let found = "a name with other characters than `a-z`, `0-9`, and `.`, `_`, `-`, `/` between them";
            return Err(bad(found));
        }
        if !tag.is_none_or(is_tag) {
            return Err(bad("a tag with other characters than letters, digits, `.`, `_` and `-`"));
        }
        let (registry, name, tag) = (registry.into(), name.into(), tag.map(Box::from));
        Ok(PluginReference { registry, name, tag, digest })
    }
}

/// Components of letters and digits, with `.`, `_`, `__` or hyphens between them, separated by `/`.
fn is_name(name: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_separator =
        |text: &str| matches!(text, "" | "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
    let is_component = |part: &str| {
        part.starts_with(is_alphanumeric)
            && part.ends_with(is_alphanumeric)
            && part.split(is_alphanumeric).all(is_separator)
    };
    name.len() <= NAME_MAX && name.split('/').all(is_component)
}

fn is_tag(tag: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= TAG_MAX
        && tag.starts_with(is_word)
        && tag.chars().all(|c| is_word(c) || matches!(c, '.' | '-'))
}

impl fmt::Display for PluginReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.registry, self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@sha256:{}", HEXLOWER.encode(digest)),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for PluginReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PluginReference {
    /// True if a text is meant as a reference.
    pub(super) fn is_reference(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// Host and port of the registry, as written.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The name in the registry: `voice/my-route`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A digest takes precedence over a tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// SHA-256 of the plugin's manifest in the registry.
    pub fn digest(&self) -> Option<[u8; 32]> {
        self.digest
    }

    /// The same plugin by digest alone.
    pub fn pinned(&self, digest: [u8; 32]) -> PluginReference {
        PluginReference { tag: None, digest: Some(digest), ..self.clone() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RegistryTable {
    host: Spanned<String>,
    login_file: Option<Spanned<String>>,
    token_server: Option<Spanned<String>>,
    plain_http: Option<bool>,
}

/// How a registry is reached.
#[derive(Clone, PartialEq, Debug)]
pub struct RegistrySettings {
    /// Host and port, as references name them.
    pub host: Box<str>,
    /// `user:password`. Default: none.
    pub login: Option<SecretFile>,
    /// Host of the server that gets the login for a token (RFC 6750), with its port if that is not the default. Default: the
    /// registry's host.
    pub token_server: Option<Box<str>>,
    /// HTTP without TLS. Default: for hosts on loopback only.
    pub plain_http: Option<bool>,
}

impl RegistrySettings {
    /// The default of a registry.
    pub fn of(host: &str) -> RegistrySettings {
        RegistrySettings { host: host.into(), login: None, token_server: None, plain_http: None }
    }

    /// The registry's root. `None` if the host has not the form of one.
    pub fn url(&self) -> Option<Url> {
        let plain = format!("http://{}/", self.host).parse::<Url>().ok()?;
        match self.plain_http.unwrap_or_else(|| plain.is_local()) {
            true => Some(plain),
            false => format!("https://{}/", self.host).parse().ok(),
        }
    }

    /// Returns whether the login may be sent to this URL for a token.
    pub fn trusts_token_server(&self, url: &Url) -> bool {
        match &self.token_server {
            Some(server) => url.authority() == &**server,
            None => self.url().is_some_and(|own| own.host() == url.host()),
        }
    }
}

/// Returns whether a text is a host, with or without a port, and nothing else.
fn is_host(text: &str) -> bool {
    format!("https://{text}/").parse().is_ok_and(|url: Url| url.authority() == text)
}

pub(super) fn check(
    raw: &[Spanned<RegistryTable>],
    check: &mut ConfigCheck,
) -> Vec<RegistrySettings> {
    check.at_most(raw, REGISTRIES_MAX, "registries");
    let mut known: Vec<RegistrySettings> = Vec::new();
    for raw in raw.iter().map(Spanned::get_ref) {
        let RegistryTable { host, login_file, token_server, plain_http } = raw;
        let login = login_file.as_ref().and_then(|path| check.secret(path));
        if login.as_ref().is_some_and(|login| !login.bytes().contains(&b':')) {
            let span = login_file.as_ref().map_or(host.span(), Spanned::span);
            check.refuse(span, "a login without `:`", "a file with `user:password`");
        }
        let (name, plain_http) = (host.get_ref().as_str(), *plain_http);
        let server = token_server.as_ref().map(|server| server.get_ref().as_str().into());
        let registry =
            RegistrySettings { host: name.into(), login, token_server: server, plain_http };
        if let Some(server) = token_server
            && !is_host(server.get_ref())
        {
            check.refuse_text(server, "the host of a server such as `auth.example`");
        }
        let Some(url) = registry.url().filter(|url| url.authority() == name) else {
            check.refuse_text(host, "the host of a registry such as `registry.example:5000`");
            continue;
        };
        if registry.login.is_some() && url.crosses_in_clear_text() {
            let found = format!("`{name}`, to which `login_file` is sent in clear text");
            check.warn(host.span(), found, "`plain_http` without a login, or TLS");
        }
        if known.iter().any(|other| other.host == registry.host) {
            check.refuse(host.span(), format!("`{name}` a second time"), "each registry once");
            continue;
        }
        known.push(registry);
    }
    known
}

#[cfg(test)]
mod tests;
