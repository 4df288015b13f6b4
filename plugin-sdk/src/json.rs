//! JSON settings, already validated against the manifest's schema.

/// Limit of nesting. Settings are shallow, and the stack of a plugin is small.
const DEPTH_MAX: usize = 16;

/// A JSON value (RFC 8259). Numbers without fraction and exponent are integers.
#[derive(Clone, PartialEq, Debug)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer.
    Whole(i64),
    /// Any other number.
    Real(f64),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Json>),
    /// An object, in the order written.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Parses one value, which must be followed by nothing. The error names the byte and its content.
    pub fn parse(text: &str) -> Result<Json, String> {
        let mut reader = Reader { text, at: 0 };
        let value = reader.value(0)?;
        reader.space();
        match reader.peek() {
            None => Ok(value),
            Some(_) => Err(reader.found("the end")),
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn found(&self, expected: &str) -> String {
        match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            Some(found) => format!("byte {}: found `{found}`, expected {expected}", self.at),
            None => format!("byte {}: found the end, expected {expected}", self.at),
        }
    }

    fn take(&mut self, token: &str) -> bool {
        let there = self.text.as_bytes()[self.at..].starts_with(token.as_bytes());
        if there {
            self.at += token.len();
        }
        there
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        self.space();
        if self.take(token) { Ok(()) } else { Err(self.found(token)) }
    }

    fn value(&mut self, depth: usize) -> Result<Json, String> {
        if depth > DEPTH_MAX {
            return Err(self.found("less nesting"));
        }
        self.space();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => self.string().map(Json::Text),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ if self.take("true") => Ok(Json::Bool(true)),
            _ if self.take("false") => Ok(Json::Bool(false)),
            _ if self.take("null") => Ok(Json::Null),
            _ => Err(self.found("a value")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, String> {
        self.expect("{")?;
        let mut fields = Vec::new();
        self.space();
        if self.take("}") {
            return Ok(Json::Object(fields));
        }
        loop {
            self.space();
            let key = self.string()?;
            self.expect(":")?;
            fields.push((key, self.value(depth + 1)?));
            self.space();
            if !self.take(",") {
                self.expect("}")?;
                return Ok(Json::Object(fields));
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Json, String> {
        self.expect("[")?;
        let mut items = Vec::new();
        self.space();
        if self.take("]") {
            return Ok(Json::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.space();
            if !self.take(",") {
                self.expect("]")?;
                return Ok(Json::List(items));
            }
        }
    }

    fn number(&mut self) -> Result<Json, String> {
        let start = self.at;
        while let Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        let digits = &self.text[start..self.at];
        if let Ok(whole) = digits.parse() {
            return Ok(Json::Whole(whole));
        }
        match digits.parse::<f64>() {
            Ok(real) if real.is_finite() => Ok(Json::Real(real)),
            _ => Err(format!("byte {start}: found `{digits}`, expected a number")),
        }
    }

    fn string(&mut self) -> Result<String, String> {
        if !self.take("\"") {
            return Err(self.found("a string"));
        }
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain =
                rest.find(['"', '\\']).ok_or_else(|| "a string that never ends".to_owned())?;
            out.push_str(&rest[..plain]);
            self.at += plain + 1;
            if rest.as_bytes()[plain] == b'"' {
                return Ok(out);
            }
            out.push(self.escape()?);
        }
    }

    /// Reads the character of an escape sequence.
    fn escape(&mut self) -> Result<char, String> {
        let escaped = self.peek().ok_or_else(|| self.found("an escape"))?;
        let plain = match escaped {
            b'"' | b'\\' | b'/' => char::from(escaped),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.at += 1;
                return self.unicode();
            }
            _ => return Err(self.found("an escape")),
        };
        self.at += 1;
        Ok(plain)
    }

    /// Reads `XXXX`, or a surrogate pair `XXXX\uXXXX` (RFC 8259, 7).
    fn unicode(&mut self) -> Result<char, String> {
        let high = self.hex()?;
        let code = match high {
            0xd800..=0xdbff if self.take("\\u") => {
                let low = self.hex()?;
                0x1_0000 + ((high - 0xd800) << 10) + low.wrapping_sub(0xdc00) % 0x400
            }
            _ => high,
        };
        char::from_u32(code).ok_or_else(|| self.found("a character"))
    }

    fn hex(&mut self) -> Result<u32, String> {
        let digits = self.text.get(self.at..self.at + 4);
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let code = code.ok_or_else(|| self.found("four hexadecimal digits"))?;
        self.at += 4;
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_of_values_are_parsed() {
        let json = Json::parse(
            r#" {"a":[1,-2.5,1e3,true,false,null], "b":{"c":"x\n\"\u00e9\ud83d\ude00"}} "#,
        );
        let list = vec![
            Json::Whole(1),
            Json::Real(-2.5),
            Json::Real(1000.0),
            Json::Bool(true),
            Json::Bool(false),
            Json::Null,
        ];
        let inner = Json::Object(vec![("c".into(), Json::Text("x\n\"é😀".into()))]);
        let expected = Json::Object(vec![("a".into(), Json::List(list)), ("b".into(), inner)]);
        assert_eq!(json, Ok(expected));
    }

    #[test]
    fn invalid_json_is_refused_with_its_position() {
        for text in
            ["", "{", "[1,]", "{\"a\" 1}", "\"a", "1 2", "tru", "--1", "\"\\u12\"", "\"\\x\""]
        {
            assert!(Json::parse(text).is_err(), "{text}");
        }
        assert_eq!(Json::parse("[1 2]"), Err("byte 3: found `2`, expected ]".into()));
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(Json::parse(&nested(DEPTH_MAX + 1)).is_ok());
        assert!(Json::parse(&nested(DEPTH_MAX + 2)).is_err());
    }
}
