//! `[advice]`: the webhook that gets advice to users.

use serde::Deserialize;
use toml::Spanned;

use super::check::ConfigCheck;
use super::webhook::{WebhookTarget, hook_at};

const URL: &str = "a URL such as `https://app.example.org/advice`";

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct AdviceTable {
    url: Spanned<String>,
    token_file: Option<Spanned<String>>,
}

pub(super) fn check(raw: &AdviceTable, check: &mut ConfigCheck) -> Option<WebhookTarget> {
    hook_at(&raw.url, raw.token_file.as_ref(), URL, check)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::check::source;
    use super::*;

    fn checked(text: &str) -> (Option<WebhookTarget>, Vec<String>) {
        let mut reading = ConfigCheck::new(source(Path::new("evenkeel.toml"), text), Path::new(""));
        let target = check(&toml::from_str(text).unwrap(), &mut reading);
        (target, reading.into_invalid().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn url_is_checked() {
        let (target, invalid) = checked("url = \"https://app.example.org/advice?x=1\"");
        assert_eq!(target.unwrap().url.to_string(), "https://app.example.org/advice?x=1");
        assert!(invalid.is_empty(), "{invalid:?}");
        let (target, invalid) = checked("url = \"ftp://app.example.org\"");
        assert_eq!(target, None);
        assert!(invalid[0].contains(URL), "{invalid:?}");
    }
}
