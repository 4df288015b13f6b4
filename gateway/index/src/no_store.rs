//! The store of a build without NATS, which no configuration names.

use evenkeel_config::IndexSettings;
use tokio::sync::mpsc;

use super::store::{Store, StoreChange, StoreEntry, StoreError, StoreMark};

#[derive(Clone)]
pub(super) struct Nats;

fn absent<T>() -> Result<T, StoreError> {
    Err(StoreError("this build has no NATS".to_owned()))
}

impl Nats {
    pub(super) async fn connect(_: &IndexSettings) -> Result<Nats, StoreError> {
        absent()
    }
}

impl Store for Nats {
    async fn get(&self, _: &str) -> Result<Option<StoreEntry>, StoreError> {
        absent()
    }

    async fn list(&self, _: &str, _: usize) -> Result<Vec<StoreEntry>, StoreError> {
        absent()
    }

    async fn write(&self, _: &[StoreChange]) -> Result<u64, StoreError> {
        absent()
    }

    async fn replace(
        &self,
        _: &str,
        _: Option<Vec<u8>>,
        _: u64,
    ) -> Result<Option<u64>, StoreError> {
        absent()
    }

    async fn watch(&self, _: &str, _: mpsc::Sender<StoreEntry>) -> Result<(), StoreError> {
        absent()
    }

    async fn mark(&self, _: &str) -> Result<StoreMark, StoreError> {
        absent()
    }
}
