//! Checks a file value by value, and collects all errors with their places: durations, bit rates, numbers, names, secrets.

use std::fmt::{self, Display};
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_host::nearest;
use evenkeel_process::setting_text::{BitRateText, DurationText, type_in_words};
use evenkeel_process::{escape, escape_lines, file};
use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode,
};
use serde::Serialize;
use toml::Spanned;

/// A secret is one line; a larger file was named by mistake.
const SECRET_MAX: u64 = 4_096;

/// Maximum of a cost per hour, far above that of any fleet.
const COST_MAX: f64 = 1_000_000.0;

/// Shorter secrets can be guessed.
pub(super) const SECRET_MIN: usize = 16;

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

    /// Adds an error about a text.
    pub(super) fn refuse_text(
        &mut self,
        raw: &Spanned<impl Display>,
        expected: impl Into<String>,
    ) -> &mut InvalidSetting {
        self.refuse(raw.span(), format!("`{}`", raw.get_ref()), expected)
    }

    /// Adds an error about a name that is none of the known ones, and suggests the closest.
    pub(super) fn refuse_unknown<'a>(
        &mut self,
        raw: &Spanned<String>,
        what: &str,
        known: impl IntoIterator<Item = &'a str> + Clone,
    ) -> &mut InvalidSetting {
        let help = nearest(raw.get_ref(), known.clone());
        let found = format!("unknown {what} `{}`", raw.get_ref());
        let expected = match quoted(known) {
            none if none.is_empty() => format!("another {what}; there is none"),
            known => format!("one of {known}"),
        };
        let invalid = self.refuse(raw.span(), found, expected);
        invalid.help = help;
        invalid
    }

    /// All errors, in the order of the file.
    pub(super) fn into_invalid(mut self) -> Vec<InvalidSetting> {
        self.invalid.sort_by_key(|invalid| (invalid.line, invalid.column));
        self.invalid
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
        raw: &Option<Spanned<DurationText>>,
        default: Duration,
        allowed: RangeInclusive<Duration>,
    ) -> Duration {
        let Some(raw) = raw else { return default };
        match parse_duration(raw.get_ref()) {
            Ok(value) if allowed.contains(&value) => value,
            Ok(_) => {
                let (least, most) = (spell(*allowed.start()), spell(*allowed.end()));
                self.refuse_text(raw, format!("{least} to {most}"));
                default
            }
            Err(hint) => {
                self.refuse_text(raw, "a duration such as `8s` or `200ms`").help = hint;
                default
            }
        }
    }

    pub(super) fn bit_rate(&mut self, raw: &Spanned<BitRateText>) -> Option<ConfigBitRate> {
        match parse_bit_rate(raw.get_ref()) {
            Ok(rate) if rate.0 > 0 => Some(rate),
            Ok(_) => {
                self.refuse_text(raw, "more than 0 bit/s");
                None
            }
            Err(hint) => {
                let expected = "a bit rate such as `400 Mbit/s` or `24 kbit/s`";
                self.refuse_text(raw, expected).help = hint;
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

    /// A cost per hour, in thousandths.
    pub(super) fn cost(&mut self, raw: &Option<Spanned<f64>>) -> Option<u64> {
        let raw = raw.as_ref()?;
        let value = *raw.get_ref();
        if (0.0..=COST_MAX).contains(&value) {
            return Some((value * 1_000.0).round() as u64);
        }
        self.refuse(raw.span(), value.to_string(), format!("0 to {COST_MAX}"));
        None
    }

    /// Refuses a list of more than `most` entries.
    pub(super) fn at_most<T>(&mut self, list: &[Spanned<T>], most: usize, what: &str) {
        if let Some(first) = list.get(most) {
            let found = format!("{} {what}", list.len());
            self.refuse(first.span(), found, format!("at most {most} {what}"));
        }
    }

    /// Refuses names that occur twice in a list.
    pub(super) fn unique_names(&mut self, names: &[&Spanned<String>]) {
        for (number, name) in names.iter().enumerate() {
            let mut earlier = names[..number].iter();
            if let Some(first) = earlier.find(|earlier| earlier.get_ref() == name.get_ref()) {
                let help = format!("the first is at {}", self.place(&first.span()));
                let found = format!("`{}` a second time", name.get_ref());
                self.refuse(name.span(), found, "a unique name").help = Some(help);
            }
        }
    }

    /// A name: at most 64 letters, digits, `-`, `_` and `.`.
    pub(super) fn name(&mut self, raw: &Spanned<String>) -> Arc<str> {
        let name = raw.get_ref();
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.chars().count() > 64 || !name.chars().all(plain) {
            let expected = "1 to 64 letters, digits, `-`, `_` or `.`";
            self.refuse_text(raw, expected);
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
            self.refuse_text(raw, expected);
        }
        parsed
    }

    /// An address, without a host name: what DNS answers later would be another node or listener.
    pub(super) fn address<T: std::str::FromStr>(
        &mut self,
        raw: &Spanned<String>,
        expected: &str,
    ) -> Option<T> {
        let text = raw.get_ref();
        let host = text.rsplit_once(':').map_or(&**text, |(host, _)| host);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if host.chars().all(is_plain) && host.contains(|c: char| c.is_ascii_alphabetic()) {
            let found = format!("the host name `{text}`");
            self.refuse(raw.span(), found, format!("{expected}; host names are not accepted"));
            return None;
        }
        self.parse(raw, expected)
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

    /// The secrets of a file: one, or two while it is rotated, each on a line of at least this many bytes.
    pub(super) fn secrets(
        &mut self,
        raw: &Spanned<String>,
        least: usize,
    ) -> Option<Vec<SecretFile>> {
        let bytes = self.secret_file(raw, least)?;
        let lines = bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
        let lines: Vec<&[u8]> = lines.filter(|line| !line.is_empty()).collect();
        let (file, before) = (raw.get_ref(), self.invalid.len());
        if lines.is_empty() || lines.len() > 2 {
            let found = format!("`{file}` with {} secrets", lines.len());
            let expected = "one secret, or two while it is rotated, each on a line";
            self.refuse(raw.span(), found, expected);
        }
        for (place, line) in lines.iter().enumerate() {
            if line.len() < least {
                let (length, number) = (line.len(), place + 1);
                let found = format!("`{file}` with {length} bytes in secret {number}");
                self.refuse(raw.span(), found, format!("at least {least} bytes"));
            }
            if lines[..place].contains(line) {
                let found = format!("`{file}` with the same secret twice");
                self.refuse(raw.span(), found, "a new secret and the previous one");
            }
        }
        self.warn_of_readers(raw);
        let is_sound = self.invalid.len() == before;
        is_sound.then(|| lines.into_iter().map(|line| SecretFile::new(line.to_vec())).collect())
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

/// The content of a secret file without the line end: 16 to 4,096 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretFile(Arc<[u8]>);

impl SecretFile {
    /// The length is checked where the file is read.
    pub fn new(bytes: Vec<u8>) -> SecretFile {
        SecretFile(bytes.into())
    }

    /// The secret's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A bit rate in bit/s: `500 kbit/s`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConfigBitRate(pub u64);

impl ConfigBitRate {
    /// The rate in kbit/s, rounded down.
    pub fn kbps(self) -> u64 {
        self.0 / 1_000
    }
}

impl Display for ConfigBitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scale, unit) =
            RATES.iter().rev().find(|(scale, _)| self.0 >= *scale).unwrap_or(&RATES[0]);
        let (whole, rest) = (self.0 / scale, self.0 % scale);
        if rest == 0 {
            return write!(f, "{whole} {unit}");
        }
        let digits = scale.ilog10() as usize;
        let fraction = format!("{rest:0digits$}");
        write!(f, "{whole}.{} {unit}", fraction.trim_end_matches('0'))
    }
}

/// Units in ascending order; the last one that fits is the largest.
const RATES: [(u64, &str); 4] =
    [(1, "bit/s"), (1_000, "kbit/s"), (1_000_000, "Mbit/s"), (1_000_000_000, "Gbit/s")];

const SPANS: [(u64, &str); 5] =
    [(1, "us"), (1_000, "ms"), (1_000_000, "s"), (60_000_000, "m"), (3_600_000_000, "h")];

/// Reads a bit rate; the error is a hint, if there is one.
fn parse_bit_rate(text: &str) -> Result<ConfigBitRate, Option<String>> {
    let unit = split(text).1;
    quantity(text, &RATES).map(ConfigBitRate).ok_or_else(|| {
        let meant = match unit {
            "bps" | "b/s" => "bit/s",
            "kbps" | "kb/s" | "Kbit/s" | "kbit" | "k" => "kbit/s",
            "Mbps" | "mbps" | "Mb/s" | "mbit/s" | "Mbit" | "M" => "Mbit/s",
            "Gbps" | "gbps" | "Gb/s" | "gbit/s" | "Gbit" | "G" => "Gbit/s",
            _ => return None,
        };
        Some(format!("write the unit as `{meant}`"))
    })
}

/// Reads a duration such as `8s`. The error names the text and the expected syntax.
pub fn read_duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|hint| {
        let hint = hint.map(|hint| format!(": {hint}")).unwrap_or_default();
        format!("found `{text}`, expected a duration such as `60s`, `5m` or `200ms`{hint}")
    })
}

/// Reads a duration, exact to the microsecond; the error is a hint, if there is one.
fn parse_duration(text: &str) -> Result<Duration, Option<String>> {
    let unit = split(text).1;
    quantity(text, &SPANS).map(Duration::from_micros).ok_or_else(|| {
        let meant = match unit {
            "" => return Some("a duration needs a unit, as in `8s` or `200ms`".to_owned()),
            "sec" | "secs" | "second" | "seconds" => "s",
            "msec" | "millis" | "milliseconds" => "ms",
            "µs" | "usec" | "micros" => "us",
            "min" | "mins" | "minute" | "minutes" => "m",
            "hour" | "hours" => "h",
            _ => return None,
        };
        Some(format!("write the unit as `{meant}`"))
    })
}

/// Formats a duration for [`read_duration`].
pub(super) fn spell(duration: Duration) -> String {
    let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let whole = SPANS.iter().rev().find(|(scale, _)| us >= *scale && us.is_multiple_of(*scale));
    let (scale, unit) = whole.unwrap_or(&SPANS[0]);
    format!("{}{unit}", us / scale)
}

fn split(text: &str) -> (&str, &str) {
    let number = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_');
    let (number, unit) = text.split_at(number.unwrap_or(text.len()));
    (number, unit.trim_start())
}

/// Reads `number unit` in the smallest unit; `None` unless it is a whole number of those.
fn quantity(text: &str, units: &[(u64, &str)]) -> Option<u64> {
    let (number, unit) = split(text);
    let &(scale, _) = units.iter().find(|(_, name)| *name == unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole = whole.replace('_', "").parse::<u64>().ok()?.checked_mul(scale)?;
    let digits = u32::try_from(fraction.len()).ok()?;
    let fraction = fraction.parse::<u64>().ok()?.checked_mul(scale)?;
    let divisor = 10u64.checked_pow(digits)?;
    if fraction % divisor != 0 {
        return None;
    }
    whole.checked_add(fraction / divisor)
}

/// The name of a file, as errors show it, and its text.
pub(super) type ConfigSource = NamedSource<String>;

pub(super) fn source(file: &Path, text: &str) -> Arc<ConfigSource> {
    Arc::new(NamedSource::new(escape(&file.display().to_string()), text.to_owned()))
}

/// Line and column of a byte offset, both from 1; columns count characters.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// A configuration error: its place, what was found, and what is expected.
#[derive(Clone, Debug, Serialize, thiserror::Error)]
#[error("found {found}, expected {expected}")]
pub struct InvalidSetting {
    /// The file as named on the command line; `policies/call.toml (shipped)` for an embedded one.
    pub file: String,
    /// Line number from 1; also 1 if the error is about the whole file.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The value, or its absence.
    pub found: String,
    /// The form that is expected.
    pub expected: String,
    /// The next step, if it is not obvious.
    pub(crate) help: Option<String>,
    #[serde(skip)]
    origin: Arc<ConfigSource>,
    #[serde(skip)]
    span: Range<usize>,
}

impl InvalidSetting {
    pub(super) fn at(
        source: &Arc<ConfigSource>,
        span: Range<usize>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> InvalidSetting {
        let (line, column) = line_and_column(source.inner(), span.start);
        let (found, expected): (String, String) = (found.into(), expected.into());
        InvalidSetting {
            file: source.name().to_owned(),
            line,
            column,
            found: escape_lines(&found).into_owned(),
            expected: escape_lines(&expected).into_owned(),
            help: None,
            origin: Arc::clone(source),
            span,
        }
    }

    /// An error about a file that could not be read.
    pub(super) fn whole(
        file: &Path,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> InvalidSetting {
        InvalidSetting::at(&source(file, ""), 0..0, found, expected)
    }

    /// `file:line:column`.
    pub fn place(&self) -> String {
        format!("{}:{}:{}", self.file, self.line, self.column)
    }

    /// Errors for a terminal: each with its lines of the file and a mark below the place.
    pub fn render(invalid: &[InvalidSetting], colour: Colour) -> String {
        let theme = match colour {
            Colour::Plain => GraphicalTheme::unicode_nocolor(),
            Colour::Ansi => GraphicalTheme::unicode(),
        };
        let handler = GraphicalReportHandler::new_themed(theme).with_links(false).with_width(100);
        let mut text = String::new();
        for invalid in invalid {
            // An error without a source line is shown on one line.
            let place = match invalid.origin.inner().is_empty() {
                true => Some(invalid.file.clone()),
                false => handler.render_report(&mut text, invalid).err().map(|_| invalid.place()),
            };
            if let Some(place) = place {
                text.push_str(&format!("{place}: {invalid}\n"));
                text.extend(invalid.help().map(|help| format!("  help: {help}\n")));
            }
        }
        text
    }
}

/// The use of colour in reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Colour {
    /// No escape sequences.
    Plain,
    /// Colours by ANSI escape sequences.
    Ansi,
}

impl Diagnostic for InvalidSetting {
    fn help<'a>(&'a self) -> Option<Box<dyn Display + 'a>> {
        let help = self.help.as_deref().map(escape_lines)?;
        Some(Box::new(help))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&*self.origin)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = LabeledSpan::new_with_span(Some(self.found.clone()), self.span.clone());
        Some(Box::new(std::iter::once(label)))
    }
}

