//! Request bodies: each up to the limit of its path, all together up to a budget.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt;
use tokio::sync::Notify;

use super::error::{ApiError, ApiErrorCode};

/// Retry time of a body for which there was no memory.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Bytes of bodies that are held at the same time. A body counts from its first byte until its request is answered.
/// If the budget is exhausted, the oldest body that is still arriving is refused.
pub(super) struct BodyBudget {
    bytes_max: usize,
    state: Mutex<BudgetState>,
}

#[derive(Default)]
struct BudgetState {
    bytes: usize,
    /// By age.
    shares: BTreeMap<u64, ArrivingBody>,
    ever: u64,
}

struct ArrivingBody {
    bytes: usize,
    /// Notified when the body gives way; `None` once it is complete.
    arriving: Option<Arc<Notify>>,
}

/// A body's part of the budget, returned when dropped.
pub(super) struct Share {
    budget: Arc<BodyBudget>,
    number: u64,
    displaced: Arc<Notify>,
}

/// A complete body.
pub(super) struct BufferedBody {
    bytes: Vec<u8>,
    share: Share,
}

impl BodyBudget {
    pub(super) fn new(bytes_max: usize) -> Arc<BodyBudget> {
        Arc::new(BodyBudget { bytes_max, state: Mutex::default() })
    }

    /// Reads a body of at most `most` bytes.
    pub(super) async fn read(
        self: &Arc<BodyBudget>,
        mut body: Body,
        most: usize,
    ) -> Result<BufferedBody, ApiError> {
        let too_large = || {
            ApiError::new(ApiErrorCode::TooLarge, format!("the body is larger than {most} bytes"))
        };
        let (share, mut bytes) = (self.share(), Vec::<u8>::new());
        loop {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                () = share.displaced.notified() => return Err(self.exhausted()),
            };
            let Some(frame) = frame else { break };
            let broken = |error| {
                ApiError::new(ApiErrorCode::BadRequest, format!("cannot read the body: {error}"))
            };
            // Trailers are ignored.
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            let length = bytes.len() + data.len();
            if length > most {
                return Err(too_large());
            }
            let capacity = bytes.capacity();
            if length > capacity {
                let grown = length.max(2 * capacity).min(most);
                share.grow(grown - capacity)?;
                bytes.reserve_exact(grown - bytes.len());
            }
            bytes.extend_from_slice(&data);
        }
        share.complete()?;
        Ok(BufferedBody { bytes, share })
    }

    fn share(self: &Arc<BodyBudget>) -> Share {
        let displaced = Arc::new(Notify::new());
        let mut state = self.lock();
        state.ever += 1;
        let number = state.ever;
        let entry = ArrivingBody { bytes: 0, arriving: Some(Arc::clone(&displaced)) };
        state.shares.insert(number, entry);
        Share { budget: Arc::clone(self), number, displaced }
    }

    fn exhausted(&self) -> ApiError {
        let mib = self.bytes_max >> 20;
        let message = format!("request bodies have reached their limit of {mib} MiB in all; retry");
        ApiError::new(ApiErrorCode::Unavailable, message).retry_after(RETRY_AFTER)
    }

    fn lock(&self) -> MutexGuard<'_, BudgetState> {
        // A poisoned lock is usable: no update leaves the state inconsistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BudgetState {
    fn end(&mut self, number: u64) -> Option<ArrivingBody> {
        let entry = self.shares.remove(&number)?;
        self.bytes -= entry.bytes;
        Some(entry)
    }
}

impl Share {
    /// Adds bytes to the share. Fails if this body gave way, or is the oldest that can.
    fn grow(&self, bytes: usize) -> Result<(), ApiError> {
        let mut state = self.budget.lock();
        if !state.shares.contains_key(&self.number) {
            return Err(self.budget.exhausted());
        }
        while state.bytes + bytes > self.budget.bytes_max {
            let arriving = state.shares.iter().find(|(_, entry)| entry.arriving.is_some());
            let oldest = arriving.map(|(number, _)| *number).filter(|it| *it != self.number);
            let Some(entry) = oldest.and_then(|oldest| state.end(oldest)) else {
                return Err(self.budget.exhausted());
            };
            if let Some(displaced) = entry.arriving {
                displaced.notify_one();
            }
        }
        state.bytes += bytes;
        if let Some(entry) = state.shares.get_mut(&self.number) {
            entry.bytes += bytes;
        }
        Ok(())
    }

    /// Keeps the share until it is dropped. Fails if this body gave way before.
    fn complete(&self) -> Result<(), ApiError> {
        match self.budget.lock().shares.get_mut(&self.number) {
            Some(entry) => {
                entry.arriving = None;
                Ok(())
            }
            None => Err(self.budget.exhausted()),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.lock().end(self.number);
    }
}

impl BufferedBody {
    pub(super) fn into_parts(self) -> (Vec<u8>, Share) {
        (self.bytes, self.share)
    }
}

impl Deref for BufferedBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests;
