//! Bencode, the encoding of the NG protocol.

use std::borrow::Cow;

/// Nesting limit, deeper than any answer of rtpengine.
const DEPTH_MAX: usize = 16;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Value<'a> {
    Number(i64),
    String(Cow<'a, [u8]>),
    List(Vec<Value<'a>>),
    /// Keys and values in order.
    Dictionary(Vec<(Cow<'a, [u8]>, Value<'a>)>),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::String(Cow::Borrowed(text.as_bytes()))
    }
}

impl<'a> Value<'a> {
    pub(super) fn words(words: &[&'a str]) -> Value<'a> {
        Value::List(words.iter().map(|word| Value::from(*word)).collect())
    }

    /// A dictionary; entries must be given in key order.
    pub(super) fn dictionary(entries: Vec<(&'a str, Value<'a>)>) -> Value<'a> {
        let entry = |(key, value): (&'a str, _)| (Cow::Borrowed(key.as_bytes()), value);
        Value::Dictionary(entries.into_iter().map(entry).collect())
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Value::Number(number) => out.extend(format!("i{number}e").into_bytes()),
            Value::String(bytes) => write_string(bytes, out),
            Value::List(values) => {
                out.push(b'l');
                values.iter().for_each(|value| value.write(out));
                out.push(b'e');
            }
            Value::Dictionary(entries) => {
                out.push(b'd');
                for (key, value) in entries {
                    write_string(key, out);
                    value.write(out);
                }
                out.push(b'e');
            }
        }
    }

    /// Reads a value that consumes all bytes.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Value<'a>> {
        let mut rest = bytes;
        let value = read(&mut rest, 0)?;
        rest.is_empty().then_some(value)
    }

    /// The value of this key, if the value is a dictionary that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Value<'a>> {
        let Value::Dictionary(entries) = self else {
            return None;
        };
        entries.iter().find(|(known, _)| **known == *key.as_bytes()).map(|(_, value)| value)
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Value::String(bytes) => std::str::from_utf8(bytes).ok(),
            Value::Number(_) | Value::List(_) | Value::Dictionary(_) => None,
        }
    }
}

fn write_string(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(format!("{}:", bytes.len()).into_bytes());
    out.extend_from_slice(bytes);
}

fn read<'a>(rest: &mut &'a [u8], depth: usize) -> Option<Value<'a>> {
    if depth == DEPTH_MAX {
        return None;
    }
    match rest.first()? {
        b'i' => {
            *rest = &rest[1..];
            let digits = std::str::from_utf8(until(rest, b'e')?).ok()?;
            Some(Value::Number(digits.parse().ok()?))
        }
        b'l' => {
            *rest = &rest[1..];
            let mut values = Vec::new();
            while !ended(rest)? {
                values.push(read(rest, depth + 1)?);
            }
            Some(Value::List(values))
        }
        b'd' => {
            *rest = &rest[1..];
            let mut entries = Vec::new();
            while !ended(rest)? {
                let key = read_string(rest)?;
                entries.push((Cow::Borrowed(key), read(rest, depth + 1)?));
            }
            Some(Value::Dictionary(entries))
        }
        _ => read_string(rest).map(|bytes| Value::String(Cow::Borrowed(bytes))),
    }
}

/// Consumes the end of a list or dictionary; returns false if none is next.
fn ended(rest: &mut &[u8]) -> Option<bool> {
    let ended = *rest.first()? == b'e';
    if ended {
        *rest = &rest[1..];
    }
    Some(ended)
}

fn read_string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = std::str::from_utf8(until(rest, b':')?).ok()?.parse().ok()?;
    let (string, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(string)
}

/// Consumes the bytes before `end`, and `end` itself.
fn until<'a>(rest: &mut &'a [u8], end: u8) -> Option<&'a [u8]> {
    let at = rest.iter().position(|byte| *byte == end)?;
    let (before, after) = rest.split_at(at);
    *rest = &after[1..];
    Some(before)
}

#[cfg(test)]
mod tests;
