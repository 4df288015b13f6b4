use std::time::Duration;

use evenkeel_model::GatewayLimits;

use super::*;

/// Breakers in virtual time; the configuration names a region and a carrier.
struct Clients {
    breakers: ClientBreakers,
    now: Instant,
    sessions: u64,
}

fn labels(carrier: &str, region: &str) -> Labels {
    [("carrier", carrier), ("region", region)]
        .map(|(name, value)| (name.into(), value.into()))
        .into()
}

impl Clients {
    fn new(action: NewcomerAction) -> Clients {
        let client_breakers = ClientBreakerSettings { action, ..ClientBreakerSettings::default() };
        let settings = CoreSettings {
            home: evenkeel_model::RegionId(0),
            regions: vec!["east".into()],
            carriers: vec!["ct".into()],
            zones: Vec::new(),
            nodes: Vec::new(),
            scenarios: BTreeMap::new(),
            timings: evenkeel_model::Timings::default(),
            limits: GatewayLimits { client_breakers, ..GatewayLimits::default() },
        };
        let now = Instant::now();
        Clients { breakers: ClientBreakers::new(&settings, now), now, sessions: 0 }
    }

    /// Hears 40 sessions of each of these clients in each of `seconds` windows, of which this number is bad. Returns the
    /// changes.
    fn hear(&mut self, clients: &[(&Labels, u32)], seconds: u32) -> Vec<String> {
        let mut changes = Vec::new();
        for _ in 0..seconds {
            for (labels, bad) in clients {
                for session in 0..40 {
                    let mut judged = JudgedWindow::default();
                    self.breakers.judge(labels, &mut judged, session < *bad, self.now);
                }
            }
            self.now += Duration::from_secs(1);
            let changed = self.breakers.weigh(self.now);
            changes.extend(changed.into_iter().map(|change| match change {
                CoreEvent::ClientBreaker { group, to, .. } => format!("{group} {}", to.name()),
                other => panic!("{other:?}"),
            }));
        }
        changes
    }

    /// The newcomers of a thousand that are limited.
    fn limited(&mut self, labels: &Labels) -> usize {
        self.sessions += 1_000;
        let newcomers = self.sessions..self.sessions + 1_000;
        newcomers.filter(|id| self.breakers.limit(labels, SessionId(*id)).is_some()).count()
    }
}

#[test]
fn bad_carrier_limits_its_newcomers_only() {
    let mut clients = Clients::new(NewcomerAction::Refuse);
    let (bad, sound) = (labels("ct", "east"), labels("cu", "east"));
    assert_eq!(clients.hear(&[(&bad, 19), (&sound, 0)], 5), [""; 0], "below half");
    assert_eq!(clients.hear(&[(&bad, 20), (&sound, 0)], 1), [""; 0], "one window");
    assert_eq!(clients.hear(&[(&bad, 20), (&sound, 0)], 1), ["carrier ct open"]);
    assert_eq!([clients.limited(&bad), clients.limited(&sound)], [1_000, 0]);
    let changes = clients.hear(&[(&bad, 0), (&sound, 0)], 16);
    assert_eq!(changes, ["carrier ct half-open", "carrier ct closed"]);
    assert_eq!(clients.limited(&bad), 0);
}

#[test]
fn half_open_breaker_admits_probes() {
    let mut clients = Clients::new(NewcomerAction::Refuse);
    let (bad, sound) = (labels("ct", "east"), labels("cu", "east"));
    clients.hear(&[(&bad, 40), (&sound, 0)], 2);
    assert_eq!(clients.hear(&[(&bad, 0), (&sound, 0)], 10), ["carrier ct half-open"]);
    let limited = clients.limited(&bad);
    assert!((850..950).contains(&limited), "{limited}");
    let changes = clients.hear(&[(&bad, 40), (&sound, 0)], 2);
    assert_eq!(changes, ["carrier ct open"]);
}

/// Six sessions are too few to open it.
#[test]
fn few_bad_sessions_keep_breaker_half_open() {
    for (sessions, bad, closes) in [(6, 4, false), (6, 3, true), (5, 5, false), (4, 4, true)] {
        let mut clients = Clients::new(NewcomerAction::Refuse);
        clients.hear(&[(&labels("ct", "east"), 40), (&labels("cu", "east"), 0)], 12);
        let mut found = Vec::new();
        for _ in 0..6 {
            for session in 0..sessions {
                let mut judged = JudgedWindow::default();
                let labels = labels("ct", "east");
                clients.breakers.judge(&labels, &mut judged, session < bad, clients.now);
            }
            found.extend(clients.hear(&[], 1));
        }
        assert_eq!(found == ["carrier ct closed"], closes, "{bad} of {sessions}: {found:?}");
    }
}

