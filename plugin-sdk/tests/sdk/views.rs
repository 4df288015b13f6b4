//! Views of routing and admission policies: nodes, regions, the catalog, measured and unmeasured
//! values.

use evenkeel_plugin_sdk::prelude::*;
use evenkeel_plugin_sdk::trial::{Trial, World};

/// Writes its observations into the room's state.
#[derive(Settings)]
struct Eyes;

#[derive(State, Clone, PartialEq, Debug)]
#[state(schema = 1)]
struct Seen {
    lines: Vec<String>,
}

#[derive(Reason)]
enum Why {
    Banned = 4,
}

#[routing]
impl Routing for Eyes {
    type State = Seen;
    type Reason = Why;

    fn place(&self, room: &NewRoom<'_>, nodes: &Nodes<'_>) -> Placement<Seen> {
        if room.labels.value("tenant") == Some("banned") {
            return Placement::refuse(Why::Banned, Duration::from_secs(60));
        }
        let catalog = nodes.catalog();
        let line = |node: Node<'_>| {
            let region = node.region().and_then(|region| catalog.region_name(region));
            let zone = node.zone().and_then(|zone| catalog.zone_name(zone));
            let measured = (node.delay_us(), node.health(), node.draining());
            format!("{:?} {region:?} {zone:?} {measured:?}", node.name())
        };
        let mut lines: Vec<_> = nodes.iter().map(line).collect();
        lines.push(format!("{:?} at {:?}", room.region(), nodes.now()));
        let hop = catalog.node("b").and_then(|id| nodes.node(id));
        Placement::on(hop.map(|node| node.id())).keep(Seen { lines })
    }

    fn reroute(&self, rooms: &Rooms<'_, Seen>, _: &Nodes<'_>, out: &mut Moves<Seen>) {
        for room in rooms.iter() {
            let hops: Vec<_> = room.standing().collect();
            out.of(&room).to(hops.into_iter().rev(), Duration::from_secs(1), ());
        }
    }
}

fn world() -> World {
    World::around("east")
        .node("a", "east", "1", &[(Metric::Delay, 900), (Metric::Health, 2), (Metric::Draining, 1)])
        .node("b", "west", "1", &[(Metric::Health, 9)])
}

#[test]
fn node_has_its_place_and_measures() {
    let mut trial = Trial::of(Eyes, world());
    let placed = trial.place(1, &[("region", "west")]);
    let expected = [
        r#"Some("a") Some("east") Some("1") (Some(900), Some(Wary), Some(true))"#,
        r#"Some("b") Some("west") Some("1") (None, None, None)"#,
        r"Some(RegionId(2)) at 3600s",
    ];
    assert_eq!(placed.state.lines, expected);
    assert_eq!(placed.hops, ["b"]);
}

#[test]
fn room_is_refused_with_a_reason() {
    let mut trial = Trial::of(Eyes, world());
    let placed = trial.place(1, &[("tenant", "banned")]);
    assert!(placed.refused && placed.hops.is_empty());
    assert_eq!((placed.reason, placed.ask_again_after), (4, Duration::from_secs(60)));
    assert!(!trial.place(1, &[]).refused);
}

#[test]
fn routes_of_different_length_stay_separate() {
    let mut trial = Trial::of(Eyes, world());
    let state = Seen { lines: vec![] };
    let room = |hops: &[&str]| evenkeel_plugin_sdk::trial::Room {
        room: 1,
        measured: vec![],
        standing: hops.iter().map(|&hop| hop.to_owned()).collect(),
        state: state.clone(),
    };
    let mut rooms = [room(&["a"]), room(&["a", "b"]), room(&[])];
    assert_eq!(trial.reroute(&mut rooms), [(0, 0), (1, 0), (2, 0)]);
    assert_eq!(rooms[0].standing, ["a"]);
    assert_eq!(rooms[1].standing, ["b", "a"]);
    assert!(rooms[2].standing.is_empty());
}
