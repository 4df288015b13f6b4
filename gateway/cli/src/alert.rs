//! `evenkeel alert`: alerts that the gateway sends itself.

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use evenkeel_client::escape;
use evenkeel_contract::alerts::{Alert, AlertList, AlertReceiver};
use evenkeel_process::unix_us;

use crate::command::{ApiArgs, CommandError, print_done, say, typed};
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
    pub(crate) fn run(self) -> Result<(), CommandError> {
        match self.verb {
            AlertCommand::List => {
                let answer = self.api.read("/v1/alerts")?;
                if self.json {
                    say(&answer);
                    return Ok(());
                }
                let now_us = unix_us(SystemTime::now());
                let AlertList { alerts, receivers } = typed(&answer)?;
                for alert in &alerts {
                    say(&alert_line(alert, now_us));
                }
                receivers.iter().filter_map(receiver_line).for_each(|it| say(&it));
            }
            AlertCommand::Acknowledge { name } => {
                let path = format!("/v1/alerts/{}:acknowledge", escape(&name));
                self.api.post(&path, &())?;
                print_done(self.json, format!("{name} is acknowledged: it is not escalated"));
            }
        }
        Ok(())
    }
}

fn alert_line(alert: &Alert, now_us: u64) -> String {
    let ago = Duration::from_micros(now_us.saturating_sub(alert.since_us));
    let acknowledged = match (alert.acknowledged, &alert.acknowledged_by) {
        (true, Some(by)) => format!(", acknowledged by {by}"),
        (true, None) => ", acknowledged".to_owned(),
        (false, _) => String::new(),
    };
    let inhibited = if alert.inhibited { ", explained by another" } else { "" };
    let Alert { severity, alert, summary, .. } = alert;
    format!("{severity:<7} {alert:<28} {summary}, for {}{acknowledged}{inhibited}", spell(ago),)
}

/// A receiver that does not take alerts.
fn receiver_line(receiver: &AlertReceiver) -> Option<String> {
    let AlertReceiver { receiver: name, failures, waiting } = receiver;
    (*failures > 0).then(|| {
        format!("receiver {name} fails: {failures} attempts, {waiting} alerts wait for it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alert_shows_who_acknowledged_it() {
        let mut alert = Alert {
            alert: "EvenkeelNodeDown".into(),
            severity: "ticket".into(),
            summary: "node a1 is down".to_owned(),
            since_us: 1_000_000,
            ..Alert::default()
        };
        let line = alert_line(&alert, 61_000_000);
        assert!(line.starts_with("ticket  EvenkeelNodeDown"), "{line}");
        assert!(
            line.contains(" node a1 is down, for ") && !line.contains("acknowledged"),
            "{line}"
        );
        alert.acknowledged = true;
        assert!(alert_line(&alert, 0).ends_with(", acknowledged"));
        alert.acknowledged_by = Some("ann".into());
        assert!(alert_line(&alert, 0).ends_with(", acknowledged by ann"));
        alert.inhibited = true;
        assert!(alert_line(&alert, 0).ends_with(", explained by another"));
    }

    #[test]
    fn receiver_is_shown_if_it_fails() {
        let receiver = |failures| AlertReceiver { receiver: "ops".into(), failures, waiting: 2 };
        assert_eq!(receiver_line(&receiver(0)), None);
        let right = "receiver ops fails: 3 attempts, 2 alerts wait for it";
        assert_eq!(receiver_line(&receiver(3)).as_deref(), Some(right));
    }
}
