//! The log line and the counters of an event, as its row in the list of events says.

use std::sync::{LazyLock, OnceLock};

use evenkeel_control::{GatewayEvent, NodeNames};
use evenkeel_model::{
    CoreEvent, Decider, EventRow, EventValue, ListedEvent, LogLevel, LogRow, PolicyName,
};
use tracing::callsite::{Callsite, Identifier};
use tracing::dispatcher::get_default;
use tracing::field::{FieldSet, Value, debug, display};
use tracing::level_filters::LevelFilter;
use tracing::metadata::Kind;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata};

use crate::instruments::Instruments;
use crate::registry::{Attribute, Count};
use crate::spans::Moment;

/// The target of the lines, by which a log filter selects them.
const TARGET: &str = "evenkeel_telemetry::recorder";

/// The rows of the core's events, by their number.
pub(super) static CORE_ROWS: LazyLock<Vec<RecordedRow>> = LazyLock::new(recorded::<CoreEvent>);

/// The rows of the gateway's events, by their number.
pub(super) static GATEWAY_ROWS: LazyLock<Vec<RecordedRow>> =
    LazyLock::new(recorded::<GatewayEvent>);

fn recorded<E: ListedEvent>() -> Vec<RecordedRow> {
    E::rows().iter().map(RecordedRow::new).collect()
}

/// A row with its callsite and its counters.
#[derive(Debug)]
pub(super) struct RecordedRow {
    line: Option<LogLine>,
    counts: Vec<(Count, Vec<Attribute>)>,
}

impl RecordedRow {
    fn new(row: &'static EventRow) -> RecordedRow {
        let line = row.log.as_ref().map(|row| LogLine { row, metadata: OnceLock::new() });
        let counts = row.counts.iter().map(|count| {
            let metric = Count::of_name(count.metric).expect("a test reads all rows");
            let labels = count.labels.iter().map(|label| {
                let is_it = |it: &&Attribute| it.key().strip_prefix("evenkeel.") == Some(label);
                *Attribute::ALL.iter().find(is_it).expect("a test reads all rows")
            });
            (metric, labels.collect())
        });
        RecordedRow { line, counts: counts.collect() }
    }

    /// Logs and counts an event of this row.
    pub(super) fn record(
        &'static self,
        event: &impl ListedEvent,
        instruments: &Instruments,
        names: &NodeNames,
        at: Moment,
    ) {
        if let Some(line) = &self.line {
            line.write(|| event.logged(), names, at);
        }
        if self.counts.is_empty() {
            return;
        }
        for ((metric, labels), (times, values)) in self.counts.iter().zip(event.counted()) {
            let texts: Vec<String> = values.iter().map(|it| label_text(it, names)).collect();
            let texts = texts.iter().map(String::as_str);
            let labels: Vec<(Attribute, &str)> = labels.iter().copied().zip(texts).collect();
            instruments.count(*metric, times, &labels);
        }
    }
}

fn label_text(value: &EventValue<'_>, names: &NodeNames) -> String {
    match value {
        // No label has so many values.
        EventValue::Absent | EventValue::Time(_) | EventValue::Since(_) => String::new(),
        EventValue::Number(number) => number.to_string(),
        EventValue::Flag(flag) => flag.to_string(),
        EventValue::Word(word) => word.to_string(),
        EventValue::Shown(shown) => shown.to_string(),
        EventValue::Node(node) => names.of_node(*node).node.to_string(),
        EventValue::Hop(hop) => names.of_hop(*hop).node.to_string(),
        EventValue::By(by) => decider_name(by),
    }
}

/// The decider without its revision, to bound the number of label values.
pub(super) fn decider_name(by: &Decider) -> String {
    match by {
        Decider::Policy { policy, .. } => PolicyName::to_string(policy),
        Decider::Native | Decider::Operator | Decider::Node => by.to_string(),
    }
}

/// The callsite of an event's log line. The macros of `tracing` need the names of the fields in the code.
#[derive(Debug)]
struct LogLine {
    row: &'static LogRow,
    /// Set before it is read: it refers to the callsite.
    metadata: OnceLock<Metadata<'static>>,
}

impl Callsite for LogLine {
    fn set_interest(&self, _: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        self.metadata.get().expect("set by the first line")
    }
}

impl LogLine {
    fn line_metadata(&'static self) -> &'static Metadata<'static> {
        let LogRow { level, message, fields } = *self.row;
        let level = match level {
            LogLevel::Debug => Level::DEBUG,
            LogLevel::Info => Level::INFO,
            LogLevel::Warn => Level::WARN,
        };
        let fields = FieldSet::new(fields, Identifier(self));
        self.metadata.get_or_init(|| {
            Metadata::new(message, TARGET, level, None, None, Some(TARGET), fields, Kind::EVENT)
        })
    }

    fn write<'a>(
        &'static self,
        values: impl Fn() -> Vec<EventValue<'a>>,
        names: &NodeNames,
        at: Moment,
    ) {
        let metadata = self.line_metadata();
        if *metadata.level() > LevelFilter::current() {
            return;
        }
        get_default(|lines| {
            if !lines.enabled(metadata) {
                return;
            }
            let message = Some(Box::new(display(self.row.message)) as Box<dyn Value>);
            let values = values();
            let values = values.iter().map(|value| field_value(value, names, at));
            let values: Vec<Option<Box<dyn Value + '_>>> =
                [message].into_iter().chain(values).collect();
            let values: Vec<Option<&dyn Value>> = values.iter().map(Option::as_deref).collect();
            lines.event(&Event::new(metadata, &metadata.fields().value_set_all(&values)));
        });
    }
}

fn field_value<'a>(
    value: &'a EventValue<'_>,
    names: &NodeNames,
    at: Moment,
) -> Option<Box<dyn Value + 'a>> {
    Some(match value {
        EventValue::Absent => return None,
        EventValue::Number(number) => Box::new(*number),
        EventValue::Flag(flag) => Box::new(*flag),
        EventValue::Word(word) => Box::new(&**word),
        EventValue::Shown(shown) => Box::new(display(shown)),
        EventValue::Time(time) => Box::new(debug(*time)),
        EventValue::Since(then) => Box::new(debug(at.now.saturating_duration_since(*then))),
        EventValue::Node(node) => Box::new(display(names.of_node(*node).node)),
        EventValue::Hop(hop) => Box::new(display(names.of_hop(*hop).node)),
        EventValue::By(by) => Box::new(display(*by)),
    })
}

#[cfg(test)]
mod tests;
