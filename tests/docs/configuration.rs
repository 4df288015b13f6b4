//! `docs/configuration.md`: its keys, defaults and bounds are those of the parsers.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use evenkeel_config::GatewayConfig;

use crate::gateway::Gateway;
use crate::page::{Page, cells, quoted};

const PAGE: &str = "docs/configuration.md";

/// A key that no table has: the parser answers with those that it has.
const NO_KEY: &str = "no_such_key";

/// A file that is configured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum File {
    Gateway,
    Set,
    Agent,
}

/// A table of a file, as it is written in brackets: `node.start`; the file itself: empty.
type Table = String;

struct Row {
    file: File,
    table: Table,
    key: String,
    default: String,
    range: String,
    applied: String,
}

#[test]
fn keys_equal_the_parsers() {
    let listed: BTreeSet<_> =
        rows().into_iter().map(|row| (row.file, row.table, row.key)).collect();
    let mut known = BTreeSet::new();
    for file in [File::Gateway, File::Set, File::Agent] {
        discover(file, &[], &mut known);
    }
    let missing: Vec<_> = known.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&known).collect();
    assert!(missing.is_empty(), "{PAGE} lacks the keys {missing:#?}");
    assert!(gone.is_empty(), "{PAGE} lists keys that no parser takes: {gone:#?}");
}

#[test]
fn defaults_equal_the_parsers() {
    let mut wrong = Vec::new();
    for Row { file, table, key, default, .. } in rows() {
        // A cell of words is for people.
        let literal = default.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
        let Some(literal) = literal.filter(|literal| !literal.contains('`')) else { continue };
        let base = base(file, &table);
        let (without, with) =
            (load(file, &base), load(file, &format!("{base}\n{key} = {literal}\n")));
        match with {
            Err(invalid) => wrong.push(format!("[{table}] {key} = {literal}: {invalid}")),
            Ok(_) if without == with => {}
            Ok(_) => wrong.push(format!("[{table}] {key} = {literal} changes something")),
        }
    }
    assert!(wrong.is_empty(), "{PAGE} has defaults that are none:\n{}", wrong.join("\n"));
}

#[test]
fn ranges_equal_the_parsers() {
    let mut wrong = Vec::new();
    for Row { file, table, key, range, .. } in rows() {
        let known = bounds(file, &table, &key).unwrap_or_default();
        if range != known {
            wrong.push(format!("[{table}] {key}: the page says `{range}`, the parser `{known}`"));
        }
    }
    assert!(wrong.is_empty(), "{PAGE} has ranges that do not hold:\n{}", wrong.join("\n"));
}

/// The page of drivers has a row for each, and the key `driver` takes their names.
#[test]
fn drivers_equal_the_table() {
    let names: Vec<&str> = evenkeel_drivers::DRIVERS.iter().map(|driver| driver.name()).collect();
    let page = Page::read("docs/nodes-and-drivers.md");
    let rows = page
        .prose()
        .into_iter()
        .map(|(_, line)| line)
        .skip_while(|line| !line.starts_with("| driver |"));
    let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
    let listed: Vec<String> = rows.map(|row| quoted(&cells(row)[0])[0].to_owned()).collect();
    assert_eq!(listed, names, "docs/nodes-and-drivers.md");
    let page = Page::read(PAGE);
    let mut lines = page.prose().into_iter().map(|(_, line)| line);
    let row = lines.find(|line| line.starts_with("| `driver` |"));
    assert_eq!(quoted(&cells(row.unwrap())[4]), names, "{PAGE}");
}

/// The required keys of `[cluster]`.
const CLUSTER: &str = "name = \"a\"\nsecret_file = \"cluster.secret\"\nlisten = \"10.0.0.1:7100\"\n\
    peer = { name = \"b\", address = \"10.0.0.2:7100\" }\n\
    address = [{ address = \"192.0.2.10/24\", interface = \"lo\" }]\n";

/// A reload names the table of every key that waits for a restart; asked with one key of each table.
#[test]
fn restart_keys_are_named_by_a_reload() {
    let gateway = Gateway::start();
    let mut asked = BTreeSet::new();
    for Row { file, table, key, range, applied, .. } in rows() {
        let first = table.split('.').next().unwrap().to_owned();
        let Some((_, most)) = range.split_once(" to ").filter(|_| file == File::Gateway) else {
            continue;
        };
        if applied != "restart" || !asked.insert(first.clone()) {
            continue;
        }
        let is_number = most.bytes().all(|byte| byte.is_ascii_digit());
        let most = if is_number { most.to_owned() } else { format!("\"{most}\"") };
        let needed = match &*table {
            "cluster" => CLUSTER,
            "index" => "name = \"a\"\nservers = [\"nats://127.0.0.1:4222\"]\n",
            _ => "",
        };
        let answer = gateway.reload_with(&table, &format!("{needed}{key} = {most}"));
        let named = answer.body.contains(&format!("\"[{first}]\""));
        assert!(named, "{PAGE} says that [{table}] {key} waits for a restart: {}", answer.body);
    }
    assert!(asked.len() > 3, "{asked:?}");
}

