//! Grafana dashboards, made into `docs/dashboards/`.

use evenkeel_group::GroupRole;
use evenkeel_model::{BreakerState, Health};
use evenkeel_telemetry::registry::{Attribute, Count, Described, Histogram, Level};

/// Labels that a variable of a dashboard selects.
const SELECTED_LABELS: [Attribute; 3] = [Attribute::Node, Attribute::Scenario, Attribute::Policy];

/// A dashboard of Grafana.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dashboard {
    /// The name of its file: `fleet`.
    pub name: &'static str,
    /// As Grafana lists it.
    pub title: &'static str,
    /// In the order of the page.
    pub panels: Vec<DashboardPanel>,
}

/// A variable of a dashboard: the values of a label that its queries select.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DashboardVariable {
    /// `node`.
    pub name: &'static str,
    /// `evenkeel_node`.
    pub label: String,
    /// A series that has all values of the label.
    pub series: String,
}

/// A panel of a dashboard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DashboardPanel {
    /// Its heading.
    pub title: &'static str,
    /// The meaning of its metric.
    pub description: &'static str,
    /// The identifier of a unit in Grafana.
    pub unit: &'static str,
    /// How values are drawn.
    pub view: PanelView,
    /// At least one.
    pub queries: Vec<PanelQuery>,
}

/// How a panel draws values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PanelView {
    /// The last value as a number.
    Number,
    /// A curve for each series.
    Curves,
    /// Bars, for counts of rare events.
    Bars,
    /// A state over time for each series: the words of values from 0.
    States(Vec<&'static str>),
}

/// A query of a panel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PanelQuery {
    /// PromQL with Grafana's variables.
    pub expression: String,
    /// The name of each series, in Grafana's templates: `{{evenkeel_node}}`.
    pub legend: String,
}

impl Dashboard {
    /// The variables that its queries contain.
    pub fn variables(&self) -> Vec<DashboardVariable> {
        let by_instance = |name: String| format!("{name}{{instance=~\"$instance\"}}");
        let of = |attribute: Attribute, name: String| DashboardVariable {
            name: variable_name(attribute),
            label: attribute.prometheus_label(),
            series: by_instance(name),
        };
        let instance = DashboardVariable {
            name: "instance",
            label: "instance".to_owned(),
            series: level_name(Level::SessionsActive),
        };
        let all = [
            instance,
            of(Attribute::Node, level_name(Level::NodeHealth)),
            of(Attribute::Scenario, counter_name(Count::SessionsOpened)),
            of(Attribute::Policy, counter_name(Count::PolicyRollouts)),
        ];
        let queries = || self.panels.iter().flat_map(|panel| &panel.queries);
        let is_used = |variable: &DashboardVariable| {
            let selection = format!("\"${}\"", variable.name);
            queries().any(|query| query.expression.contains(&selection))
        };
        all.into_iter().filter(is_used).collect()
    }
}

impl DashboardPanel {
    /// The counter's increase in a second.
    fn rate(title: &'static str, metric: Count, by: &[Attribute]) -> DashboardPanel {
        let Described { doc, unit, .. } = metric.described();
        let unit = match unit {
            "By" => "Bps",
            "{packet}" => "pps",
            _ => "cps",
        };
        let queries = vec![grouped(title, "sum", by, &counter_over_interval("rate", metric))];
        DashboardPanel { title, description: doc, unit, view: PanelView::Curves, queries }
    }

    /// The counter's increase in each interval of the panel.
    fn events(title: &'static str, metric: Count, by: &[Attribute]) -> DashboardPanel {
        let description = metric.described().doc;
        let queries = vec![grouped(title, "sum", by, &counter_over_interval("increase", metric))];
        DashboardPanel { title, description, unit: "short", view: PanelView::Bars, queries }
    }

    /// The gauge, aggregated over gateways.
    fn level(
        title: &'static str,
        aggregation: &str,
        metric: Level,
        by: &[Attribute],
    ) -> DashboardPanel {
        let Described { doc, unit, .. } = metric.described();
        let queries = vec![grouped(title, aggregation, by, &selected_level(metric))];
        DashboardPanel {
            title,
            description: doc,
            unit: gauge_unit(unit),
            view: PanelView::Curves,
            queries,
        }
    }

