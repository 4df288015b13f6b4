//! Server-sent events (WHATWG HTML, section 9.2), the subset that the API sends.

use bytes::{Buf, BytesMut};
use serde_json::Value;

/// An event of `/v1/events` (server-sent events).
#[derive(Clone, PartialEq, Debug)]
pub struct ServerEvent {
    /// The event type; `message` if the stream names none.
    pub name: String,
    /// The position from which a later request resumes.
    pub id: Option<String>,
    /// The event's object.
    pub data: Value,
}

/// Received bytes and the event under construction.
#[derive(Default)]
pub(super) struct EventLines {
    pub(super) bytes: BytesMut,
    name: String,
    id: Option<String>,
    data: String,
}

impl EventLines {
    /// The next complete event.
    pub(super) fn next(&mut self) -> Result<Option<ServerEvent>, serde_json::Error> {
        while let Some(end) = self.bytes.iter().position(|&byte| byte == b'\n') {
            let line =
                String::from_utf8_lossy(&self.bytes[..end]).trim_end_matches('\r').to_owned();
            self.bytes.advance(end + 1);
            if line.is_empty() {
                if self.data.is_empty() {
                    continue;
                }
                let name = match std::mem::take(&mut self.name) {
                    name if name.is_empty() => "message".to_owned(),
                    name => name,
                };
                let data = serde_json::from_str(&std::mem::take(&mut self.data))?;
                return Ok(Some(ServerEvent { name, id: self.id.clone(), data }));
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => self.name = value.to_owned(),
                "id" => self.id = Some(value.to_owned()),
                "data" => {
                    if !self.data.is_empty() {
                        self.data.push('\n');
                    }
                    self.data.push_str(value);
                }
                // Comments keep the connection alive; unknown fields are ignored.
                _ => {}
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
