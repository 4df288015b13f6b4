//! A plugin answers the same whether it is called flat or through the component model, and no address that it returns is
//! trusted.

use evenkeel_host::{BoundPlugin, Component, Engine, PluginRefusal, answer_difference, shipped};
use evenkeel_model::{
    CatalogEntry, EntryKind, Hook, HookAnswer, Labels, Measures, Metric, NodeId, PluginFault,
    PluginState, PolicyQuestion, RegionId, RoomId, RoomRow, Row, SessionId, SessionRow,
};
use evenkeel_testkit::required;
use serde_json::{Value, json};

use crate::contract::sdk;
use crate::plugin::{roomy, with_section};

/// The export by which a plugin may be called flat.
const RESERVE: &[u8] = b"flat_reserve";

/// The plugin without that export; `None` if it has none.
pub(crate) fn by_component(plugin: &[u8]) -> Option<Vec<u8>> {
    let at = plugin.windows(RESERVE.len()).position(|part| part == RESERVE)?;
    let mut other = plugin.to_vec();
    other[at] = b'F';
    Some(other)
}

/// A plugin called flat and through the component model, and the states of its subjects.
struct BothWays {
    hook: Hook,
    policies: [BoundPlugin; 2],
    states: Vec<Option<PluginState>>,
    memo: Option<PluginState>,
}

impl BothWays {
    fn new(plugin: &[u8]) -> BothWays {
        let component = Component::vet(roomy(), plugin).unwrap();
        let hook = component.manifest().hooks[0];
        let install = |plugin: &[u8]| {
            let component = Component::vet(roomy(), plugin).unwrap();
            BoundPlugin::install(roomy(), &component, hook, Value::Null, catalog(), 11).unwrap()
        };
        let policies = [install(plugin), install(&by_component(plugin).unwrap())];
        BothWays { hook, policies, states: vec![None; SUBJECTS], memo: None }
    }

    /// Asks both ways, and compares the answers or faults.
    fn ask(&mut self, question: &PolicyQuestion, now_us: u64) {
        let name = self.policies[0].component().manifest().name.clone();
        let answers = self.policies.each_mut().map(|policy| policy.ask(question, now_us));
        match &answers {
            [Ok(flat), Ok(component)] => {
                assert_eq!(answer_difference(flat, component), None, "{name}: {question:?}");
                assert_eq!(flat.ungranted, component.ungranted, "{name}: {question:?}");
            }
            [flat, component] => assert_eq!(
                flat.as_ref().map(|_| ()),
                component.as_ref().map(|_| ()),
                "{name}: {question:?}"
            ),
        }
        let [flat, component] = self
            .policies
            .each_mut()
            .map(|policy| std::iter::from_fn(|| policy.poll_line()).collect::<Vec<_>>());
        assert_eq!(flat, component, "{name}: log lines");
        let [answer, _] = answers;
        if let Ok(
            HookAnswer::Moves { states, memo, .. } | HookAnswer::Actions { states, memo, .. },
        ) = answer.map(|answered| answered.answer)
        {
            for (row, state) in states {
                self.states[row as usize] = Some(state);
            }
            self.memo = memo.or_else(|| self.memo.take());
        }
    }
}

/// Sessions or rooms of a batch.
const SUBJECTS: usize = 7;

fn catalog() -> Vec<CatalogEntry> {
    let entry = |kind, id, parent, name: &str| CatalogEntry {
        kind,
        id,
        parent,
        name: name.into(),
        labels: vec![("power".into(), "grid".into()), ("größe".into(), "é😀".into())],
    };
    let zones = (0..4).map(|id| entry(EntryKind::Zone, id, id % 2, &format!("zone-{id}")));
    let nodes = (0..24).map(|id| entry(EntryKind::Node, id, id % 4, &format!("node-{id}")));
    let regions = [entry(EntryKind::Region, 0, 0, "east"), entry(EntryKind::Region, 1, 0, "west")];
    let home = [entry(EntryKind::Home, 1, 1, "home")];
    regions.into_iter().chain(zones).chain(nodes).chain(home).collect()
}

/// Random questions of one hook.
struct Questions(fastrand::Rng);

impl Questions {
    fn labels(&mut self) -> Labels {
        let known = [
            ("region", "east"),
            ("region", "atlantis"),
            ("zone", "zone-1"),
            ("device", "phone"),
            ("max-height", "360"),
            ("battery", "low"),
            ("größe", "é😀"),
            ("", ""),
        ];
        let chosen = known.iter().filter(|_| self.0.u8(..4) == 0);
        chosen.map(|&(key, value)| (key.into(), value.into())).collect()
    }

    fn row(&mut self, id: u64) -> Row {
        let mut measures = Measures::default();
        for &metric in Metric::ALL {
            let most = [0, 3, 1_000, 2_000_000][self.0.usize(..4)];
            if most > 0 {
                measures.set(metric, self.0.u64(..most));
            }
        }
        Row { id, measures }
    }

    fn rows(&mut self, most: u64) -> Vec<Row> {
        let count = self.0.u64(0..=most);
        (0..count).map(|id| self.row(id)).collect()
    }

