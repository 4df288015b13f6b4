//! Response bodies that are read chunk by chunk.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;

use super::{ApiCall, ApiClient, ApiResponse, ClientError};

/// A response that is read in pieces.
pub struct Download {
    body: Incoming,
    /// Keeps the connection open.
    _connection: ApiClient,
}

impl ApiClient {
    /// Reads a body of any type on a separate connection.
    pub async fn download(&self, path: &str) -> Result<Download, ClientError> {
        let mut own = self.another();
        let call = ApiCall { method: Method::GET, path, headers: &[], body: Bytes::new() };
        let response = own.send(&call).await?;
        if response.status().is_success() {
            return Ok(Download { body: response.into_body(), _connection: own });
        }
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        let refused = ApiResponse { status, headers: Vec::new(), body }.accepted();
        Err(refused
            .err()
            .unwrap_or_else(|| ClientError::Unreached(std::io::ErrorKind::InvalidData.into())))
    }
}

impl Download {
    /// Waits for the next chunk. Returns `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            let Some(frame) = self.body.frame().await.transpose()? else { return Ok(None) };
            if let Ok(bytes) = frame.into_data() {
                return Ok(Some(bytes));
            }
        }
    }
}
