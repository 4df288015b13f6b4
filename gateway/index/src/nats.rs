//! A key-value bucket of NATS JetStream.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Display;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_TTL, NATS_ROLLUP};
use async_nats::jetstream::consumer::{Consumer, DeliverPolicy, push};
use async_nats::jetstream::context::{GetStreamErrorKind, PublishError, PublishErrorKind};
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use async_nats::jetstream::{self, Context, ErrorCode, kv};
use async_nats::{Client, ConnectOptions, Event, HeaderMap, HeaderValue};
use evenkeel_config::{IndexSettings, Login};
use evenkeel_process::lock;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;

use super::store::{Store, StoreChange, StoreEntry, StoreError, StoreMark, VALUE_MAX};

/// Deadline of one answer; of several it holds from one to the next.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Deadline of a batch of writes, each of which the server may bring to the disk.
const WRITTEN_WITHIN: Duration = Duration::from_secs(4);

const CONNECTED_WITHIN: Duration = Duration::from_secs(2);

const CONNECT_EVERY: Duration = Duration::from_millis(500);

/// A connection without an answer to two of these is given up.
const PING_EVERY: Duration = Duration::from_secs(1);

/// The mark of a deleted entry tells its watchers, and vanishes after this time.
const DELETED_FOR: Duration = Duration::from_secs(60);

/// Bytes that may come without one complete message: those of messages of the server's default maximum of 1 MB, and of other
/// operations between two messages.
const UNFINISHED_MAX: u64 = 4 << 20;

/// The largest maximum of messages that a server is granted, of which two may come without a complete one.
const MESSAGE_MAX: u64 = 64 << 20;

/// In this time 10 Gbit/s are 60 MB.
const UNFINISHED_COUNTED_EVERY: Duration = Duration::from_millis(50);

const OPERATION: &str = "KV-Operation";

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Nats {
    client: Client,
    context: Context,
    bucket: Arc<str>,
    replicas: usize,
    /// The reason of the last failed connection.
    failed: Arc<Mutex<String>>,
}

impl Nats {
    /// Connects in the background, again and again. Fails if the settings cannot be used.
    pub(super) async fn connect(settings: &IndexSettings) -> Result<Nats, StoreError> {
        let failed = Arc::new(Mutex::new("no connection yet".to_owned()));
        let shared = Arc::clone(&failed);
        let mut options = ConnectOptions::new()
            .name(format!("evenkeel {}", settings.gateway))
            .retry_on_initial_connect()
            .connection_timeout(CONNECTED_WITHIN)
            .ping_interval(PING_EVERY)
            .request_timeout(Some(ANSWER_WITHIN))
            .reconnect_delay_callback(|_| CONNECT_EVERY)
            .event_callback(move |event| {
                if let Some(reason) = reason(&event) {
                    *lock(&shared) = reason;
                }
                std::future::ready(())
            });
        if let Some(file) = &settings.tls_ca_file {
            options = options.add_root_certificates(file.clone()).require_tls(true);
        }
        options = match &settings.login {
            Login::None => options,
            Login::Credentials(secret) => {
                options.credentials(&text(secret.bytes())).map_err(unusable)?
            }
            Login::Nkey(secret) => options.nkey(text(secret.bytes())),
        };
        let client = options.connect(&settings.servers[..]).await.map_err(unusable)?;
        tokio::spawn(limit_input(client.clone()));
        let mut context = jetstream::new(client.clone());
        context.set_timeout(ANSWER_WITHIN);
        let (bucket, replicas) = (settings.bucket.as_str().into(), settings.replicas.into());
        Ok(Nats { client, context, bucket, replicas, failed })
    }

    fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.bucket)
    }

    fn stream_name(&self) -> String {
        format!("KV_{}", self.bucket)
    }

    /// Without a connection requests would wait for one.
    fn require_connection(&self) -> Result<(), StoreError> {
        match self.client.connection_state() {
            State::Connected => Ok(()),
            _ => Err(StoreError(format!("not connected: {}", lock(&self.failed)))),
        }
    }

    /// The stream below the bucket, as its leader describes it now. A bucket that is gone is created.
    async fn stream(&self) -> Result<Stream, StoreError> {
        self.require_connection()?;
        let name = self.stream_name();
        let stream = match answer(self.context.get_stream(&name)).await? {
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(error)
                    if error.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    self.create().await?;
                    answer(self.context.get_stream(&name)).await?.map_err(refused)?
                }
                _ => return Err(refused(error)),
            },
            Ok(stream) => stream,
        };
        if !stream.cached_info().config.allow_message_ttl {
            let message = format!(
                "the bucket `{}` does not let entries expire; delete it, and the gateway creates it",
                self.bucket
            );
            return Err(StoreError(message));
        }
        Ok(stream)
    }

    /// A consumer of the newest entries under a pattern, and of later ones.
    async fn entries(&self, pattern: &str) -> Result<Consumer<push::OrderedConfig>, StoreError> {
        let stream = self.stream().await?;
        let consumer = stream.create_consumer(push::OrderedConfig {
            deliver_subject: self.client.new_inbox(),
            filter_subject: self.subject(pattern),
            deliver_policy: DeliverPolicy::LastPerSubject,
            ..push::OrderedConfig::default()
        });
        answer(consumer).await?.map_err(refused)
    }

    async fn create(&self) -> Result<(), StoreError> {
        let config = kv::Config {
            bucket: self.bucket.to_string(),
            description: "sessions of evenkeel gateways".to_owned(),
            history: 1,
            max_value_size: i32::try_from(VALUE_MAX).expect("8 KiB"),
            num_replicas: self.replicas,
            limit_markers: Some(DELETED_FOR),
            ..kv::Config::default()
        };
        let created = tokio::time::timeout(WRITTEN_WITHIN, self.context.create_key_value(config));
        created.await.map_err(|_| late(WRITTEN_WITHIN))?.map_err(refused)?;
        tracing::info!(bucket = %self.bucket, "index: bucket created");
        Ok(())
    }

    async fn last<I>(
        &self,
        stream: &Stream<I>,
        subject: &str,
    ) -> Result<Option<StoreEntry>, StoreError> {
        match answer(stream.get_last_raw_message_by_subject(subject)).await? {
            Ok(message) => Ok(Some(StoreEntry {
                key: self.key(&message.subject),
                value: message.payload.into(),
                revision: message.sequence,
            })),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(refused(error)),
        }
    }

    fn key(&self, subject: &str) -> String {
        subject.strip_prefix(&self.subject("")).unwrap_or_default().to_owned()
    }

    async fn try_write(&self, changes: &[StoreChange]) -> Result<u64, StoreError> {
        let mut acknowledgements = Vec::new();
        for StoreChange { key, value, expires } in changes {
            let headers = write_headers(value.is_none(), *expires);
            let (subject, value) = (self.subject(key), value.clone().unwrap_or_default());
            let published = self.context.publish_with_headers(subject, headers, value.into());
            acknowledgements.push(published.await.map_err(refused)?);
        }
        let mut newest = 0;
        for acknowledgement in acknowledgements {
            newest = acknowledgement.await.map_err(refused)?.sequence;
        }
        Ok(newest)
    }
}

impl Store for Nats {
    async fn get(&self, key: &str) -> Result<Option<StoreEntry>, StoreError> {
        self.require_connection()?;
        let stream = self.context.get_stream_no_info(self.stream_name()).await.map_err(refused)?;
        self.last(&stream, &self.subject(key)).await
    }

    async fn list(&self, pattern: &str, most: usize) -> Result<Vec<StoreEntry>, StoreError> {
        let consumer = self.entries(pattern).await?;
        // A key that is written during the listing comes again.
        let mut entries = BTreeMap::new();
        if consumer.cached_info().num_pending == 0 {
            return Ok(Vec::new());
        }
        let mut messages = answer(consumer.messages()).await?.map_err(refused)?;
        loop {
            let message = answer(messages.next()).await?;
            let message = message.ok_or_else(|| refused("the listing ended early"))?;
            let message = message.map_err(refused)?;
            let info = message.info().map_err(refused)?;
            let (revision, pending) = (info.stream_sequence, info.pending);
            let key = self.key(&message.subject);
            if message.payload.is_empty() {
                entries.remove(&key);
            } else {
                let entry = StoreEntry::listed(key.clone(), &message.payload, revision);
                entries.insert(key, entry);
            }
            if pending == 0 || entries.len() == most {
                return Ok(entries.into_values().collect());
            }
        }
    }

    async fn write(&self, changes: &[StoreChange]) -> Result<u64, StoreError> {
        let written = tokio::time::timeout(WRITTEN_WITHIN, self.try_write(changes));
        written.await.map_err(|_| late(WRITTEN_WITHIN))?
    }

