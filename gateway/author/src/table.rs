//! Tables that authors write, in TOML or JSON.

use serde_json::Value;

/// Reads a table: JSON if its first letter is a brace, else TOML, whatever the name of its file.
///
/// # Errors
/// The parser's error, with the place.
pub fn read_table(text: &str) -> Result<Value, String> {
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|error| format!("as JSON: {error}"));
    }
    toml::from_str(text).map_err(|error| format!("as TOML: {}", error.to_string().trim_end()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn content_decides_between_json_and_toml() {
        for text in ["spares = 1", "# One.\nspares = 1\n", "\n {\"spares\": 1}"] {
            assert_eq!(read_table(text), Ok(json!({"spares": 1})), "{text}");
        }
        assert!(read_table("{spares = 1}").unwrap_err().starts_with("as JSON: "));
        assert!(read_table("spares: 1").unwrap_err().starts_with("as TOML: "));
        assert_eq!(read_table(""), Ok(json!({})), "an empty file is an empty table");
    }
}