    /// The gauge of each gateway.
    fn of_instances(title: &'static str, metric: Level) -> DashboardPanel {
        let Described { doc, unit, .. } = metric.described();
        let (expression, legend) = (selected_level(metric), "{{instance}}".to_owned());
        let queries = vec![PanelQuery { expression, legend }];
        DashboardPanel {
            title,
            description: doc,
            unit: gauge_unit(unit),
            view: PanelView::Curves,
            queries,
        }
    }

    /// Quantiles of the histogram.
    fn quantiles(
        title: &'static str,
        metric: Histogram,
        quantiles: &[f64],
        by: &[Attribute],
    ) -> DashboardPanel {
        let metric = metric.described();
        let name = metric.prometheus_name() + "_bucket";
        let buckets = format!("rate({}[$__rate_interval])", selected(&name, metric));
        let labels: String =
            by.iter().map(|label| format!(", {}", label.prometheus_label())).collect();
        let query = |quantile: &f64| PanelQuery {
            expression: format!("histogram_quantile({quantile}, sum by (le{labels}) ({buckets}))"),
            legend: format!("p{} {}", quantile * 100.0, legend(by)).trim_end().to_owned(),
        };
        DashboardPanel {
            title,
            description: metric.doc,
            unit: gauge_unit(metric.unit),
            view: PanelView::Curves,
            queries: quantiles.iter().map(query).collect(),
        }
    }

    fn viewed_as(self, view: PanelView) -> DashboardPanel {
        DashboardPanel { view, ..self }
    }
}

/// All dashboards.
pub fn dashboards() -> [Dashboard; 5] {
    [fleet(), node(), scenario(), group(), policies()]
}

fn fleet() -> Dashboard {
    let nodes_down = {
        let (health, down) = (selected_level(Level::NodeHealth), Health::Down as u32);
        let node = Attribute::Node.prometheus_label();
        let expression = format!("count(count by ({node}) ({health} == {down})) or vector(0)");
        let title = "Nodes down";
        DashboardPanel {
            title,
            description: "Nodes that a gateway has marked down.",
            unit: "short",
            view: PanelView::Number,
            queries: vec![PanelQuery { expression, legend: title.to_owned() }],
        }
    };
    // Each process on a host counts the same drops, and hosts have interfaces of the same names.
    let interface_drops = {
        let legend = format!("{{{{instance}}}} {}", legend(&[Attribute::Interface]));
        let expression = counter_over_interval("rate", Count::HostDrops);
        let panel = DashboardPanel::rate("Packets dropped by interfaces", Count::HostDrops, &[]);
        DashboardPanel { queries: vec![PanelQuery { expression, legend }], ..panel }
    };
    let panels = vec![
        DashboardPanel::level("Open sessions", "sum", Level::SessionsActive, &[])
            .viewed_as(PanelView::Number),
        nodes_down,
        DashboardPanel::level("Rooms without a spare", "sum", Level::RoomsUnprotected, &[])
            .viewed_as(PanelView::Number),
        DashboardPanel::level("Sessions that a loss strands", "max", Level::LossUnplaced, &[])
            .viewed_as(PanelView::Number),
        DashboardPanel::level("Sessions", "sum", Level::ScenarioSessions, &[Attribute::Scenario]),
        DashboardPanel::rate("Sessions opened", Count::SessionsOpened, &[Attribute::Scenario]),
        DashboardPanel::rate("Sessions closed", Count::SessionsClosed, &[Attribute::Reason]),
        DashboardPanel::rate("Offers refused", Count::SessionsRefused, &[Attribute::Reason]),
        DashboardPanel::level(
            "Error budget left",
            "min",
            Level::SloBudget,
            &[Attribute::Scenario, Attribute::Slo],
        ),
        DashboardPanel::quantiles("Time to open", Histogram::SessionOpen, &[0.5, 0.99], &[]),
        DashboardPanel::quantiles(
            "Time of moves",
            Histogram::RoomMove,
            &[0.5, 0.99],
            &[Attribute::Cause],
        ),
        DashboardPanel::rate("Media traffic", Count::Bytes, &[Attribute::Direction]),
        DashboardPanel::rate("Media packets", Count::Packets, &[Attribute::Direction]),
        DashboardPanel::rate("Packets dropped", Count::PacketsDropped, &[Attribute::Reason]),
        DashboardPanel::events("Rooms moved", Count::RoomsMoved, &[Attribute::Cause]),
        DashboardPanel::events("Rooms stranded", Count::RoomsStranded, &[Attribute::Cause]),
        DashboardPanel::events("Event-loop stalls", Count::OwnStalls, &[]),
        DashboardPanel::level("Region breakers", "max", Level::RegionBreaker, &[Attribute::Region])
            .viewed_as(PanelView::States(BreakerState::ALL.map(BreakerState::name).to_vec())),
        DashboardPanel::level(
            "Breakers of providers",
            "max",
            Level::ProviderBreaker,
            &[Attribute::Provider],
        )
        .viewed_as(PanelView::States(BreakerState::ALL.map(BreakerState::name).to_vec())),
        DashboardPanel::of_instances("Uplink suspect", Level::UplinkSuspect)
            .viewed_as(PanelView::States(vec!["no", "yes"])),
        DashboardPanel::level(
            "Capacity left",
            "min",
            Level::ZoneCapacityLeft,
            &[Attribute::Region, Attribute::Zone],
        ),
        DashboardPanel::of_instances("Steal time of the host", Level::HostSteal),
        DashboardPanel::of_instances("Memory available on the host", Level::HostMemory),
        DashboardPanel::of_instances("Disk free", Level::HostDisk),
        DashboardPanel::of_instances("Ports left on the host", Level::HostPorts),
        DashboardPanel::of_instances("Descriptors left", Level::ProcessDescriptors),
        interface_drops,
    ];
    Dashboard { name: "fleet", title: "Evenkeel: fleet", panels }
}

