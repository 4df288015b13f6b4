//! Configuration errors with their place in a file.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use evenkeel_process::{escape, escape_lines};
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, SourceCode};
use serde::Serialize;

pub(super) struct ConfigSource {
    pub(super) file: String,
    pub(super) text: String,
}

impl fmt::Debug for ConfigSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)
    }
}

impl ConfigSource {
    pub(super) fn new(file: &Path, text: &str) -> Arc<ConfigSource> {
        let file = escape(&file.display().to_string()).into_owned();
        Arc::new(ConfigSource { file, text: text.to_owned() })
    }

    /// Line and column of a byte offset, both from 1; columns count characters.
    fn place(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..self.text.floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

/// A configuration error: its place, what was found, and what is expected.
#[derive(Clone, Debug, Serialize)]
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
    source: Arc<ConfigSource>,
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
        let (line, column) = source.place(span.start);
        let (found, expected): (String, String) = (found.into(), expected.into());
        InvalidSetting {
            file: source.file.clone(),
            line,
            column,
            found: escape_lines(&found).into_owned(),
            expected: escape_lines(&expected).into_owned(),
            help: None,
            source: Arc::clone(source),
            span,
        }
    }

    /// An error about a file that could not be read.
    pub(super) fn whole(
        file: &Path,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> InvalidSetting {
        InvalidSetting::at(&ConfigSource::new(file, ""), 0..0, found, expected)
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
            let place = match invalid.source.text.is_empty() {
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

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "found {}, expected {}", self.found, self.expected)
    }
}

impl std::error::Error for InvalidSetting {}

impl Diagnostic for InvalidSetting {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let help = self.help.as_deref().map(escape_lines)?;
        Some(Box::new(help))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(self)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = LabeledSpan::new_with_span(Some(self.found.clone()), self.span.clone());
        Some(Box::new(std::iter::once(label)))
    }
}

impl SourceCode for InvalidSetting {
    fn read_span<'a>(
        &'a self,
        span: &miette::SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn miette::SpanContents<'a> + 'a>, miette::MietteError> {
        let read = self.source.text.read_span(span, before, after)?;
        Ok(Box::new(miette::MietteSpanContents::new_named(
            self.file.clone(),
            read.data(),
            *read.span(),
            read.line(),
            read.column(),
            read.line_count(),
        )))
    }
}

/// Rewords a parser error.
///
/// The parser only offers sentences such as `unknown field `x`, expected `a` or `b``.
pub(super) fn from_parser(source: &Arc<ConfigSource>, error: &toml::de::Error) -> InvalidSetting {
    let span = error.span().unwrap_or(0..0);
    let message = error.message();
    let (left, right) = message.split_once(", expected ").unwrap_or((message, ""));
    let invalid =
        |found: String, expected: String| InvalidSetting::at(source, span.clone(), found, expected);

    if let Some(key) = quoted_after(left, "unknown field ") {
        let mut invalid = invalid(format!("unknown key `{key}`"), right.to_owned());
        invalid.help = nearest(key, right.split('`').skip(1).step_by(2));
        return invalid;
    }
    if let Some(word) = quoted_after(left, "unknown variant ") {
        let mut invalid = invalid(format!("`{word}`"), right.to_owned());
        invalid.help = nearest(word, right.split('`').skip(1).step_by(2));
        return invalid;
    }
    if let Some(key) = quoted_after(left, "missing field ") {
        return invalid(format!("no `{key}`"), format!("the required key `{key}`"));
    }
    if left == "string values must be quoted" {
        let word = source.text[span.clone()].to_owned();
        return invalid(format!("`{word}`"), "a string in quotes".to_owned());
    }
    if left == "duplicate key" {
        let key = source.text[span.clone()].trim();
        return invalid(format!("`{key}` a second time"), "each key once".to_owned());
    }
    let wrong = ["invalid type: ", "invalid value: "].iter().find_map(|&p| left.strip_prefix(p));
    if let Some(found) = wrong {
        let found = if found == "map" { "a table" } else { found };
        let expected = match right {
            "a sequence" => "a list",
            "a map" => "a table",
            "i64" => "a whole number",
            "f64" => "a number",
            "a boolean" => "true or false",
            other => other,
        };
        return invalid(found.to_owned(), expected.to_owned());
    }
    let expected = if right.is_empty() { "TOML" } else { right };
    invalid(left.to_owned(), expected.to_owned())
}

fn quoted_after<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    text.strip_prefix(prefix)?.strip_prefix('`')?.strip_suffix('`')
}

/// A suggestion: the closest word, if at most a third of its letters differ.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let (distance, best) = known.into_iter().map(|known| (distance(word, known), known)).min()?;
    (distance <= best.chars().count().div_ceil(3)).then(|| format!("did you mean `{best}`?"))
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
