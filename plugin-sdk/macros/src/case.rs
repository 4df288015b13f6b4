//! Names in kebab case.

/// Converts `VoiceOnly` to `voice-only`.
pub(crate) fn kebab(name: &str) -> String {
    let mut out = String::new();
    for (at, letter) in name.chars().enumerate() {
        if letter.is_ascii_uppercase() && at > 0 {
            out.push('-');
        }
        out.push(if letter == '_' { '-' } else { letter.to_ascii_lowercase() });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::kebab;

    #[test]
    fn capitals_begin_words() {
        assert_eq!(kebab("VoiceOnly"), "voice-only");
        assert_eq!(kebab("Cap"), "cap");
    }
}