fn node() -> Dashboard {
    const NODE: &[Attribute] = &[Attribute::Node];
    let panels = vec![
        DashboardPanel::level("Health", "max", Level::NodeHealth, NODE)
            .viewed_as(PanelView::States(Health::ALL.map(Health::name).to_vec())),
        DashboardPanel::level("Drained", "max", Level::NodeDraining, NODE)
            .viewed_as(PanelView::States(vec!["no", "yes"])),
        DashboardPanel::level("Rooms", "sum", Level::NodeRooms, NODE),
        DashboardPanel::level("Sessions", "sum", Level::NodeSessions, NODE),
        DashboardPanel::level("Load", "max", Level::NodeLoad, NODE),
        DashboardPanel::level("Measured capacity", "max", Level::NodeCapacity, NODE),
        DashboardPanel::level("Round trip", "max", Level::NodeRoundTrip, NODE),
        DashboardPanel::level("Loss of probes", "max", Level::NodeLoss, NODE),
        DashboardPanel::events("Failures", Count::NodeFailures, NODE),
        DashboardPanel::events(
            "Witnesses against nodes",
            Count::NodeWitnesses,
            &[Attribute::Node, Attribute::Witness],
        ),
        DashboardPanel::quantiles("Time to detection", Histogram::Detection, &[0.5, 0.99], NODE),
        DashboardPanel::events(
            "Hops removed",
            Count::HopsRemoved,
            &[Attribute::Node, Attribute::Reason],
        ),
        DashboardPanel::events("Starts", Count::NodeStarts, &[Attribute::Node, Attribute::Outcome]),
        DashboardPanel::quantiles("Time to start", Histogram::NodeStart, &[0.5, 0.99], NODE),
        DashboardPanel::events("Stops", Count::NodeStops, &[Attribute::Node, Attribute::Outcome]),
        DashboardPanel::rate("Messages refused", Count::NodeMessagesRefused, &[Attribute::Reason]),
    ];
    Dashboard { name: "node", title: "Evenkeel: nodes", panels }
}