    /// Mostly the state that the plugin wrote last.
    fn state(&mut self, before: &Option<PluginState>) -> Option<PluginState> {
        let mut state = before.clone()?;
        match self.0.u8(..16) {
            0 => return None,
            1 => state.schema = state.schema.saturating_sub(1),
            2 => state.bytes = (0..self.0.usize(..9)).map(|_| self.0.u8(..)).collect(),
            _ => {}
        }
        Some(state)
    }

    fn next(&mut self, of: &BothWays) -> PolicyQuestion {
        let scenario = ["call", "live", "größe", ""][self.0.usize(..4)].into();
        match of.hook {
            Hook::Scenario => PolicyQuestion::Resolve { scenario, labels: self.labels() },
            Hook::Admission => PolicyQuestion::Admit {
                session: SessionId(self.0.u64(..)),
                room: RoomId(self.0.u64(..)),
                standing: self.0.bool().then(|| RegionId(self.0.u32(..3))),
                scenario,
                labels: self.labels(),
                regions: self.rows(2),
            },
            Hook::Routing if self.0.bool() => PolicyQuestion::Place {
                room: RoomId(self.0.u64(..)),
                scenario,
                labels: self.labels(),
                nodes: self.rows(24),
            },
            Hook::Routing => {
                let room = |(id, before): (u64, &Option<PluginState>)| RoomRow {
                    row: self.row(id),
                    scenario: "call".into(),
                    labels: self.labels(),
                    standing: (0..self.0.u8(..4)).map(|_| NodeId(self.0.u32(..24))).collect(),
                    state: self.state(before),
                };
                let rooms = (0..).zip(&of.states).map(room).collect();
                let memo = self.state(&of.memo);
                PolicyQuestion::Reroute { nodes: self.rows(24), rooms, memo }
            }
            Hook::Degradation => {
                let session = |(id, before): (u64, &Option<PluginState>)| SessionRow {
                    row: self.row(id),
                    room: RoomId(id / 2),
                    scenario: "call".into(),
                    labels: self.labels(),
                    state: self.state(before),
                };
                let sessions = (0..).zip(&of.states).map(session).collect();
                PolicyQuestion::Tick { sessions, memo: self.state(&of.memo) }
            }
        }
    }
}

fn answers_alike(plugin: &[u8]) {
    let mut both = BothWays::new(plugin);
    let mut questions = Questions(fastrand::Rng::with_seed(38));
    for now_us in (0..).step_by(700_000).take(300) {
        let question = questions.next(&both);
        both.ask(&question, now_us);
    }
}

#[test]
fn shipped_plugins_answer_alike_both_ways() {
    for plugin in shipped() {
        answers_alike(plugin.bytes);
    }
}

#[required(Clang)]
#[test]
fn c_plugins_answer_alike_both_ways() {
    for name in ["by_device", "calm", "full", "least_loaded"] {
        answers_alike(&crate::c::compile(&sdk().join(format!("c/{name}.c")), "-O2"));
    }
}

/// The buffer grows several times for the arguments, and the answer is long.
#[test]
fn batch_of_thousands_is_answered_alike() {
    let ladder = shipped().iter().find(|plugin| plugin.name == "degrade-ladder").unwrap();
    let mut both = BothWays::new(ladder.bytes);
    both.states = vec![None; 4_096];
    let mut questions = Questions(fastrand::Rng::with_seed(7));
    for now_us in [0, 1_000_000] {
        let question = questions.next(&both);
        both.ask(&question, now_us);
    }
    assert!(both.states.iter().all(Option::is_some));
}

/// A scenario policy in WAT, with the body of `flat_reserve` and the flat `resolve`.
fn by_hand(pages: u32, reserve: &str, resolve: &str) -> Vec<u8> {
    let unused = ["init", "catalog", "migrate", "migrate-memo"].map(|function| {
        format!(
            "(func (export \"flat_evenkeel:policy/guest@0.1.0#{function}\") (param i32) (result i32) i32.const 0)"
        )
    });
    let text = format!(
        r#"(module
            (memory (export "memory") {pages})
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
            (func (export "evenkeel:policy/guest@0.1.0#init")
                (param i32 i32 i32 i32 i32 i32 i32 i32 i64) (result i32) unreachable)
            (func (export "evenkeel:policy/guest@0.1.0#catalog") (param i32 i32))
            (func (export "evenkeel:policy/guest@0.1.0#migrate")
                (param i32 i32 i32 i32 i32) (result i32) unreachable)
            (func (export "evenkeel:policy/guest@0.1.0#migrate-memo")
                (param i32 i32 i32) (result i32) unreachable)
            (func (export "evenkeel:policy/scenario@0.1.0#resolve")
                (param i32 i32 i32 i32) (result i32) unreachable)
            (func (export "flat_reserve") (param i32) (result i32) {reserve})
            {}
            {resolve})"#,
        unused.concat()
    );
    let manifest = json!({
        "name": "by-hand", "version": "1", "contract": "0.1.0", "hooks": ["scenario"],
        "settings": {"type": "object"}
    });
    let module = wat::parse_str(text).unwrap();
    with_section(&module, "evenkeel:manifest", manifest.to_string().as_bytes())
}