#[test]
fn only_group_opens_no_breaker() {
    let mut clients = Clients::new(NewcomerAction::Refuse);
    assert_eq!(clients.hear(&[(&labels("ct", "east"), 40)], 5), [""; 0]);
}

#[test]
fn impairment_of_all_clients_opens_no_breaker() {
    let mut clients = Clients::new(NewcomerAction::Refuse);
    let (one, other) = (labels("ct", "east"), labels("cu", "west"));
    assert_eq!(clients.hear(&[(&one, 40), (&other, 40)], 5), [""; 0]);
    let without = Labels::default();
    assert_eq!(clients.hear(&[(&one, 40), (&without, 40)], 5), [""; 0], "nor without labels");
}

#[test]
fn bad_region_is_found_across_carriers() {
    let mut clients = Clients::new(NewcomerAction::Refuse);
    let sessions = [("ct", "east", 40), ("cu", "east", 40), ("ct", "west", 0), ("cu", "west", 0)];
    let all = sessions.map(|(carrier, region, bad)| (labels(carrier, region), bad));
    let all = all.each_ref().map(|(labels, bad)| (labels, *bad));
    // Half of each carrier is bad, so the carriers explain nothing.
    assert_eq!(clients.hear(&all, 2), ["region east open"]);
}

#[test]
fn invented_groups_are_bounded() {
    let mut clients = Clients::new(NewcomerAction::Refuse);
    for number in 0..1_000 {
        let mut judged = JudgedWindow::default();
        let invented = labels(&format!("c{number}"), &format!("r{number}"));
        clients.breakers.judge(&invented, &mut judged, true, clients.now);
    }
    // The configured carrier and region have a place of their own.
    let sizes = |clients: &Clients| clients.breakers.labels.each_ref().map(|it| it.groups.len());
    assert_eq!(sizes(&clients), [GROUPS_MAX + 1; 2]);
    let others = clients.breakers.labels[0].others;
    assert_eq!([others.sessions, others.bad], [1_000 - GROUPS_MAX as u32; 2]);
    clients.hear(&[], 1);
    let (bad, sound) = (labels("ct", "east"), Labels::default());
    assert_eq!(clients.hear(&[(&bad, 40), (&sound, 0)], 2), ["carrier ct open"]);
    assert_eq!(sizes(&clients), [1; 2], "groups without sessions are forgotten");
}

#[test]
fn invented_group_is_kept_until_relapses_end() {
    let mut clients = Clients::new(NewcomerAction::Refuse);
    let (bad, sound) = (labels("invented", "east"), labels("cu", "east"));
    clients.hear(&[(&bad, 40), (&sound, 0)], 2);
    let recovered = clients.hear(&[(&sound, 0)], 20);
    assert_eq!(recovered, ["carrier invented half-open", "carrier invented closed"]);
    clients.hear(&[(&bad, 40), (&sound, 0)], 2);
    let open = clients.breakers.standings(clients.now).next().unwrap();
    assert_eq!(open.half_open_in_ms, Some(20_000), "twice as long");
    clients.hear(&[], 100);
    assert_eq!(clients.breakers.labels.each_ref().map(|it| it.groups.len()), [1; 2]);
}

#[test]
fn breaker_is_reported_without_an_action() {
    let mut clients = Clients::new(NewcomerAction::Admit);
    let (bad, sound) = (labels("ct", "east"), labels("cu", "east"));
    assert_eq!(clients.hear(&[(&bad, 40), (&sound, 0)], 2), ["carrier ct open"]);
    assert_eq!(clients.limited(&bad), 0);
    let open = clients.breakers.standings(clients.now).next().unwrap();
    assert_eq!((open.breaker, open.half_open_in_ms), ("open", Some(10_000)));
}

#[test]
fn video_returns_in_parts_once_closed() {
    let mut clients = Clients::new(NewcomerAction::VoiceOnly);
    let (bad, sound) = (labels("ct", "east"), labels("cu", "east"));
    clients.hear(&[(&bad, 40), (&sound, 0)], 2);
    let group = ClientGroup { label: ClientLabel::Carrier, value: "ct".into() };
    let admitted = |id| clients.breakers.limit(&bad, SessionId(id));
    assert_eq!(admitted(1), Some((NewcomerAction::VoiceOnly, group.clone())));
    (0..300).for_each(|id| clients.breakers.note_voice_only(SessionId(id), group.clone()));
    clients.breakers.forget(SessionId(0), &group);
    assert_eq!(clients.breakers.restore_video(), []);
    clients.hear(&[(&bad, 0), (&sound, 0)], 16);
    let restored = |clients: &mut Clients| clients.breakers.restore_video().len();
    assert_eq!(clients.breakers.standings(clients.now).next().unwrap().voice_only_sessions, 299);
    assert_eq!([restored(&mut clients), restored(&mut clients)], [RESTORED_PER_WINDOW, 43]);
    assert_eq!(clients.breakers.standings(clients.now).next(), None);
}

