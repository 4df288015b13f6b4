//! One delivery to a webhook.

use std::time::Duration;

use evenkeel_http::{HttpClient, WebhookMessage};
use tokio::time::timeout;

/// Timeout of a delivery.
const POSTED_WITHIN: Duration = Duration::from_secs(5);

/// POSTs once. An error says why the receiver has not taken the message.
pub(crate) async fn post(client: &HttpClient, message: &WebhookMessage) -> Result<(), String> {
    match timeout(POSTED_WITHIN, client.post(message)).await {
        Ok(Ok(answer)) if (200..300).contains(&answer.status) => Ok(()),
        Ok(Ok(answer)) => Err(format!("status {}", answer.status)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_late) => Err(format!("no answer within {POSTED_WITHIN:?}")),
    }
}