/// Above the first buffer of 16 KiB.
const BUFFER: &str = "i32.const 8192";

fn resolving(body: &str) -> String {
    format!(
        "(func (export \"flat_evenkeel:policy/scenario@0.1.0#resolve\") (param i32) (result i32) {body})"
    )
}

fn install(module: &[u8]) -> Result<BoundPlugin, PluginRefusal> {
    let component = Component::vet(roomy(), module)?;
    BoundPlugin::install(roomy(), &component, Hook::Scenario, Value::Null, Vec::new(), 0)
}

/// The number of parameters, or the fault.
fn resolve(pages: u32, body: &str) -> Result<usize, PluginFault> {
    let mut policy = install(&by_hand(pages, BUFFER, &resolving(body))).unwrap();
    let question = PolicyQuestion::Resolve { scenario: "call".into(), labels: [].into() };
    policy.ask(&question, 0).map(|answered| match answered.answer {
        HookAnswer::Params(params) => params.len(),
        other => panic!("{other:?}"),
    })
}

/// Writes the list `(address, length)` at 40,000 and returns that address.
fn list(address: u32, length: u32) -> String {
    format!(
        "(i32.store (i32.const 40000) (i32.const {address}))
         (i32.store (i32.const 40004) (i32.const {length}))
         (i32.const 40000)"
    )
}

#[test]
fn flat_answer_outside_memory_is_malformed() {
    assert_eq!(resolve(1, &list(u32::MAX, 0)), Ok(0), "the address of an empty list means nothing");
    assert_eq!(resolve(1, &list(65_520, 1)), Ok(1), "the last record of the memory");
    for body in [
        list(65_521, 1),
        list(0, u32::MAX),
        list(u32::MAX - 7, 1),
        "i32.const -4".into(),
        "i32.const 65532".into(),
    ] {
        assert!(matches!(resolve(1, &body), Err(PluginFault::Malformed(_))), "{body}");
    }
    // The key of the parameter at 50,000.
    let key = |address: u32, length: u32| {
        format!(
            "(i32.store (i32.const 50000) (i32.const {address}))
             (i32.store (i32.const 50004) (i32.const {length}))
             {}",
            list(50_000, 1)
        )
    };
    assert_eq!(resolve(1, &key(40_000, 0)), Ok(1));
    let invalid = format!("(i32.store (i32.const 60000) (i32.const 255)) {}", key(60_000, 1));
    for body in [key(65_000, 1_000), key(u32::MAX, u32::MAX), invalid] {
        assert!(matches!(resolve(1, &body), Err(PluginFault::Malformed(_))), "{body}");
    }
}

#[test]
fn flat_answer_has_a_limit() {
    // 256 KiB are 16,384 parameters of 16 bytes.
    assert_eq!(resolve(20, &list(131_072, 16_384)), Ok(16_384));
    assert!(matches!(resolve(20, &list(131_072, 16_385)), Err(PluginFault::Malformed(_))));
}

#[test]
fn flat_buffer_outside_memory_is_malformed() {
    for reserve in ["i32.const 57344", "i32.const -8", "i32.const 4", "i32.const 65536"] {
        let refused = install(&by_hand(1, reserve, &resolving(&list(0, 0)))).err().unwrap();
        let PluginRefusal::Faulted { call: "init", fault } = &refused else {
            panic!("{refused:?}")
        };
        assert!(matches!(fault, PluginFault::Malformed(_)), "{reserve}: {fault}");
    }
    let refused = install(&by_hand(1, "unreachable", &resolving(&list(0, 0)))).err().unwrap();
    let fault = PluginFault::Trap("wasm trap: wasm `unreachable` instruction executed".into());
    assert_eq!(refused, PluginRefusal::Faulted { call: "init", fault });
}

#[test]
fn flat_plugin_without_a_function_is_refused() {
    let missing = "flat_evenkeel:policy/scenario@0.1.0#resolve";
    let refused = Component::vet(roomy(), &by_hand(1, BUFFER, "")).err();
    assert_eq!(refused, Some(PluginRefusal::ExportMissing(missing.into())));
    let other = format!("(func (export \"{missing}\") (param i64) (result i32) i32.const 0)");
    assert!(matches!(install(&by_hand(1, BUFFER, &other)), Err(PluginRefusal::Engine(_))));
}

#[test]
fn flat_plugin_is_stopped_at_its_budget() {
    let engine = Engine::new();
    let module = by_hand(1, BUFFER, &resolving("(loop br 0) unreachable"));
    let component = Component::vet(&engine, &module).unwrap();
    let hook = Hook::Scenario;
    let mut policy =
        BoundPlugin::install(&engine, &component, hook, Value::Null, Vec::new(), 0).unwrap();
    let question = PolicyQuestion::Resolve { scenario: "call".into(), labels: [].into() };
    assert_eq!(policy.ask(&question, 0).err(), Some(PluginFault::Deadline));
    assert_eq!(policy.ask(&question, 0).err(), Some(PluginFault::Deadline), "after a restart");
}
