//! Examples of the documentation that other programs run, as they are printed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use evenkeel_lab::process::ChildProcess;
use evenkeel_testkit::binary::evenkeel;
use evenkeel_testkit::{TIMEOUT, required};
use serde_json::Value;

use crate::janus::{LOUD_DBFS, levels};

/// Ten a second: five seconds more than a phone without RTCP is heard.
const LEVELS: usize = 200;
/// Of the levels after that time.
const LAST: usize = 40;

/// The gateway admits sessions.
const READY: &str = "curl --silent --fail --unix-socket evenkeel.sock http://localhost/readyz";

fn page(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The first block behind these words with this fence.
fn block<'page>(page: &'page str, after: &str, fence: &str) -> &'page str {
    let found = page.split_once(after).and_then(|(_, rest)| {
        let (_, block) = rest.split_once(&format!("```{fence}\n"))?;
        Some(block.split_once("```")?.0)
    });
    found.unwrap_or_else(|| panic!("no block {fence:?} behind {after:?}"))
}

/// A reader with the files of the page in a folder, in namespaces of its own: the ports of the page are free there, and /etc may be
/// changed. Ends with all that it started.
fn reader(script: &str, folder: &Path) -> ChildProcess {
    fs::write(folder.join("script"), script).expect("a file can be written");
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["bash", "-euc", ". ./script"]).current_dir(folder);
    let programs = folder.join("programs");
    fs::create_dir(&programs).expect("a folder can be made");
    symlink(evenkeel(), programs.join("evenkeel")).expect("a link can be made");
    let path = std::env::var("PATH").expect("programs have a path");
    command.env("PATH", format!("{}:{path}", programs.display()));
    command.env("XDG_RUNTIME_DIR", folder);
    ChildProcess::start("reader", &mut command, folder).expect("unshare starts")
}

/// Runs the script to its end and returns its output.
fn read_to_end(script: &str, folder: &Path) -> Vec<String> {
    let mut reader = reader(script, folder);
    let ended = reader.wait(2 * TIMEOUT).unwrap_or_else(|error| panic!("{error}"));
    let lines = reader.all_lines(TIMEOUT);
    assert!(ended.success(), "{ended}\n{}\n{}", lines.join("\n"), logs(folder));
    lines
}

/// The logs of the reader's programs.
fn logs(folder: &Path) -> String {
    let files = fs::read_dir(folder).expect("the folder is ours").flatten();
    let logs = files.filter(|file| file.path().extension().is_some_and(|it| it == "log"));
    let texts = logs.map(|file| fs::read_to_string(file.path()).unwrap_or_default());
    texts.collect::<Vec<_>>().join("\n")
}

/// Lines of which the last goes on, as in a terminal of its own. Waits for the condition.
fn go_on(lines: &str, log: &str, until: &str) -> String {
    format!("{} > {log} 2>&1 &\nuntil {until}; do kill -0 $!; sleep 0.1; done\n", lines.trim_end())
}

/// Files of the gateway for Prometheus and Alertmanager, and of its unit for systemd, where the pages have them.
#[required(Prometheus, Alertmanager, Administration, Namespaces, Mounts)]
#[test]
fn files_of_the_pages_pass_their_programs() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let alerts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/alerts");
    let mut script = format!(
        "for folder in /etc/prometheus /usr/share/doc /usr/local/bin; do mount -t tmpfs tmpfs $folder; done\n\
         echo token > /etc/prometheus/evenkeel.token\n\
         mkdir /usr/share/doc/evenkeel && cp -r {} /usr/share/doc/evenkeel/alerts\n\
         ln -s $(readlink programs/evenkeel) /usr/local/bin/evenkeel\n",
        alerts.display()
    );
    let (telemetry, operations) = (page("docs/telemetry.md"), page("docs/operations/install.md"));
    let mut rest = &telemetry[..];
    let mut count = 0;
    while let Some((_, behind)) = rest.split_once("```yaml ") {
        let (name, behind) = behind.split_once('\n').expect("the fence ends");
        let (text, behind) = behind.split_once("```").expect("the block ends");
        rest = behind;
        count += 1;
        let file = format!("{count}-{}", name.rsplit('/').next().expect("a name"));
        fs::write(folder.path().join(&file), text).expect("a file can be written");
        script += &match name {
            "prometheus.yml" => format!("promtool check config {file}\n"),
            "alertmanager.yml" => format!("amtool check-config {file}\n"),
            // No Grafana is installed.
            "grafana/provisioning/dashboards/evenkeel.yaml" => {
                format!("/usr/bin/python3 -c 'import yaml; yaml.safe_load(open(\"{file}\"))'\n")
            }
            _ => panic!("no program takes {name}"),
        };
    }
    assert_eq!(count, 4);
    let unit = block(&operations, "", "ini");
    assert!(unit.contains("[Unit]"), "{unit}");
    fs::write(folder.path().join("evenkeel.service"), unit).expect("a file can be written");
    script += "systemd-analyze verify --recursive-errors=no ./evenkeel.service\n";
    read_to_end(&script, folder.path());
}

