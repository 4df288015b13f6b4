//! Rules for accepted plugins and their grants.

use evenkeel_host::{PublicKey, TrustedKeys, Unsigned, read_digest};
use evenkeel_model::{Hook, Metric, Op};
use serde::Deserialize;
use toml::Spanned;

use super::check::ConfigCheck;
use super::invalid::nearest;
use super::raw;

/// Maximum keys, current and earlier: a few each year, for many years.
const KEYS_MAX: usize = 64;

/// Maximum revocations. One entry revokes a key, however many plugins it signed.
const REVOKED_MAX: usize = 1_024;

/// `[trust]`: the keys that plugins may be signed with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrustSettings {
    /// Trusted and revoked keys, and revoked digests.
    pub keys: TrustedKeys,
    /// Treatment of unsigned plugins if their policy does not set it. Default: allowed while no key is configured, else
    /// refused.
    pub unsigned: Unsigned,
}

/// Limits of a policy's plugin, however it is pushed.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct PluginLimits {
    /// Unsigned plugins are accepted. Default: [`TrustSettings::unsigned`].
    pub(crate) unsigned: Option<bool>,
    /// Limits the grants that the plugin's manifest requests. Default: no limit.
    pub grant: evenkeel_host::GrantLimits,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum UnsignedWord {
    Allow,
    Refuse,
}

impl Default for TrustSettings {
    fn default() -> Self {
        TrustSettings { keys: TrustedKeys::default(), unsigned: Unsigned::Allow }
    }
}

impl TrustSettings {
    /// A warning if no key is configured.
    pub fn note(&self) -> Option<&'static str> {
        let takes_all = self.keys.known().is_empty() && self.unsigned == Unsigned::Allow;
        takes_all.then_some(
            "plugin signatures are not checked: any plugin that is pushed or written to a file is accepted; create a key \
             with `evenkeel plugin key new --out NAME` and name it in [trust], or set `unsigned = \"refuse\"` there",
        )
    }

    /// The treatment of unsigned plugins of a policy with these limits.
    pub fn unsigned(&self, allowed: &PluginLimits) -> Unsigned {
        match allowed.unsigned {
            Some(true) => Unsigned::Allow,
            Some(false) => Unsigned::Refuse,
            None => self.unsigned,
        }
    }
}

impl PluginLimits {
    pub(super) fn check(
        hook: Hook,
        raw: &raw::BindingTable,
        check: &mut ConfigCheck,
    ) -> PluginLimits {
        let ops: Vec<_> = Op::ALL.into_iter().map(|op| (op.key(), op)).collect();
        let metrics: Vec<_> = Metric::ALL.iter().map(|&metric| (metric.key(), metric)).collect();
        if let Some(first) = raw.actions.as_ref().and_then(|list| list.first())
            && hook != Hook::Degradation
        {
            let found = format!("`actions` of hook `{}`", hook.name());
            check.refuse(first.span(), found, "`actions` in [degradation] only");
        }
        let grant = evenkeel_host::GrantLimits {
            ops: raw.actions.as_ref().map(|list| named(list, &ops, "action", check)),
            metrics: raw.metrics.as_ref().map(|list| named(list, &metrics, "metric", check)),
        };
        PluginLimits { unsigned: raw.unsigned, grant }
    }
}

/// The named actions or metrics; unknown names are refused.
fn named<T: Copy>(
    list: &[Spanned<String>],
    known: &[(&'static str, T)],
    what: &str,
    check: &mut ConfigCheck,
) -> Vec<T> {
    let find = |word: &Spanned<String>| {
        let found = known.iter().find(|(key, _)| key == word.get_ref()).map(|(_, thing)| *thing);
        if found.is_none() {
            let keys = || known.iter().map(|(key, _)| *key);
            let help = nearest(word.get_ref(), keys());
            let words: Vec<_> = keys().map(|key| format!("`{key}`")).collect();
            let found = format!("unknown {what} `{}`", word.get_ref());
            check.refuse(word.span(), found, format!("one of {}", words.join(", "))).help = help;
        }
        found
    };
    list.iter().filter_map(find).collect()
}

pub(super) fn check(raw: &raw::TrustTable, check: &mut ConfigCheck) -> TrustSettings {
    super::bounded(&raw.keys, KEYS_MAX, "keys", check);
    super::bounded(&raw.revoked, REVOKED_MAX, "revocations", check);
    let mut keys = TrustedKeys::default();
    for key in &raw.keys {
        let raw::TrustKeyTable { name, public } = key.get_ref();
        let name_checked = check.name(name);
        let Ok(public_key) = public.get_ref().parse::<PublicKey>() else {
            // A secret key is not repeated in the error.
            let is_secret = public.get_ref().starts_with("ed25519-secret");
            let found = match is_secret {
                true => "a secret key".to_owned(),
                false => format!("`{}`", public.get_ref()),
            };
            let expected = "`ed25519:` and 64 hexadecimal digits, as in the file `.pub` of `evenkeel plugin key new`";
            check.refuse(public.span(), found, expected);
            continue;
        };
        if keys.known().iter().any(|(known, _)| *known == name_checked) {
            let found = format!("key `{name_checked}` a second time");
            check.refuse(name.span(), found, "a unique name");
        } else if let Some((first, _)) = keys.known().iter().find(|(_, key)| *key == public_key) {
            let found = format!("the same key as `{first}`");
            check.refuse(public.span(), found, "each key once");
        } else {
            keys.know(name_checked, public_key);
        }
    }
    for revoked in &raw.revoked {
        revoke(revoked, &mut keys, check);
    }
    let unsigned = match raw.unsigned {
        Some(UnsignedWord::Allow) => Unsigned::Allow,
        Some(UnsignedWord::Refuse) => Unsigned::Refuse,
        None if raw.keys.is_empty() => Unsigned::Allow,
        None => Unsigned::Refuse,
    };
    TrustSettings { keys, unsigned }
}

/// Revokes a key by name or value, or a plugin by digest.
fn revoke(revoked: &Spanned<String>, keys: &mut TrustedKeys, check: &mut ConfigCheck) {
    let word = revoked.get_ref();
    if let Ok(key) = word.parse() {
        return keys.revoke_key(key);
    }
    if let Ok(digest) = read_digest(word) {
        return keys.revoke_digest(digest);
    }
    let known = keys.known().iter().find(|(name, _)| **name == **word).map(|(_, key)| *key);
    match known {
        Some(key) => keys.revoke_key(key),
        None => {
            let help = nearest(word, keys.known().iter().map(|(name, _)| &**name));
            let expected = "the name of a key, a public key (`ed25519:…`), or the digest of a plugin \
                            (`sha256:…`, as `sha256sum` says it)";
            check.refuse(revoked.span(), format!("`{word}`"), expected).help = help;
        }
    }
}
