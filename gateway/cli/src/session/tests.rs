use super::*;

fn read<T: serde::de::DeserializeOwned>(answer: Value) -> T {
    serde_json::from_value(answer).unwrap()
}

fn session(node: &str, zone: &str, rung: u64, measures: &Value) -> Session {
    read(json!({
        "id": "s1", "hop": {"node": node, "region": "east", "zone": zone}, "rung": rung,
        "measures": measures,
    }))
}

#[test]
fn quality_has_units() {
    let measures = json!({
        "r-factor": 8_204, "loss-up": 1_250, "loss-down": 120_000, "jitter-up": 2_100,
        "rtt-client": 30_000, "bitrate-up": 64,
    });
    let said = quality(&session("east-a1", "a", 0, &measures).measures);
    let expected = "R 82.04, loss 0.12 % up and 12.00 % down, jitter 3 ms up, round trip 30 ms";
    assert_eq!(said, expected);
    let measures = json!({"rtt-client": 30_000, "available-down": 1_250});
    let said = quality(&session("east-a1", "a", 0, &measures).measures);
    assert_eq!(said, "round trip 30 ms, available 1250 kbit/s down");
    let trend = |trend: u32| {
        let measures = json!({"rtt-client": 30_000, "trend-down": trend});
        quality(&session("east-a1", "a", 0, &measures).measures)
    };
    assert_eq!(trend(12), "round trip 30 ms, delay grows 12 ms/s down");
    assert_eq!(trend(0), "round trip 30 ms");
    assert_eq!(quality(&BTreeMap::new()), "");
}

#[test]
fn quality_has_the_loss_that_repair_left() {
    let said = |measures: Value| quality(&session("east-a1", "a", 0, &measures).measures);
    let repaired = json!({
        "loss-up": 30_000, "loss-up-after-repair": 0, "loss-down": 50_000,
        "loss-down-after-repair": 1_000,
    });
    let right = "loss 3.00 % up and 5.00 % down, after repair 0.00 % up and 0.10 % down";
    assert_eq!(said(repaired), right);
    let alike = json!({"loss-up": 30_000, "loss-up-after-repair": 30_000});
    assert_eq!(said(alike), "loss 3.00 % up");
}

#[test]
fn list_is_filtered_by_place_and_quality() {
    let all = ListArgs { node: None, zone: None, bad: false };
    let good = session("east-a1", "a", 0, &json!({"r-factor": 7_000, "loss-up": 19_999}));
    assert!(all.takes(&good) && !ListArgs { bad: true, ..all }.takes(&good));
    let repaired = json!({"loss-up": 200_000, "loss-up-after-repair": 19_999});
    let repaired = session("east-a1", "a", 0, &repaired);
    assert!(!ListArgs { node: None, zone: None, bad: true }.takes(&repaired));
    for bad in [
        session("east-a1", "a", 0, &json!({"r-factor": 6_999})),
        session("east-a1", "a", 0, &json!({"loss-down": 20_000})),
        session("east-a1", "a", 0, &json!({"loss-down-after-repair": 20_000})),
        session("east-a1", "a", 1, &json!({})),
        read(json!({"id": "s2", "hop": null, "rung": 0, "measures": {}})),
        read(json!({"id": "s3", "hop": {}, "rung": 0, "measures": {}, "impairment": {}})),
    ] {
        let args = ListArgs { node: None, zone: None, bad: true };
        assert!(args.takes(&bad), "{bad:?}");
    }
    let at = |node: Option<&str>, zone: Option<&str>| ListArgs {
        node: node.map(str::to_owned),
        zone: zone.map(str::to_owned),
        bad: false,
    };
    assert!(at(Some("east-a1"), Some("a")).takes(&good));
    assert!(!at(Some("east-b1"), None).takes(&good));
    assert!(!at(None, Some("b")).takes(&good));
    assert!(at(None, Some("east/a")).takes(&good) && !at(None, Some("west/a")).takes(&good));
    let nodes = [good.hop.unwrap().place];
    assert!(at(Some("east-a1"), Some("east/a")).require_known(&nodes).is_ok());
    for (wrong, right) in [
        (at(Some("nope"), None), "there is no such node: nope; there are east-a1"),
        (at(None, Some("zz")), "there is no such zone: zz; there are east/a"),
    ] {
        let Err(CommandError::Wrong(words)) = wrong.require_known(&nodes) else { panic!("known") };
        assert_eq!(words, right);
    }
}