fn scenario() -> Dashboard {
    const SCENARIO: &[Attribute] = &[Attribute::Scenario];
    const BY_DIRECTION: &[Attribute] = &[Attribute::Scenario, Attribute::Direction];
    const BY_SEGMENT: &[Attribute] = &[Attribute::Scenario, Attribute::Segment];
    const BY_REASON: &[Attribute] = &[Attribute::Scenario, Attribute::Reason];
    const BY_CAUSE: &[Attribute] = &[Attribute::Scenario, Attribute::Cause];
    const BY_REPAIR: &[Attribute] = &[Attribute::Scenario, Attribute::Direction, Attribute::Repair];
    const BY_RUNG: &[Attribute] = &[Attribute::Scenario, Attribute::Rung];
    let panels = vec![
        DashboardPanel::level("Sessions", "sum", Level::ScenarioSessions, SCENARIO),
        DashboardPanel::level("Degraded sessions", "sum", Level::ScenarioDegraded, BY_RUNG),
        DashboardPanel::rate("Sessions opened", Count::SessionsOpened, SCENARIO),
        DashboardPanel::rate("Sessions closed", Count::SessionsClosed, BY_REASON),
        DashboardPanel::rate("Offers refused", Count::SessionsRefused, BY_REASON),
        DashboardPanel::quantiles("Time to open", Histogram::SessionOpen, &[0.5, 0.99], SCENARIO),
        DashboardPanel::quantiles("R-factor", Histogram::SessionR, &[0.05, 0.5], SCENARIO),
        DashboardPanel::quantiles("Loss", Histogram::SessionLoss, &[0.95], BY_DIRECTION),
        DashboardPanel::quantiles("Jitter", Histogram::SessionJitter, &[0.95], BY_DIRECTION),
        DashboardPanel::rate("Media packets", Count::ScenarioPackets, BY_DIRECTION),
        DashboardPanel::rate("Media traffic", Count::ScenarioBytes, BY_DIRECTION),
        DashboardPanel::rate("Copies in mode hitless", Count::ScenarioCopied, SCENARIO),
        DashboardPanel::rate("Packets lost", Count::ScenarioLost, BY_DIRECTION),
        DashboardPanel::rate("Repair traffic", Count::ScenarioRepairBytes, BY_REPAIR),
        DashboardPanel::events("Sessions moved", Count::SessionsMoved, BY_CAUSE),
        DashboardPanel::quantiles("Gap heard", Histogram::SessionGap, &[0.5, 0.99], SCENARIO),
        DashboardPanel::events("Freezes", Count::SessionFreezes, SCENARIO),
        DashboardPanel::level("Impaired sessions", "sum", Level::ScenarioImpaired, BY_SEGMENT),
        DashboardPanel::events("Impairments", Count::Impairments, BY_SEGMENT),
        DashboardPanel::level(
            "Burn rate of error budgets",
            "max",
            Level::SloBurnRate,
            &[Attribute::Scenario, Attribute::Slo, Attribute::Window],
        ),
        DashboardPanel::level(
            "Error budget left",
            "min",
            Level::SloBudget,
            &[Attribute::Scenario, Attribute::Slo],
        ),
    ];
    Dashboard { name: "scenario", title: "Evenkeel: scenarios", panels }
}

fn group() -> Dashboard {
    let panels = vec![
        DashboardPanel::of_instances("Role", Level::GroupRole)
            .viewed_as(PanelView::States(GroupRole::ALL.map(GroupRole::name).to_vec())),
        DashboardPanel::of_instances("Lost redundancy", Level::GroupWarnings),
        DashboardPanel::of_instances("Failures of the rehearsal", Level::GroupUnready),
        DashboardPanel::of_instances("Lag of the standby", Level::GroupLag),
        DashboardPanel::quantiles(
            "Time of takeovers",
            Histogram::Takeover,
            &[0.5, 0.99],
            &[Attribute::Phase],
        ),
        DashboardPanel::of_instances("Sessions", Level::SessionsActive),
        DashboardPanel::events("Refusals", Count::ClusterRefused, &[Attribute::Reason]),
        DashboardPanel::rate("Requests relayed", Count::ApiRelayed, &[Attribute::Outcome]),
        DashboardPanel::events("Tokens refused", Count::ApiTokensRefused, &[Attribute::Reason]),
        DashboardPanel::of_instances("Shared index current", Level::IndexCurrent)
            .viewed_as(PanelView::States(vec!["no", "yes"])),
        DashboardPanel::events("Failed writes to the shared index", Count::IndexFailures, &[]),
        DashboardPanel::events("Entries of the shared index repaired", Count::IndexRepairs, &[]),
        DashboardPanel::events("Rooms at two groups", Count::IndexDuplicates, &[]),
    ];
    Dashboard { name: "group", title: "Evenkeel: groups", panels }
}

