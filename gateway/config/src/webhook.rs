//! Targets of POSTs.

use toml::Spanned;

use super::address::Url;
use super::check::{ConfigCheck, SecretFile};

#[derive(Clone, PartialEq, Debug)]
pub struct WebhookTarget {
    /// `http` or `https`.
    pub url: Url,
    /// Bearer token for the `Authorization` header.
    pub token: Option<SecretFile>,
}

pub(super) fn hook_at(
    url: &Spanned<String>,
    token_file: Option<&Spanned<String>>,
    expected: &str,
    check: &mut ConfigCheck,
) -> Option<WebhookTarget> {
    let token = token_file.map(|path| check.secret(path));
    let (span, url): (_, Url) = (url.span(), check.parse(url, expected)?);
    if token.is_some() && url.crosses_in_clear_text() {
        let found = format!("`{url}`, to which `token_file` is sent in clear text");
        check.warn(span, found, "an `https` URL");
    }
    match token {
        Some(None) => None,
        token => Some(WebhookTarget { url, token: token.flatten() }),
    }
}
