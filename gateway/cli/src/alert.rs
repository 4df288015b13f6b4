//! `evenkeel alert`: alerts that the gateway sends itself.

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use evenkeel_client::escape;
use evenkeel_process::unix_us;
use serde_json::Value;

use crate::command::{ApiArgs, CommandError, number, print_done, rows, say, text};
use crate::status::spell;

/// List and acknowledge alerts that the gateway sends without Prometheus
#[derive(Args)]
pub(crate) struct AlertArgs {
    #[command(subcommand)]
    verb: AlertCommand,
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON: `list` as in the API, `acknowledge` as `{"done": true}`
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
enum AlertCommand {
    /// List alerts that fire, the most urgent first, and receivers that fail. In a group those of the owner
    List,
    /// Acknowledge the alerts of a name that fire now, so that they are not escalated. Alerts of the name that begin later are new ones
    #[command(verbatim_doc_comment)]
    Acknowledge {
        /// The name of the alert: `EvenkeelNodeDown`
        name: String,
    },
}

impl AlertArgs {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        match self.verb {
            AlertCommand::List => {
                let answer = self.api.read("/v1/alerts")?;
                if self.json {
                    say(&answer);
                    return Ok(());
                }
                let now_us = unix_us(SystemTime::now());
                for alert in rows(&answer, "alerts") {
                    say(&alert_line(alert, now_us));
                }
                rows(&answer, "receivers").iter().filter_map(receiver_line).for_each(|it| say(&it));
            }
            AlertCommand::Acknowledge { name } => {
                let path = format!("/v1/alerts/{}:acknowledge", escape(&name));
                self.api.post(&path, &Value::Null)?;
                print_done(self.json, format!("{name} is acknowledged: it is not escalated"));
            }
        }
        Ok(())
    }
}

fn alert_line(alert: &Value, now_us: u64) -> String {
    let ago = Duration::from_micros(now_us.saturating_sub(number(alert, "since_us")));
    let acknowledged = match (alert["acknowledged"].as_bool(), &alert["acknowledged_by"]) {
        (Some(true), Value::String(by)) => format!(", acknowledged by {by}"),
        (Some(true), _) => ", acknowledged".to_owned(),
        _ => String::new(),
    };
    let inhibited = if alert["inhibited"] == true { ", explained by another" } else { "" };
    format!(
        "{:<7} {:<28} {}, for {}{acknowledged}{inhibited}",
        text(alert, "severity"),
        text(alert, "alert"),
        text(alert, "summary"),
        spell(ago),
    )
}

/// A receiver that does not take alerts.
fn receiver_line(receiver: &Value) -> Option<String> {
    let (failures, waiting) = (number(receiver, "failures"), number(receiver, "waiting"));
    let name = text(receiver, "receiver");
    (failures > 0).then(|| {
        format!("receiver {name} fails: {failures} attempts, {waiting} alerts wait for it")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn alert_shows_who_acknowledged_it() {
        let mut alert = json!({
            "alert": "EvenkeelNodeDown", "severity": "ticket", "summary": "node a1 is down",
            "since_us": 1_000_000, "acknowledged": false, "acknowledged_by": null, "inhibited": false,
        });
        let line = alert_line(&alert, 61_000_000);
        assert!(line.starts_with("ticket  EvenkeelNodeDown"), "{line}");
        assert!(
            line.contains(" node a1 is down, for ") && !line.contains("acknowledged"),
            "{line}"
        );
        alert["acknowledged"] = json!(true);
        assert!(alert_line(&alert, 0).ends_with(", acknowledged"));
        alert["acknowledged_by"] = json!("ann");
        assert!(alert_line(&alert, 0).ends_with(", acknowledged by ann"));
        alert["inhibited"] = json!(true);
        assert!(alert_line(&alert, 0).ends_with(", explained by another"));
    }

    #[test]
    fn receiver_is_shown_if_it_fails() {
        let receiver = |failures| json!({"receiver": "ops", "failures": failures, "waiting": 2});
        assert_eq!(receiver_line(&receiver(0)), None);
        let right = "receiver ops fails: 3 attempts, 2 alerts wait for it";
        assert_eq!(receiver_line(&receiver(3)).as_deref(), Some(right));
    }
}
