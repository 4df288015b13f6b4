//! Parses the registry for build scripts and contract tests. Both sides of the contract include this file, so that they
//! interpret the registry equally.

use toml::{Table, Value};

/// Units of the registry with their documentation. Any other unit is an error.
pub(crate) const UNITS: &[(&str, &str)] = &[
    ("ppm", "1/1,000,000"),
    ("permille", "1/1,000"),
    ("centi", "1/100"),
    ("us", "microseconds"),
    ("ms", "milliseconds"),
    ("kbps", "1,000 bit/s"),
    ("count", "a plain number"),
    ("pixels", "pixels"),
    ("text", "text"),
    ("id", "a number of the catalog"),
    ("none", "nothing"),
];

/// Tables of the registry: the key in the file, and the name in error messages.
pub(crate) const TABLES: &[(&str, &str)] = &[
    ("metric", "metric"),
    ("op", "action"),
    ("reason", "reason"),
    ("param", "scenario parameter"),
    ("label", "label"),
    ("entry-kind", "kind of catalog entry"),
];

/// First number of common reasons; lower numbers belong to each plugin's manifest.
pub(crate) const COMMON_REASONS_FROM: u32 = 65_536;

/// Kinds of rows that may carry a metric.
pub(crate) const ROWS: &[&str] = &["session", "room", "node", "region"];

/// One `[[table]]` of the registry.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct RegistryEntry {
    /// Number in the contract; never reused.
    pub(crate) number: u32,
    /// Name in kebab case: `loss-up`.
    pub(crate) name: String,
    /// Unit, one of [`UNITS`].
    pub(crate) unit: String,
    /// Documentation of one or two sentences.
    pub(crate) doc: String,
    /// Kinds of rows that may carry the metric; metrics only.
    pub(crate) of: Vec<String>,
    /// Names of the values 0, 1, 2 …; metrics only.
    pub(crate) values: Vec<String>,
    /// True if 0 means false and 1 means true; metrics only.
    pub(crate) flag: bool,
    /// Lowest and highest meaningful number, if restricted.
    pub(crate) bounds: Option<(i64, i64)>,
}

impl RegistryEntry {
    /// Returns the name of a variant: `LossUp` for `loss-up`.
    pub(crate) fn variant(&self) -> String {
        camel(&self.name)
    }

    /// Returns whether the metric is a column of frames about sessions and rooms, and not about nodes and regions.
    pub(crate) fn subject(&self) -> bool {
        self.of.iter().any(|of| of == "session" || of == "room")
    }
}

/// Returns the entries of one table, by number. The error names the invalid entry.
pub(crate) fn entries(registry: &Table, table: &str) -> Result<Vec<RegistryEntry>, String> {
    let tables = registry.get(table).and_then(Value::as_array);
    let tables = tables.ok_or_else(|| format!("there is no [[{table}]]"))?;
    let mut entries = Vec::new();
    for value in tables {
        let entry = entry(value).map_err(|wrong| format!("[[{table}]] {wrong}"))?;
        let is_metric = table == "metric";
        if is_metric == entry.of.is_empty() {
            let right = if is_metric {
                "`of` names the rows that carry it"
            } else {
                "only metrics have `of`"
            };
            return Err(format!("[[{table}]] {}: {right}", entry.name));
        }
        if table == "reason" && entry.number < COMMON_REASONS_FROM {
            let name = entry.name;
            return Err(format!(
                "[[reason]] {name}: numbers below {COMMON_REASONS_FROM} are the plugins'"
            ));
        }
        entries.push(entry);
    }
    entries.sort_by_key(|entry| entry.number);
    for (at, entry) in entries.iter().enumerate() {
        let same =
            |other: &&RegistryEntry| other.number == entry.number || other.name == entry.name;
        if let Some(other) = entries[..at].iter().find(same) {
            let (number, name) = (entry.number, &entry.name);
            return Err(format!(
                "[[{table}]] {name} ({number}): its number or name is taken by {} ({})",
                other.name, other.number
            ));
        }
    }
    Ok(entries)
}

fn entry(value: &Value) -> Result<RegistryEntry, String> {
    let known = ["number", "name", "unit", "doc", "of", "values", "flag", "bounds"];
    let table = value.as_table().ok_or("is not a table")?;
    let text = |key: &str| -> Result<String, String> {
        let text = table.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        text.map(str::to_owned)
            .ok_or_else(|| format!("`{key}` should be a text, found {:?}", table.get(key)))
    };
    let name = text("name")?;
    let wrong = |what: &str| format!("{name}: {what}");
    if let Some(key) = table.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(wrong(&format!("`{key}` is none of {}", known.join(", "))));
    }
    if !is_kebab(&name) {
        return Err(wrong("a name consists of lower-case letters, digits and single hyphens"));
    }
    let list = |key: &str| -> Result<Vec<String>, String> {
        let Some(list) = table.get(key) else { return Ok(Vec::new()) };
        let words = list
            .as_array()
            .and_then(|list| list.iter().map(|word| word.as_str().map(str::to_owned)).collect());
        words.ok_or_else(|| wrong(&format!("`{key}` should be a list of words")))
    };
    let number = table
        .get("number")
        .and_then(Value::as_integer)
        .and_then(|number| u32::try_from(number).ok());
    let entry = RegistryEntry {
        number: number
            .filter(|&number| number > 0)
            .ok_or_else(|| wrong("`number` should be from 1 up"))?,
        unit: text("unit").map_err(|what| wrong(&what))?,
        doc: text("doc").map_err(|what| wrong(&what))?,
        of: list("of")?,
        values: list("values")?,
        flag: table.get("flag").and_then(Value::as_bool).unwrap_or(false),
        bounds: bounds(table).map_err(|what| wrong(&what))?,
        name: name.clone(),
    };
    if !UNITS.iter().any(|&(unit, _)| unit == entry.unit) {
        let units: Vec<_> = UNITS.iter().map(|&(unit, _)| unit).collect();
        return Err(wrong(&format!("unit `{}` is none of {}", entry.unit, units.join(", "))));
    }
    if let Some(of) = entry.of.iter().find(|of| !ROWS.contains(&of.as_str())) {
        return Err(wrong(&format!("`of` has `{of}`, which is none of {}", ROWS.join(", "))));
    }
    let about_nodes = entry.of.iter().any(|of| of == "node" || of == "region");
    if entry.subject() && about_nodes {
        return Err(wrong(
            "a column is about sessions and rooms or about nodes and regions, not about both",
        ));
    }
    Ok(entry)
}

fn bounds(table: &Table) -> Result<Option<(i64, i64)>, String> {
    let Some(bounds) = table.get("bounds") else { return Ok(None) };
    match bounds.as_array().map(Vec::as_slice) {
        Some([Value::Integer(low), Value::Integer(high)]) if low <= high => Ok(Some((*low, *high))),
        _ => Err("`bounds` should be the lowest and the highest number".to_owned()),
    }
}

fn is_kebab(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let word =
        |word: &str| word.starts_with(|c: char| c.is_ascii_lowercase()) && word.chars().all(letter);
    name.split('-').all(word)
}

/// Returns the name of a variant: `HalfOpen` for `half-open`.
pub(crate) fn camel(name: &str) -> String {
    let words = name.split('-').map(|word| word[..1].to_uppercase() + &word[1..]);
    words.collect()
}