    async fn replace(
        &self,
        key: &str,
        value: Option<Vec<u8>>,
        revision: u64,
    ) -> Result<Option<u64>, StoreError> {
        self.require_connection()?;
        let mut headers = write_headers(value.is_none(), None);
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(revision));
        let (subject, value) = (self.subject(key), value.unwrap_or_default());
        let published = self.context.publish_with_headers(subject, headers, value.into());
        let published = answer(published).await?.map_err(refused)?;
        match answer(published.into_future()).await? {
            Ok(acknowledged) => Ok(Some(acknowledged.sequence)),
            Err(error) if is_other_revision(&error) => Ok(None),
            Err(error) => Err(refused(error)),
        }
    }

    async fn watch(&self, key: &str, changes: mpsc::Sender<StoreEntry>) -> Result<(), StoreError> {
        let consumer = self.entries(key).await?;
        let mut messages = answer(consumer.messages()).await?.map_err(refused)?;
        // The consumer is created again after a lost connection.
        while let Some(message) = messages.next().await {
            let message = message.map_err(refused)?;
            let revision = message.info().map_err(refused)?.stream_sequence;
            let key = self.key(&message.subject);
            let entry = StoreEntry::listed(key, &message.payload, revision);
            if changes.send(entry).await.is_err() {
                return Ok(());
            }
        }
        Err(refused("the watch ended early"))
    }

    async fn mark(&self, pattern: &str) -> Result<StoreMark, StoreError> {
        let stream = self.stream().await?;
        let info = stream.cached_info();
        let leader = info.cluster.as_ref().and_then(|cluster| cluster.leader.as_deref());
        // A server that was started again has another id.
        let server = self.client.server_info().server_id;
        let life = format!("{} {} {server}", info.created, leader.unwrap_or_default());
        let newest = self.last(&stream, &self.subject(pattern)).await?;
        Ok(StoreMark { life, newest: newest.map_or(0, |entry| entry.revision) })
    }
}

/// Connects again if a server sends much without a complete message. A server that does not read, or has not sent its greeting, is not
/// limited: the client takes no command then.
async fn limit_input(client: Client) {
    let statistics = client.statistics();
    let mut last = InputCounts::default();
    let mut count = tokio::time::interval(UNFINISHED_COUNTED_EVERY);
    count.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        count.tick().await;
        let counts = InputCounts {
            connections: statistics.connects.load(Ordering::Relaxed),
            messages: statistics.in_messages.load(Ordering::Relaxed),
            bytes: statistics.in_bytes.load(Ordering::Relaxed),
        };
        let is_connected = client.connection_state() == State::Connected;
        let goes_on = (counts.connections, counts.messages) == (last.connections, last.messages);
        if !is_connected || !goes_on {
            last = counts;
            continue;
        }
        let unfinished = counts.bytes - last.bytes;
        let message_max = client.server_info().max_payload as u64;
        if unfinished > UNFINISHED_MAX.max(2 * message_max.min(MESSAGE_MAX)) {
            tracing::warn!(
                bytes = unfinished,
                "index: the store sends no complete message; connecting again"
            );
            // Fails if the client has ended.
            let _ = client.force_reconnect().await;
            last = counts;
        }
    }
}

/// Counts of all connections so far.
#[derive(Default)]
struct InputCounts {
    connections: u64,
    messages: u64,
    bytes: u64,
}

fn write_headers(is_deletion: bool, expires: Option<Duration>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if is_deletion {
        headers.insert(OPERATION, "PURGE");
        headers.insert(NATS_ROLLUP, "sub");
    }
    if let Some(expires) = expires.or(is_deletion.then_some(DELETED_FOR)) {
        headers.insert(NATS_MESSAGE_TTL, expires.as_secs().to_string());
    }
    headers
}

/// A cluster has an error of its own while another write to the key is on its way.
fn is_other_revision(error: &PublishError) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<jetstream::Error>());
    let code = source.map(jetstream::Error::error_code);
    error.kind() == PublishErrorKind::WrongLastSequence
        || code == Some(ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT)
}

async fn answer<T>(asking: impl Future<Output = T>) -> Result<T, StoreError> {
    tokio::time::timeout(ANSWER_WITHIN, asking).await.map_err(|_| late(ANSWER_WITHIN))
}

fn late(within: Duration) -> StoreError {
    StoreError(format!("no answer within {within:?}"))
}

fn refused(error: impl Display) -> StoreError {
    StoreError(error.to_string())
}

fn unusable(error: impl Display) -> StoreError {
    StoreError(format!("unusable settings: {error}"))
}

fn text(secret: &[u8]) -> String {
    String::from_utf8_lossy(secret).into_owned()
}

fn reason(event: &Event) -> Option<String> {
    match event {
        Event::Disconnected => Some("the connection ended".to_owned()),
        Event::ServerError(error) => Some(error.to_string()),
        Event::ClientError(error) => Some(error.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(kind: PublishErrorKind, code: u64) -> PublishError {
        let error = format!(r#"{{"code": 400, "err_code": {code}, "description": "refused"}}"#);
        let error: jetstream::Error = serde_json::from_str(&error).unwrap();
        PublishError::with_source(kind, error)
    }

    #[test]
    fn both_errors_of_another_revision_are_known() {
        assert!(is_other_revision(&published(PublishErrorKind::WrongLastSequence, 10_071)));
        assert!(is_other_revision(&published(PublishErrorKind::Other, 10_164)));
        assert!(!is_other_revision(&published(PublishErrorKind::Other, 10_077)));
    }
}