/// The rows of the page, with the tables of the headings that they stand under.
fn rows() -> Vec<Row> {
    let page = Page::read(PAGE);
    let (mut file, mut tables, mut rows) = (None, Vec::new(), Vec::new());
    for (place, line) in page.prose() {
        if let Some(heading) = line.strip_prefix("## ") {
            file = match quoted(heading).first() {
                Some(&"evenkeel.toml") => Some(File::Gateway),
                Some(&"policies/*.toml") => Some(File::Set),
                Some(&"agent.toml") => Some(File::Agent),
                _ => None,
            };
        } else if let Some(heading) = line.strip_prefix("### ") {
            let names = quoted(heading);
            let plain = names.iter().map(|name| name.trim_matches(['[', ']']).to_owned());
            tables = plain
                .map(|name| if name.ends_with(".toml") { String::new() } else { name })
                .collect();
        } else if let (Some(file), true) = (file, line.starts_with("| `")) {
            let cells = cells(line);
            assert_eq!(cells.len(), 5, "{place}: key, default, range, applied, meaning");
            let key = quoted(&cells[0])[0].to_owned();
            for table in tables.clone() {
                let [_, default, range, applied, _] = cells.clone().try_into().unwrap();
                rows.push(Row { file, table, key: key.clone(), default, range, applied });
            }
        }
    }
    rows
}

/// A step from a table to one inside it.
#[derive(Clone, Copy)]
enum Shape {
    Table,
    List,
    /// Tables by names of the user's.
    Map,
}

/// All keys at and below a place, found by asking the parser for one that it has not.
fn discover(file: File, path: &[(String, Shape)], known: &mut BTreeSet<(File, Table, String)>) {
    let Some(found) = keys(file, path) else { return };
    for key in found {
        let shapes = [Shape::Table, Shape::List, Shape::Map];
        let inside = shapes.into_iter().map(|shape| [path, &[(key.clone(), shape)]].concat());
        let inside = inside.into_iter().find(|path| keys(file, path).is_some());
        if let Some(inside) = &inside {
            discover(file, inside, known);
        }
        // At the top of a file a table is listed by its heading.
        if inside.is_none() || !path.is_empty() {
            known.insert((file, name(path), key));
        }
    }
}

fn keys(file: File, path: &[(String, Shape)]) -> Option<Vec<String>> {
    let innermost = format!("{NO_KEY} = 1");
    let text = path.iter().rev().fold(innermost, |inside, (key, shape)| match shape {
        Shape::Table => format!("{key} = {{ {inside} }}"),
        Shape::List => format!("{key} = [{{ {inside} }}]"),
        Shape::Map => format!("{key} = {{ any = {{ {inside} }} }}"),
    });
    let refused = load(file, &text).err()?;
    // Words of a choice are unknown variants: only fields are keys.
    let known = ["key", "field"].map(|what| format!("{what} `{NO_KEY}`, expected "));
    let (_, expected) = known.iter().find_map(|known| refused.split_once(known))?;
    Some(quoted(expected.lines().next()?).into_iter().map(str::to_owned).collect())
}

fn name(path: &[(String, Shape)]) -> Table {
    let names = path.iter().map(|(key, shape)| match shape {
        Shape::Table | Shape::List => key.clone(),
        Shape::Map => format!("{key}.NAME"),
    });
    names.collect::<Vec<_>>().join(".")
}

/// The bounds that the parser names for a value beyond them: `1s to 24h`.
fn bounds(file: File, table: &str, key: &str) -> Option<String> {
    let base = base(file, table);
    let far = ["4000000000", "\"99999h\"", "\"999999999s\""];
    far.iter().find_map(|far| {
        let refused = load(file, &format!("{base}\n{key} = {far}\n")).err()?;
        let expected = refused.lines().find_map(|line| line.split_once(", expected "))?.1;
        let expected = expected.split(", such as").next()?.replace('`', "");
        let (least, most) = expected.split_once(" to ")?;
        let is_bound = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        let least = if least == "0us" { "0" } else { least };
        (is_bound(least) && is_bound(most)).then(|| format!("{least} to {most}"))
    })
}

