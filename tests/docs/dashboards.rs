//! `docs/dashboards/`: the files are made from the registry, and have the fields that Grafana reads.
//!
//! Grafana publishes no JSON schema of these files, so these tests check the fields by hand, and `tests/interop/promql.rs` runs
//! the queries in Prometheus.

use std::collections::BTreeSet;
use std::fs;

use evenkeel_tests::dashboards::{
    Dashboard, DashboardPanel, DashboardVariable, PanelView, dashboards,
};
use serde_json::{Value, json};

use crate::page::{Page, root};
use crate::telemetry::RENEW;

const FOLDER: &str = "docs/dashboards";

/// Columns of a dashboard.
const COLUMNS: u64 = 24;

#[test]
fn dashboards_equal_the_registry() {
    let made = dashboards();
    for dashboard in &made {
        let path = format!("{FOLDER}/{}.json", dashboard.name);
        let text = serde_json::to_string_pretty(&file(dashboard)).unwrap() + "\n";
        if std::env::var_os(RENEW).is_some() {
            fs::create_dir_all(root().join(FOLDER)).unwrap();
            fs::write(root().join(path), text).unwrap();
            continue;
        }
        let is_new = fs::read_to_string(root().join(&path)).is_ok_and(|found| found == text);
        assert!(is_new, "{path} is not what the registry says; run `make reference`");
    }
    let names: BTreeSet<String> = made.iter().map(|it| it.name.to_owned()).collect();
    assert_eq!(Page::read("docs/telemetry.md").names_under("## Dashboards"), names);
}

#[test]
fn dashboard_panels_fit_and_use_all_variables() {
    let mut uids = BTreeSet::new();
    for dashboard in dashboards() {
        let name = dashboard.name;
        let text = fs::read_to_string(root().join(format!("{FOLDER}/{name}.json"))).unwrap();
        let file: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(file["schemaVersion"], 39, "{name}");
        assert!(uids.insert(file["uid"].as_str().unwrap().to_owned()), "{name}");
        let variables: Vec<&Value> =
            file["templating"]["list"].as_array().unwrap().iter().collect();
        assert_eq!(variables[0]["type"], "datasource", "{name}");
        let known: BTreeSet<&str> =
            variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
        let mut used = BTreeSet::from(["datasource"]);
        let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
        for panel in file["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: {title}: id");
            let [x, y, width, height] =
                ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
            assert!(x + width <= COLUMNS && width * height > 0, "{name}: {title}: place");
            for cell in (x..x + width).flat_map(|x| (y..y + height).map(move |y| (x, y))) {
                assert!(cells.insert(cell), "{name}: {title} overlaps another panel");
            }
            let targets = panel["targets"].as_array().unwrap();
            let mut references = BTreeSet::new();
            for target in targets {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{name}: {title}");
                assert!(references.insert(target["refId"].as_str().unwrap()), "{name}: {title}");
                let expression = target["expr"].as_str().unwrap();
                used.extend(
                    expression.split("\"$").skip(1).map(|it| it.split('"').next().unwrap()),
                );
            }
            assert!(!targets.is_empty(), "{name}: {title}");
        }
        assert_eq!(used, known, "{name}: left, the variables in queries; right, those declared");
    }
}

/// The dashboard as Grafana 10 and 11 import it: schema 39.
fn file(dashboard: &Dashboard) -> Value {
    let datasource = json!({
        "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
        "refresh": 1, "regex": "", "hide": 0, "includeAll": false, "multi": false,
        "current": {}, "options": [],
    });
    let variables = dashboard.variables();
    let variables: Vec<Value> =
        std::iter::once(datasource).chain(variables.iter().map(variable)).collect();
    json!({
        "uid": format!("evenkeel-{}", dashboard.name),
        "title": dashboard.title,
        "tags": ["evenkeel"],
        "schemaVersion": 39,
        "version": 1,
        "editable": true,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": { "from": "now-1h", "to": "now" },
        "timezone": "browser",
        "annotations": { "list": [] },
        "links": [{
            "type": "dashboards", "title": "Evenkeel", "tags": ["evenkeel"], "asDropdown": true,
            "includeVars": true, "keepTime": true, "targetBlank": false, "icon": "external link",
            "tooltip": "", "url": "",
        }],
        "templating": { "list": variables },
        "panels": panels(&dashboard.panels),
    })
}

fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

fn variable(variable: &DashboardVariable) -> Value {
    let query = format!("label_values({}, {})", variable.series, variable.label);
    json!({
        "name": variable.name, "type": "query", "datasource": source(), "definition": query,
        "query": {
            "qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery",
        },
        "refresh": 2, "regex": "", "sort": 1, "hide": 0, "includeAll": true, "multi": true,
        "allValue": ".*", "current": { "text": ["All"], "value": ["$__all"] }, "options": [],
    })
}

/// The panels from left to right, in rows.
fn panels(panels: &[DashboardPanel]) -> Vec<Value> {
    let (mut x, mut y, mut row_height) = (0, 0, 0);
    let placed = panels.iter().enumerate().map(|(at, panel)| {
        let (width, height) = match panel.view {
            PanelView::Number => (6, 4),
            _ => (12, 8),
        };
        if x + width > COLUMNS {
            (x, y, row_height) = (0, y + row_height, 0);
        }
        let place = json!({ "x": x, "y": y, "w": width, "h": height });
        (x, row_height) = (x + width, row_height.max(height));
        self::panel(at + 1, panel, &place)
    });
    placed.collect()
}

fn panel(id: usize, panel: &DashboardPanel, place: &Value) -> Value {
    let legend = json!({ "showLegend": true, "displayMode": "list", "placement": "bottom" });
    let tooltip = json!({ "mode": "multi", "sort": "desc" });
    let curves = |style: &str, fill: u32| json!({ "drawStyle": style, "lineWidth": 1, "fillOpacity": fill, "showPoints": "never" });
    let (kind, custom, mappings, options) = match &panel.view {
        PanelView::Number => {
            let last = json!({ "calcs": ["lastNotNull"], "fields": "", "values": false });
            let options =
                json!({ "reduceOptions": last, "colorMode": "none", "graphMode": "area" });
            ("stat", json!({}), json!([]), options)
        }
        PanelView::Curves | PanelView::Bars => {
            let custom = match panel.view {
                PanelView::Bars => curves("bars", 60),
                _ => curves("line", 10),
            };
            ("timeseries", custom, json!([]), json!({ "legend": legend, "tooltip": tooltip }))
        }
        PanelView::States(words) => {
            let words = words.iter().enumerate();
            let states: serde_json::Map<String, Value> = words
                .map(|(at, word)| (at.to_string(), json!({ "text": word, "index": at })))
                .collect();
            let mappings = json!([{ "type": "value", "options": states }]);
            let options = json!({ "mergeValues": true, "showValue": "auto", "legend": legend });
            ("state-timeline", json!({ "fillOpacity": 70 }), mappings, options)
        }
    };
    let queries = panel.queries.iter().zip('A'..);
    let targets = queries.map(|(query, reference)| {
        json!({
            "refId": reference.to_string(), "datasource": source(), "editorMode": "code",
            "range": true, "expr": query.expression, "legendFormat": query.legend,
        })
    });
    json!({
        "id": id,
        "type": kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": source(),
        "gridPos": place,
        "fieldConfig": {
            "defaults": { "unit": panel.unit, "mappings": mappings, "custom": custom },
            "overrides": [],
        },
        "options": options,
        "targets": targets.collect::<Vec<_>>(),
    })
}