/// The commands of `docs/whip.md`, against a gateway by its configuration and the sample node of `docs/nodes-and-drivers.md`.
#[required(Administration, Namespaces, Mounts)]
#[test]
fn commands_of_the_whip_page_succeed() {
    let (whip, nodes) = (page("docs/whip.md"), page("docs/nodes-and-drivers.md"));
    let folder = tempfile::tempdir().expect("a folder can be made");
    let node = "`evenkeel sample-node` is a media server for trials";
    let toml = ["", node].map(|after| {
        let page = if after.is_empty() { &whip } else { &nodes };
        block(page, after, "toml evenkeel.toml")
    });
    let offer = include_str!("../fuzz/corpus/sdp_offer/chromium");
    let credentials = offer.lines().filter(|line| line.starts_with("a=ice-")).take(2);
    let credentials: String = credentials.map(|line| format!("{line}\r\n")).collect();
    let candidates =
        format!("{credentials}m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\na=end-of-candidates\r\n");
    for (file, text) in [
        ("evenkeel.toml", &*toml.concat()),
        ("offer.sdp", offer),
        ("candidates.sdpfrag", &candidates),
        ("turn.secret", "0123456789abcdef0123456789abcdef"),
    ] {
        fs::write(folder.path().join(file), text).expect("a file can be written");
    }
    let token = block(&whip, "## Tokens", "bash");
    let (_, signature) = token.split_once("message=").expect("the token has a message");
    let open = block(&whip, "## Open a session", "sh");
    let fields = "location=$(sed -n 's/^location: //p' answer | tr -d '\\r'); etag=$(sed -n 's/^etag: //p' answer | tr -d '\\r')\n";
    let script = [
        "ip link set lo up\numask 077\n\
         openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out cert.pem -days 9 \
         -subj /CN=gateway.example.org -addext subjectAltName=DNS:gateway.example.org\n\
         export CURL_CA_BUNDLE=$PWD/cert.pem\n\
         cp /etc/hosts hosts; echo 127.0.0.1 gateway.example.org >> hosts; mount --bind hosts /etc/hosts\n",
        &go_on(block(&nodes, node, "sh"), "node.log", "grep -q listens node.log"),
        token,
        &go_on("evenkeel run --config evenkeel.toml", "gateway.log", READY),
        "(\n",
        open,
        ") > answer; cat answer\n",
        fields,
        block(&whip, "name the session by its URL", "sh"),
        block(&whip, "### An encoder with a fixed token", "bash"),
        "message=",
        signature,
        open,
        // The encoder connects again, with another offer.
        "sed -i 's/^a=ice-ufrag:..../a=ice-ufrag:back/' offer.sdp\n",
        open,
        // The session that was deleted, and the encoder's first one.
        "admin='curl --silent --fail --unix-socket evenkeel.sock http://localhost/v1/sessions'\n\
         until $admin/history > history.json && [ \"$(grep -o '\"ended_us\"' history.json | wc -l)\" = 2 ]; do sleep 0.1; done\n\
         $admin > sessions.json\n",
    ];
    let lines = read_to_end(&script.concat(), folder.path());
    let statuses = lines.iter().filter_map(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3));
    assert_eq!(statuses.collect::<Vec<_>>(), ["201", "204", "200", "201", "201"]);
    let sessions = ["history.json", "sessions.json"].map(|file| {
        let text = fs::read_to_string(folder.path().join(file)).expect("curl wrote it");
        let answer: Value = serde_json::from_str(&text).expect("the API answers JSON");
        answer["sessions"].as_array().expect("a list of sessions").clone()
    });
    let [ended, open] = sessions;
    assert_eq!(ended[0]["reason"], "requested", "{ended:?}");
    assert_eq!(open.len(), 1, "the reused token ended the session before: {open:?}");
}

#[required(Janus, GStreamer, Namespaces, Mounts)]
#[test]
fn call_of_the_janus_example_is_heard() {
    let page = page("docs/examples/janus/README.md");
    let folder = tempfile::tempdir().expect("a folder can be made");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    symlink(root.join("docs"), folder.path().join("docs")).expect("a link can be made");
    let mut script =
        "ip link set lo up\ncp -r /etc/janus janus\nmount --bind janus /etc/janus\n".to_owned();
    for file in ["/etc/janus/janus.plugin.audiobridge.jcfg", "/etc/janus/janus.transport.http.jcfg"]
    {
        let settings = block(&page, &format!("`{file}`:"), "text");
        fs::write(folder.path().join("settings"), settings).expect("a file can be written");
        let name = file.rsplit('/').next().expect("a name");
        fs::write(folder.path().join(name), settings).expect("a file can be written");
        script += &format!("sed -i '/^general: {{/r {name}' {file}\n");
    }
    let toml = block(&page, "**The gateway:**", "toml evenkeel.toml");
    fs::write(folder.path().join("evenkeel.toml"), toml).expect("a file can be written");
    // No service manager runs here.
    script += "systemctl() { janus --disable-colors > janus.log & }\n";
    script += block(&page, "**Janus.**", "sh");
    let connected = "grep -q '^connected to Janus ' webhook.log";
    script += &go_on(block(&page, "**The webhook**", "sh"), "webhook.log", connected);
    script += &go_on(block(&page, "**The gateway:**", "sh"), "gateway.log", READY);
    script += block(&page, "**A call**", "sh");

    let reader = reader(&script, folder.path());
    let within = TIMEOUT + Duration::from_secs(20);
    let heard = reader.wait_for("levels at the second phone", within, |lines| {
        let levels = levels(lines);
        (levels.len() >= LEVELS).then_some(levels)
    });
    let heard = heard.unwrap_or_else(|error| panic!("{error}\n{}", logs(folder.path())));
    // A busy machine has gaps.
    let last = &heard[LEVELS - LAST..];
    let loud = last.iter().filter(|level| **level > LOUD_DBFS).count();
    assert!(loud > LAST / 2, "{loud} of the last {LAST} levels are loud: {heard:?}");
}