#[test]
fn impairment_is_explained_with_its_evidence() {
    let uplink = json!({
        "segment": "uplink", "impaired_by": "s18", "loss_ppm": 100_000, "confidence_percent": 99,
        "evidence": {"senders_ppm": 100_000, "from_node_ppm": 102_000, "gateway_late_ms": 0},
    });
    let right = [
        "  impaired by the uplink of s18: 10.0 % lost there, 99 % certain",
        "    loss: worst uplink of the room 10.0 %, from the node 10.2 %",
    ];
    assert_eq!(impairment(&read(uplink)), right);
    let gateway = json!({
        "segment": "gateway", "impaired_by": "s1", "loss_ppm": 0, "confidence_percent": 100,
        "evidence": {"gateway_late_ms": 300},
    });
    let right =
        ["  impaired by this gateway: 100 % certain", "    this gateway was late by 300 ms"];
    assert_eq!(impairment(&read(gateway)), right);
    let device = json!({
        "segment": "device", "sign": "few-frames", "impaired_by": "s1", "loss_ppm": 0,
        "confidence_percent": 98,
        "evidence": {"frames_per_second": 5, "usual_frames_per_second": 25, "gateway_late_ms": 0},
    });
    let right = [
        "  impaired by the device of s1: few video frames, 98 % certain",
        "    video: 5 frames a second, usually 25",
    ];
    assert_eq!(impairment(&read(device)), right);
    let device = json!({
        "segment": "device", "sign": "no-key-frame", "impaired_by": "s1", "confidence_percent": 99,
        "evidence": {"key_frame_missing_ms": 2_100, "silent_packets": 620},
    });
    let right = [
        "  impaired by the device of s1: no key frame, 99 % certain",
        "    video: key frames requested for 2100 ms, none came",
        "    voice: 620 packets, none with sound",
    ];
    assert_eq!(impairment(&read(device)), right);
    let jitter = json!({
        "segment": "leg", "sign": "jitter", "impaired_by": "s1", "confidence_percent": 99,
        "evidence": {"uplink_jitter_us": 2_100, "from_node_jitter_us": 45_000, "probes_jitter_us": 30_000},
    });
    let right = [
        "  impaired by the leg: jitter, 99 % certain",
        "    jitter: uplink 2 ms, from the node 45 ms, of probes 30 ms",
    ];
    assert_eq!(impairment(&read(jitter)), right);
    let delay = json!({
        "segment": "unknown", "sign": "delay", "impaired_by": "s1", "confidence_percent": 98,
        "evidence": {"client_round_trip_us": 420_000, "node_round_trip_us": 3_000},
    });
    let right = [
        "  impaired by an unknown segment: delay, 98 % certain",
        "    round trip: to the client 420 ms, to the node 3 ms",
    ];
    assert_eq!(impairment(&read(delay)), right);
}

#[test]
fn room_is_explained_with_revision_and_arm() {
    let said = json!({
        "room": "team", "id": "r4", "scenario": "call", "mode": "hot", "effective_mode": "cold",
        "mode_reason": "no usable standby with capacity", "priority": 5, "sessions": ["s1", "s2"],
        "placed_by": "call/routing@5f0c", "hop": {"node": "east-a1"}, "health": "suspect",
        "witnesses": [{"witness": "probe", "for_ms": 40}],
        "asked": [
            {"policy": "call/routing", "arm": "canary", "revision": "5f0c", "sessions": 2},
            {"policy": "call/degradation", "arm": "active", "revision": null, "sessions": 2},
        ],
        "route": [{"node": "east-a1", "region": "east", "grant": "admitted"}],
        "candidates": [{
            "node": "west-b1", "region": "west", "reason": "full", "load_permille": 990,
            "carried_permille": 400,
        }],
    });
    let right = [
        "team (r4), scenario call (hot), priority 5, 2 sessions: s1, s2",
        "  runs in cold mode: no usable standby with capacity",
        "  at east-a1, which is suspect",
        "    accused by probe for 40 ms",
        "  routing decided by call/routing@5f0c",
        "  asks call/routing@5f0c (canary), about 2 sessions",
        "  asks no revision of call/degradation (active), about 2 sessions: the native default decides",
        "  route: east-a1 (east), admitted",
        "  not west-b1 (west): full, 99 % load, 40 % without reserves",
    ];
    assert_eq!(room_lines(&read(said)), right);
}

#[test]
fn session_line_names_the_impairing_segment() {
    let lossy = json!({
        "id": "s1", "room": "team", "scenario": "call", "ingress": "udp", "hop": {"node": "east-a1"},
        "measures": {"r-factor": 6_900}, "impairment": {"segment": "uplink", "impaired_by": "s2"},
    });
    let shown = line(&read(lossy));
    assert!(
        shown.ends_with("at east-a1, rung 0, R 69.00, impaired by the uplink of s2"),
        "{shown}"
    );
    assert!(!line(&session("east-a1", "a", 0, &json!({}))).contains("impaired"));
}

#[test]
fn asked_revision_has_its_sessions() {
    let asked = |revision: Value, sessions: u32| {
        asked_line(&read(json!({
            "policy": "call/routing", "arm": "canary", "revision": revision, "sessions": sessions,
        })))
    };
    assert_eq!(asked(json!("5f0c"), 1), "  asks call/routing@5f0c (canary), about 1 session");
    assert_eq!(
        asked(Value::Null, 2),
        "  asks no revision of call/routing (canary), about 2 sessions: the native default decides"
    );
}

#[test]
fn advice_names_its_cause() {
    let said = read(json!({"advice": "switch-network", "cause": "downlink"}));
    assert_eq!(advice(&said), "  user advised: switch-network, for the downlink");
}

#[test]
fn policing_names_rates_and_treatment() {
    let said =
        |step| policing(&read(json!({"step": step, "limit_kbps": 2_000, "sent_kbps": 3_100})));
    let rates = "  policed: sends 3100 of at most 2000 kbit/s; ";
    assert_eq!(said("frames"), format!("{rates}frames of its video are dropped"));
    assert_eq!(said("later"), format!("{rates}later"));
}

#[test]
fn rating_stands_beside_the_measured_quality() {
    let said = |rating: Value| rated(&read(rating));
    let right = "  rated 2 of 5, measured R 62.05: \"choppy\"";
    assert_eq!(said(json!({"rating": 2, "mean_r_centi": 6_205, "words": "choppy"})), right);
    assert_eq!(said(json!({"rating": 5})), "  rated 5 of 5, R not measured");
}