fn group(carrier: &str) -> ClientGroup {
    ClientGroup { label: ClientLabel::Carrier, value: carrier.into() }
}

#[test]
fn held_breaker_of_any_group_limits_its_newcomers() {
    for carrier in ["ct", "unlisted"] {
        let mut clients = Clients::new(NewcomerAction::Refuse);
        let (held, sound) = (labels(carrier, "east"), labels("cu", "east"));
        let change = clients.breakers.hold(&group(carrier), BreakerMode::Open, clients.now);
        let Ok(Some(CoreEvent::ClientBreaker { is_configured, others_open, to, mode, .. })) =
            change
        else {
            panic!("{change:?}")
        };
        assert_eq!((to, mode), (BreakerState::Open, BreakerMode::Open));
        assert_eq!((is_configured, others_open), (carrier == "ct", u32::from(carrier != "ct")));
        assert_eq!(clients.hear(&[(&sound, 0)], 100), [""; 0], "it stays open without sessions");
        assert_eq!([clients.limited(&held), clients.limited(&sound)], [1_000, 0]);
        let standing = clients.breakers.standings(clients.now).next().unwrap();
        assert_eq!((standing.breaker, standing.half_open_in_ms), ("open", None));
        clients.breakers.hold(&group(carrier), BreakerMode::Closed, clients.now).unwrap();
        assert_eq!(clients.hear(&[(&held, 40), (&sound, 0)], 5), [""; 0]);
        let standing = clients.breakers.standings(clients.now).next().unwrap();
        assert_eq!((standing.breaker, standing.breaker_mode), ("closed", BreakerMode::Closed));
        clients.breakers.hold(&group(carrier), BreakerMode::Auto, clients.now).unwrap();
        let open = format!("carrier {carrier} open");
        assert_eq!(clients.hear(&[(&held, 40), (&sound, 0)], 2), [open]);
    }
}

#[test]
fn hold_without_effect_or_beyond_the_limit_is_refused() {
    let mut clients = Clients::new(NewcomerAction::Admit);
    let mut hold = |carrier: &str, mode| clients.breakers.hold(&group(carrier), mode, clients.now);
    assert_eq!(hold("ct", BreakerMode::Open), Err(Impossible::NoBreakerAction));
    let mut held = 0;
    while hold(&format!("c{held}"), BreakerMode::Closed).is_ok() {
        held += 1;
    }
    assert_eq!(held, 2 * GROUPS_MAX);
    assert_eq!(hold("new", BreakerMode::Closed), Err(Impossible::NoRoomForBreakers));
    assert_eq!(hold("c0", BreakerMode::Auto), Ok(None));
}

#[test]
fn next_process_continues_the_breakers() {
    let mut clients = Clients::new(NewcomerAction::Refuse);
    let (bad, sound) = (labels("ct", "east"), labels("cu", "east"));
    clients.hear(&[(&bad, 40), (&sound, 0)], 2);
    clients.breakers.hold(&group("unlisted"), BreakerMode::Open, clients.now).unwrap();
    let records = clients.breakers.records();
    assert_eq!(records.len(), 2);
    let mut next = Clients { now: clients.now, ..Clients::new(NewcomerAction::Refuse) };
    let restore = |next: &mut Clients, records| {
        let events = next.breakers.restore(records, next.now);
        let open = |event: &CoreEvent| match event {
            CoreEvent::ClientBreaker { to, mode, .. } => (to.name(), mode.name()),
            other => panic!("{other:?}"),
        };
        events.iter().map(open).collect::<Vec<_>>()
    };
    assert_eq!(restore(&mut next, records.clone()), [("open", "auto"), ("open", "open")]);
    assert_eq!(next.breakers.records(), records);
    assert_eq!(restore(&mut next, records), [], "nothing is new here");
    assert_eq!(next.limited(&bad), 1_000);
    let changes = next.hear(&[(&bad, 0), (&sound, 0)], 16);
    assert_eq!(changes, ["carrier ct half-open", "carrier ct closed"], "at its time");
    assert_eq!(restore(&mut next, Vec::new()), [("closed", "auto")], "the held one");
    assert_eq!(next.breakers.records(), []);
}
