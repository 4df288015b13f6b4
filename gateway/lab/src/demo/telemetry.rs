//! Reads Prometheus metrics of the gateway.

use super::record::Calls;

/// The policy calls in the text of `/metrics`.
pub(super) fn calls(text: &str) -> Calls {
    let mut calls = Calls::default();
    for line in text.lines() {
        let Some((name, labels, value)) = sample(line) else { continue };
        match name {
            "evenkeel_policy_calls_total" => {
                calls.total += value;
                if labels.contains("outcome=\"applied\"") {
                    calls.applied += value;
                    if let Some(policy) = label(labels, "policy") {
                        *calls.applied_by.entry(policy.to_owned()).or_default() += value;
                    }
                }
            }
            "evenkeel_policy_differs_total" => calls.differs += value,
            "evenkeel_policy_faults_total" => calls.faults += value,
            _ => {}
        }
    }
    calls
}

/// The value of a label; policy names contain no quotation mark.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let (_, value) = labels.split_once(&format!("evenkeel_{name}=\""))?;
    Some(value.split_once('"')?.0)
}

/// Parses a line of the text format: name, labels, and value.
fn sample(line: &str) -> Option<(&str, &str, u64)> {
    let (series, value) = line.rsplit_once(' ').filter(|_| !line.starts_with('#'))?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let value: f64 = value.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0)?;
    Some((name, labels, value as u64))
}

#[cfg(test)]
mod tests;