fn policies() -> Dashboard {
    const POLICY: &[Attribute] = &[Attribute::Policy];
    const BY_FAULT: &[Attribute] = &[Attribute::Policy, Attribute::Fault];
    const BY_OUTCOME: &[Attribute] = &[Attribute::Policy, Attribute::Outcome];
    let panels = vec![
        DashboardPanel::level("Stage of rollouts", "max", Level::PolicyStage, POLICY)
            .viewed_as(PanelView::States(vec!["none", "shadow", "canary"])),
        DashboardPanel::level("Failing", "max", Level::PolicyFailing, POLICY)
            .viewed_as(PanelView::States(vec!["no", "yes"])),
        DashboardPanel::level(
            "Revisions",
            "max",
            Level::PolicyRevision,
            &[Attribute::Policy, Attribute::Arm, Attribute::Revision],
        ),
        DashboardPanel::level("Share of canaries", "max", Level::PolicyCanary, POLICY),
        DashboardPanel::events("Steps of rollouts", Count::PolicyRollouts, BY_OUTCOME),
        DashboardPanel::rate("Calls", Count::PolicyCalls, BY_OUTCOME),
        DashboardPanel::quantiles("Time of calls", Histogram::PolicyCall, &[0.5, 0.99], POLICY),
        DashboardPanel::rate("Faults", Count::PolicyFaults, BY_FAULT),
        DashboardPanel::events("Quarantined", Count::PolicyQuarantined, BY_FAULT),
        DashboardPanel::rate(
            "Rejected by guards",
            Count::PolicyGuarded,
            &[Attribute::Policy, Attribute::Guard],
        ),
        DashboardPanel::rate("Other than the native default", Count::PolicyDiffers, POLICY),
        DashboardPanel::events(
            "Plugins refused",
            Count::PolicyRefusals,
            &[Attribute::Policy, Attribute::Reason],
        ),
        DashboardPanel::quantiles(
            "Time to activation",
            Histogram::PolicyActivate,
            &[0.5, 0.99],
            POLICY,
        ),
    ];
    Dashboard { name: "policies", title: "Evenkeel: policies", panels }
}

fn counter_name(metric: Count) -> String {
    metric.described().prometheus_name() + "_total"
}

fn level_name(metric: Level) -> String {
    metric.described().prometheus_name()
}

/// `node` of `evenkeel.node`.
fn variable_name(attribute: Attribute) -> &'static str {
    attribute.key().strip_prefix("evenkeel.").unwrap_or(attribute.key())
}

/// The series that the dashboard's variables select.
fn selected(name: &str, metric: Described) -> String {
    let labels = SELECTED_LABELS.iter().filter(|label| metric.attributes.contains(label));
    let matchers = labels
        .map(|label| format!(", {}=~\"${}\"", label.prometheus_label(), variable_name(*label)));
    format!("{name}{{instance=~\"$instance\"{}}}", matchers.collect::<String>())
}

fn selected_level(metric: Level) -> String {
    selected(&level_name(metric), metric.described())
}

fn counter_over_interval(function: &str, metric: Count) -> String {
    let series = selected(&counter_name(metric), metric.described());
    format!("{function}({series}[$__rate_interval])")
}

/// A query that aggregates series by labels; without labels its only series has the panel's title.
fn grouped(title: &str, aggregation: &str, by: &[Attribute], series: &str) -> PanelQuery {
    let labels: Vec<String> = by.iter().map(|label| label.prometheus_label()).collect();
    let expression = format!("{aggregation} by ({}) ({series})", labels.join(", "));
    let legend = if by.is_empty() { title.to_owned() } else { legend(by) };
    PanelQuery { expression, legend }
}

fn legend(by: &[Attribute]) -> String {
    let labels = by.iter().map(|label| format!("{{{{{}}}}}", label.prometheus_label()));
    labels.collect::<Vec<_>>().join(" ")
}

/// Grafana's identifier of a UCUM unit.
fn gauge_unit(ucum: &str) -> &'static str {
    match ucum {
        "By" => "bytes",
        "By/s" => "Bps",
        "s" => "s",
        "%" => "percent",
        "1" => "percentunit",
        _ => "short",
    }
}