/// A file in which the table is, with as little else as it takes.
fn base(file: File, table: &str) -> String {
    let node = "name = \"a\"\naddress = \"10.0.1.11:4000\"\nregion = \"east\"\nzone = \"a\"\ndriver = \"plain\"\n\
        capacity = \"1 Mbit/s\"";
    let agent = "name = \"a\"\nlisten = \"0.0.0.0:4001\"\nsecret_file = \"secret\"";
    let set = "[scenario.NAME]\n";
    match (file, table) {
        (File::Gateway, "listen") => "[[listen]]\nudp = \"127.0.0.1:5004\"".to_owned(),
        (File::Gateway, "node") => format!("[[node]]\n{node}"),
        (File::Gateway, "node.start") => {
            format!("[[node]]\n{node}\n[node.start]\ncommand = [\"/bin/true\"]")
        }
        (File::Gateway, "cluster") => {
            "[[cluster.address]]\naddress = \"192.0.2.10/24\"\ninterface = \"eth0\"\n\
            [cluster.peer]\nname = \"b\"\naddress = \"10.0.0.2:7100\"\n\
            [cluster]\nname = \"a\"\nsecret_file = \"secret\"\nlisten = \"10.0.0.1:7100\""
                .to_owned()
        }
        (File::Gateway, "cluster.address") => {
            "[cluster]\nname = \"a\"\nsecret_file = \"secret\"\nlisten = \"10.0.0.1:7100\"\n\
            [cluster.peer]\nname = \"b\"\naddress = \"10.0.0.2:7100\"\n\
            [[cluster.address]]\naddress = \"192.0.2.10/24\"\ninterface = \"eth0\""
                .to_owned()
        }
        (File::Gateway, "index") => {
            "[index]\nname = \"a\"\nservers = [\"nats://127.0.0.1:4222\"]".to_owned()
        }
        (File::Gateway, "advice") => "[advice]\nurl = \"http://127.0.0.1:1/\"".to_owned(),
        (File::Gateway, "alert") => {
            "[[alert]]\nname = \"a\"\nurl = \"http://127.0.0.1:1/\"".to_owned()
        }
        (File::Gateway, "dependency") => {
            "[[dependency]]\nname = \"a\"\nurl = \"http://127.0.0.1:1/\"".to_owned()
        }
        (File::Gateway, "registry") => "[[registry]]\nhost = \"registry.example\"".to_owned(),
        (File::Gateway, "region") => "[[region]]".to_owned(),
        (File::Gateway, "trust.keys") => "[[trust.keys]]".to_owned(),
        (File::Set, "scenario.NAME") => set.to_owned(),
        (File::Set, "admission") => format!("{set}[admission]\nplugin = \"admit-capacity\""),
        (File::Set, "routing") => format!("{set}[routing]\nplugin = \"route-nearest\""),
        (File::Set, "degradation") => format!("{set}[degradation]\nplugin = \"degrade-ladder\""),
        (File::Set, "resolve") => format!("{set}[resolve]\nplugin = \"scenario-call\""),
        (File::Set, table) => format!("{set}[{table}]"),
        (File::Agent, "") => format!("process.pid_file = \"pid\"\n{agent}"),
        (File::Agent, "process") => format!("{agent}\n[process]\ncommand = [\"/bin/true\"]"),
        (File::Agent, "check") => {
            format!("{agent}\n[check]\naddress = \"127.0.0.1:1\"\nprobe = \"stun\"")
        }
        (File::Agent, "gateway") => {
            format!("{agent}\n[gateway]\naddress = \"10.0.0.1:7100\"\npeer = \"10.0.0.2:7100\"")
        }
        (File::Agent, "media") => {
            format!("{agent}\n[process]\npid_file = \"pid\"\n[media]\nopen = [\"/bin/true\"]")
        }
        (File::Agent, table) => format!("{agent}\n[process]\npid_file = \"pid\"\n[{table}]"),
        (File::Gateway, table) => format!("[{table}]"),
    }
}

/// The settings as text, or the errors.
fn load(file: File, text: &str) -> Result<String, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("documented-{:?}", std::thread::current().id()));
    let sets = folder.join("policies");
    fs::create_dir_all(&sets).unwrap();
    fs::write(folder.join("secret"), [b'x'; 32]).unwrap();
    let (config, set) = (folder.join("evenkeel.toml"), sets.join("documented.toml"));
    match file {
        File::Gateway => {
            fs::write(&config, text).unwrap();
            read(GatewayConfig::load(
                Some(&config),
                None,
                &evenkeel_drivers::kinds(evenkeel_drivers::DRIVERS),
            ))
        }
        File::Set => {
            fs::write(&set, text).unwrap();
            read(GatewayConfig::load(None, Some(&sets), &[]))
        }
        File::Agent => {
            let config = folder.join("agent.toml");
            fs::write(&config, text).unwrap();
            let read = evenkeel_agent::config::Config::load(&config);
            read.map(|config| format!("{config:?}")).map_err(|invalid| invalid.to_string())
        }
    }
}

fn read(
    loaded: Result<GatewayConfig, Vec<evenkeel_config::InvalidSetting>>,
) -> Result<String, String> {
    let text = |settings| format!("{settings:?}");
    let lines = |invalid: &evenkeel_config::InvalidSetting| {
        format!("found {}, expected {}", invalid.found, invalid.expected)
    };
    loaded.map(text).map_err(|all| all.iter().map(lines).collect::<Vec<_>>().join("\n"))
}