/// Rewords a parser error.
pub(super) fn from_parser(source: &Arc<ConfigSource>, error: &toml::de::Error) -> InvalidSetting {
    from_parser_at(source, error.span().unwrap_or(0..0), error.message())
}

/// Rewords what the parser said of this place.
///
/// The parser only offers sentences such as `unknown field `x`, expected `a` or `b``.
pub(super) fn from_parser_at(
    source: &Arc<ConfigSource>,
    span: Range<usize>,
    message: &str,
) -> InvalidSetting {
    let (left, right) = message.split_once(", expected ").unwrap_or((message, ""));
    let invalid =
        |found: String, expected: String| InvalidSetting::at(source, span.clone(), found, expected);

    for (prefix, named) in [("unknown field ", "unknown key "), ("unknown variant ", "")] {
        if let Some(word) = quoted_after(left, prefix) {
            let mut invalid = invalid(format!("{named}`{word}`"), right.to_owned());
            invalid.help = nearest(word, right.split('`').skip(1).step_by(2));
            return invalid;
        }
    }
    if let Some(key) = quoted_after(left, "missing field ") {
        return invalid(format!("no `{key}`"), format!("the required key `{key}`"));
    }
    if left == "string values must be quoted" {
        let word = source.inner()[span.clone()].to_owned();
        return invalid(format!("`{word}`"), "a string in quotes".to_owned());
    }
    if left == "duplicate key" {
        let key = source.inner()[span.clone()].trim();
        return invalid(format!("`{key}` a second time"), "each key once".to_owned());
    }
    let wrong = ["invalid type: ", "invalid value: "].iter().find_map(|&p| left.strip_prefix(p));
    if let Some(found) = wrong {
        // `[listen]` for `[[listen]]`, or the reverse.
        let rest = source.inner().get(span.start..).unwrap_or_default();
        let header = rest.lines().next().unwrap_or_default().trim_end();
        let name = |open: &str, close: &str| header.strip_prefix(open)?.strip_suffix(close);
        match (found, name("[[", "]]"), name("[", "]")) {
            ("map" | "sequence", Some(name), _) => {
                return invalid(format!("`[[{name}]]`"), format!("`[{name}]`"));
            }
            ("map", None, Some(name)) if right == "a sequence" => {
                return invalid(format!("`[{name}]`"), format!("`[[{name}]]`"));
            }
            _ => {}
        }
        let found = if found == "map" { "a table" } else { found };
        return invalid(found.to_owned(), type_in_words(right).to_owned());
    }
    let expected = if right.is_empty() { "TOML" } else { right };
    invalid(left.to_owned(), expected.to_owned())
}

fn quoted_after<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    text.strip_prefix(prefix)?.strip_prefix('`')?.strip_suffix('`')
}

/// Names in quotes, with commas between them.
pub(super) fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
