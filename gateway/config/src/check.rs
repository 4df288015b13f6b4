//! Checks a file value by value and collects all errors.

use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_process::file;
use toml::Spanned;

use super::invalid::{ConfigSource, InvalidSetting};
use super::secret::SecretFile;
use super::unit::{self, ConfigBitRate};

/// A secret is one line; a larger file was named by mistake.
const SECRET_MAX: u64 = 4_096;

/// Shorter secrets can be guessed.
const SECRET_MIN: usize = 16;

pub(super) struct ConfigCheck {
    pub(super) source: Arc<ConfigSource>,
    /// Base of the relative paths in the file.
    pub(super) folder: PathBuf,
    pub(super) invalid: Vec<InvalidSetting>,
    /// Weaknesses that are no errors.
    pub(super) warnings: Vec<InvalidSetting>,
}

impl ConfigCheck {
    pub(super) fn new(source: Arc<ConfigSource>, folder: &Path) -> ConfigCheck {
        let (invalid, warnings) = (Vec::new(), Vec::new());
        ConfigCheck { source, folder: folder.to_owned(), invalid, warnings }
    }

    /// Adds an error; the caller may add `help`.
    pub(super) fn refuse(
        &mut self,
        span: Range<usize>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> &mut InvalidSetting {
        self.invalid.push(InvalidSetting::at(&self.source, span, found, expected));
        let last = self.invalid.len() - 1;
        &mut self.invalid[last]
    }

    pub(super) fn warn(
        &mut self,
        span: Range<usize>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) {
        self.warnings.push(InvalidSetting::at(&self.source, span, found, expected));
    }

    /// Warns if users that are neither the owner nor in the group of a secret file can read or replace it.
    pub(super) fn warn_of_readers(&mut self, raw: &Spanned<String>) {
        let facts = std::fs::metadata(self.path(raw.get_ref()));
        if let Ok(mode) = facts.map(|facts| facts.mode() & 0o7777)
            && mode & 0o006 != 0
        {
            let found = format!("`{}` with mode {mode:04o}, open to every user", raw.get_ref());
            self.warn(raw.span(), found, "mode 0640 or less");
        }
    }

    /// `file:line` of a span, for use in another message.
    pub(super) fn place(&self, span: &Range<usize>) -> String {
        InvalidSetting::at(&self.source, span.clone(), "", "").place()
    }

    pub(super) fn duration(
        &mut self,
        raw: &Option<Spanned<String>>,
        default: Duration,
        allowed: RangeInclusive<Duration>,
    ) -> Duration {
        let Some(raw) = raw else { return default };
        match unit::duration(raw.get_ref()) {
            Ok(value) if allowed.contains(&value) => value,
            Ok(_) => {
                let (least, most) = (unit::spell(*allowed.start()), unit::spell(*allowed.end()));
                let found = format!("`{}`", raw.get_ref());
                self.refuse(raw.span(), found, format!("{least} to {most}"));
                default
            }
            Err(hint) => {
                let found = format!("`{}`", raw.get_ref());
                self.refuse(raw.span(), found, "a duration such as `8s` or `200ms`").help = hint;
                default
            }
        }
    }

    pub(super) fn bit_rate(&mut self, raw: &Spanned<String>) -> Option<ConfigBitRate> {
        match unit::bit_rate(raw.get_ref()) {
            Ok(rate) if rate.0 > 0 => Some(rate),
            Ok(_) => {
                self.refuse(raw.span(), format!("`{}`", raw.get_ref()), "more than 0 bit/s");
                None
            }
            Err(hint) => {
                let expected = "a bit rate such as `400 Mbit/s` or `24 kbit/s`";
                self.refuse(raw.span(), format!("`{}`", raw.get_ref()), expected).help = hint;
                None
            }
        }
    }

    pub(super) fn number<T>(
        &mut self,
        raw: &Option<Spanned<i64>>,
        default: T,
        allowed: RangeInclusive<T>,
    ) -> T
    where
        T: TryFrom<i64> + PartialOrd + Display,
    {
        let Some(raw) = raw else { return default };
        match T::try_from(*raw.get_ref()) {
            Ok(value) if allowed.contains(&value) => value,
            _ => {
                let expected = format!("{} to {}", allowed.start(), allowed.end());
                self.refuse(raw.span(), raw.get_ref().to_string(), expected);
                default
            }
        }
    }

    /// A number from 0 to 1.
    pub(super) fn share(&mut self, raw: &Option<Spanned<f64>>, default: f64) -> f64 {
        let Some(raw) = raw else { return default };
        let value = *raw.get_ref();
        if (0.0..=1.0).contains(&value) {
            return value;
        }
        self.refuse(raw.span(), value.to_string(), "a share from 0.0 to 1.0");
        default
    }

    /// A name: at most 64 letters, digits, `-`, `_` and `.`.
    pub(super) fn name(&mut self, raw: &Spanned<String>) -> Arc<str> {
        let name = raw.get_ref();
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.chars().count() > 64 || !name.chars().all(plain) {
            let expected = "1 to 64 letters, digits, `-`, `_` or `.`";
            self.refuse(raw.span(), format!("`{name}`"), expected);
        }
        Arc::from(name.as_str())
    }

    pub(super) fn parse<T: std::str::FromStr>(
        &mut self,
        raw: &Spanned<String>,
        expected: &str,
    ) -> Option<T> {
        let parsed = raw.get_ref().parse().ok();
        if parsed.is_none() {
            self.refuse(raw.span(), format!("`{}`", raw.get_ref()), expected);
        }
        parsed
    }

    /// A path of the file, relative to its folder.
    pub(super) fn path(&self, raw: &str) -> PathBuf {
        self.folder.join(raw)
    }

    /// The content of a file of secrets.
    pub(super) fn secret_file(&mut self, raw: &Spanned<String>, least: usize) -> Option<Vec<u8>> {
        let path = self.path(raw.get_ref());
        match file::read(&path, SECRET_MAX) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                let found = format!("`{}`: {error}", raw.get_ref());
                let expected = format!("a file with {least} to {SECRET_MAX} secret bytes");
                let is_missing = error.kind() == std::io::ErrorKind::NotFound;
                let create = || {
                    let path = path.display();
                    format!("create one: `(umask 077; openssl rand -hex 32 > {path})`")
                };
                self.refuse(raw.span(), found, expected).help = is_missing.then(create);
                None
            }
        }
    }

    /// The content of a secret file, without the line end.
    pub(super) fn secret(&mut self, raw: &Spanned<String>) -> Option<SecretFile> {
        let mut bytes = self.secret_file(raw, SECRET_MIN)?;
        while matches!(bytes.last(), Some(b'\n' | b'\r')) {
            bytes.pop();
        }
        if bytes.len() < SECRET_MIN {
            let found = format!("`{}` with {} bytes", raw.get_ref(), bytes.len());
            self.refuse(raw.span(), found, format!("at least {SECRET_MIN} bytes"));
            return None;
        }
        self.warn_of_readers(raw);
        Some(SecretFile::new(bytes))
    }
}
