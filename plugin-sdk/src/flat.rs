//! The flat calling convention: the gateway writes a function's arguments into a buffer of the plugin, calls it with one
//! address, and reads the answer at the address that is returned.
//!
//! Arguments and answers are records in the layout of the canonical ABI, so the types below mirror `wit/policy.wit`. The
//! hook attributes export each function this way and by the component model; a gateway uses one of them. Lists of
//! arguments are read in place: a question about a batch is copied once, by the gateway.

#![allow(missing_docs, unsafe_code, reason = "the gateway passes addresses, and reads records")]

use std::cell::RefCell;
use std::slice;

use crate::admission::{Admission, Admit, admit as judge};
use crate::degradation::{self, Degradation};
use crate::frame::Table;
use crate::guest::{Loaded, Plugin, Policy};
use crate::keep::StateTable;
use crate::registry::Param;
use crate::routing::{self, Routing};
use crate::scenario::{self, Scenario};
use crate::wit::admission::exports::evenkeel::policy::admission as admission_abi;
use crate::wit::degradation::exports::evenkeel::policy::degradation as degradation_abi;
use crate::wit::guest_interface::{Grant, Guest};
use crate::wit::routing::exports::evenkeel::policy::routing as routing_abi;
use crate::wit::types;

/// Words of the longest answer's record.
const RECORD_WORDS: usize = 12;

/// An answer, which stays until the next call.
struct Answer {
    record: [u32; RECORD_WORDS],
    lists: Lists,
}

/// The lists that a record points to.
#[expect(dead_code, reason = "the gateway reads them by their addresses")]
enum Lists {
    Nothing,
    Text(String),
    Bytes(Vec<u8>),
    States(types::Blobs),
    Placement(routing_abi::Placement),
    Moves(Vec<MoveRecord>, routing_abi::Answer),
    Actions(Vec<ActionRecord>, types::Keep),
    Params(Vec<ParamRecord>),
}

thread_local! {
    static ARGUMENTS: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    static ANSWER: RefCell<Answer> =
        const { RefCell::new(Answer { record: [0; RECORD_WORDS], lists: Lists::Nothing }) };
}

/// Replaces the buffer for arguments.
pub fn reserve(bytes: usize) -> *const u8 {
    #[cfg(target_arch = "wasm32")]
    wit_bindgen::rt::run_ctors_once();
    ARGUMENTS.with_borrow_mut(|buffer| {
        // Frees the previous one first.
        *buffer = Vec::new();
        *buffer = vec![0; bytes.div_ceil(size_of::<u64>())];
        buffer.as_ptr().cast()
    })
}

/// Keeps an answer, and returns the address of its record, which is the fields in order.
fn answer(fields: &[&[u32]], lists: Lists) -> *const u8 {
    ANSWER.with_borrow_mut(|answer| {
        let words = fields.iter().copied().flatten();
        answer.record.iter_mut().zip(words).for_each(|(to, word)| *to = *word);
        answer.lists = lists;
        answer.record.as_ptr().cast()
    })
}

/// Address and length of a list, as a field of a record.
fn list<T>(items: &[T]) -> [u32; 2] {
    [items.as_ptr() as usize as u32, items.len() as u32]
}

/// Address and length of a list of the gateway.
#[repr(C)]
struct List<T> {
    at: *const T,
    length: usize,
}

impl<T: 'static> List<T> {
    /// # Safety
    ///
    /// The gateway wrote the list, and the items stay until the call returns.
    unsafe fn items<'a>(&self) -> &'a [T] {
        match self.length {
            // The address of an empty list means nothing.
            0 => &[],
            length => unsafe { slice::from_raw_parts(self.at, length) },
        }
    }
}

impl List<u8> {
    /// # Safety
    ///
    /// As for [`List::items`].
    unsafe fn text<'a>(&self) -> &'a str {
        // The gateway writes UTF-8.
        str::from_utf8(unsafe { self.items() }).unwrap_or_default()
    }
}

#[repr(C)]
struct FrameRecord {
    ids: List<u64>,
    cells: List<u32>,
}

impl FrameRecord {
    /// # Safety
    ///
    /// As for [`List::items`].
    unsafe fn table<'a>(&self) -> Table<'a> {
        unsafe { Table { ids: self.ids.items(), cells: self.cells.items() } }
    }
}

#[repr(C)]
struct BlobsRecord {
    offsets: List<u32>,
    bytes: List<u8>,
}

impl BlobsRecord {
    /// # Safety
    ///
    /// As for [`List::items`].
    unsafe fn table<'a>(&self) -> StateTable<'a> {
        unsafe { StateTable { offsets: self.offsets.items(), bytes: self.bytes.items() } }
    }
}

#[repr(C)]
struct LabelRecord {
    key: List<u8>,
    value: List<u8>,
}

impl List<LabelRecord> {
    /// # Safety
    ///
    /// As for [`List::items`].
    unsafe fn labels(&self) -> Vec<types::Label> {
        unsafe {
            let label = |label: &LabelRecord| types::Label {
                key: label.key.text().to_owned(),
                value: label.value.text().to_owned(),
            };
            self.items().iter().map(label).collect()
        }
    }
}

#[repr(C)]
struct InitRecord {
    settings: List<u8>,
    subject_metrics: List<u32>,
    node_metrics: List<u32>,
    ops: List<u32>,
    seed: u64,
}

#[repr(C)]
struct EntryRecord {
    kind: u32,
    id: u64,
    parent: u64,
    name: List<u8>,
    labels: List<LabelRecord>,
}

#[repr(C)]
struct MigrateRecord {
    from_schema: u32,
    states: BlobsRecord,
}

#[repr(C)]
struct MigrateMemoRecord {
    from_schema: u32,
    memo: List<u8>,
}

#[repr(C)]
struct AdmitRecord {
    now_us: u64,
    session: u64,
    room: u64,
    stands: u8,
    standing: u64,
    scenario: List<u8>,
    labels: List<LabelRecord>,
    regions: FrameRecord,
}

#[repr(C)]
struct PlaceRecord {
    now_us: u64,
    room: u64,
    scenario: List<u8>,
    labels: List<LabelRecord>,
    nodes: FrameRecord,
}

#[repr(C)]
struct NewRoomRecord {
    room: u64,
    scenario: List<u8>,
    labels: List<LabelRecord>,
}

#[repr(C)]
struct RerouteRecord {
    now_us: u64,
    nodes: FrameRecord,
    rooms: FrameRecord,
    width: u32,
    standing: List<u32>,
    states: BlobsRecord,
    memo: List<u8>,
}

#[repr(C)]
struct NewSessionRecord {
    session: u64,
    room: u64,
    scenario: List<u8>,
    labels: List<LabelRecord>,
}

#[repr(C)]
struct TickRecord {
    now_us: u64,
    sessions: FrameRecord,
    states: BlobsRecord,
    memo: List<u8>,
}

#[repr(C)]
struct ResolveRecord {
    scenario: List<u8>,
    labels: List<LabelRecord>,
}

#[repr(C)]
struct MoveRecord {
    row: u32,
    hops: [u32; 2],
    ttl_ms: u32,
    reason: u32,
}

#[repr(C)]
struct ActionRecord {
    row: u32,
    op: u32,
    arg: u64,
    reason: u32,
}

#[repr(C)]
struct ParamRecord {
    key: [u32; 2],
    value: i64,
}

/// The layout of the canonical ABI, which the gateway reads and writes.
#[cfg(target_arch = "wasm32")]
const _: () = {
    assert!(size_of::<InitRecord>() == 40 && size_of::<EntryRecord>() == 40);
    assert!(size_of::<MigrateRecord>() == 20 && size_of::<MigrateMemoRecord>() == 12);
    assert!(size_of::<AdmitRecord>() == 72 && size_of::<PlaceRecord>() == 48);
    assert!(size_of::<NewRoomRecord>() == 24 && size_of::<NewSessionRecord>() == 32);
    assert!(size_of::<RerouteRecord>() == 80 && size_of::<TickRecord>() == 48);
    assert!(size_of::<ResolveRecord>() == 16 && size_of::<MoveRecord>() == 20);
    assert!(size_of::<ActionRecord>() == 24 && size_of::<ParamRecord>() == 16);
};

/// The fields of a batch's states and memo.
fn keep_fields(keep: &types::Keep) -> [u32; 9] {
    let ([rows, row_count], [offsets, offset_count]) =
        (list(&keep.rows), list(&keep.states.offsets));
    let [bytes, size] = list(&keep.states.bytes);
    let [memo, memo_size] = keep.memo.as_deref().map_or([0; 2], list);
    let has_memo = keep.memo.is_some().into();
    [rows, row_count, offsets, offset_count, bytes, size, has_memo, memo, memo_size]
}

fn failed(said: String) -> *const u8 {
    answer(&[&[1], &list(said.as_bytes())], Lists::Text(said))
}

/// # Safety
///
/// `at` is the address of the arguments, which the gateway wrote. The same holds for every function below.
pub unsafe fn init<P: Policy>(at: *const u8) -> *const u8 {
    let asked = unsafe { &*at.cast::<InitRecord>() };
    let (settings, grant) = unsafe {
        let grant = Grant {
            subject_metrics: asked.subject_metrics.items().to_vec(),
            node_metrics: asked.node_metrics.items().to_vec(),
            ops: asked.ops.items().to_vec(),
            seed: asked.seed,
        };
        (asked.settings.text().to_owned(), grant)
    };
    match Plugin::<P>::init(settings, grant) {
        Ok(()) => answer(&[&[0]], Lists::Nothing),
        Err(said) => failed(said),
    }
}

/// # Safety
///
/// As for [`init`].
pub unsafe fn catalog<P: Policy>(at: *const u8) -> *const u8 {
    let entries = unsafe { &*at.cast::<List<EntryRecord>>() };
    let entry = |entry: &EntryRecord| types::Entry {
        kind: entry.kind,
        id: entry.id,
        parent: entry.parent,
        name: unsafe { entry.name.text() }.to_owned(),
        labels: unsafe { entry.labels.labels() },
    };
    Plugin::<P>::catalog(unsafe { entries.items() }.iter().map(entry).collect());
    answer(&[], Lists::Nothing)
}

/// # Safety
///
/// As for [`init`].
pub unsafe fn migrate<P: Policy>(at: *const u8) -> *const u8 {
    let asked = unsafe { &*at.cast::<MigrateRecord>() };
    let StateTable { offsets, bytes } = unsafe { asked.states.table() };
    let states = types::Blobs { offsets: offsets.to_vec(), bytes: bytes.to_vec() };
    match Plugin::<P>::migrate(asked.from_schema, states) {
        Ok(states) => {
            let fields: [&[u32]; 3] = [&[0], &list(&states.offsets), &list(&states.bytes)];
            answer(&fields, Lists::States(states))
        }
        Err(said) => failed(said),
    }
}

/// # Safety
///
/// As for [`init`].
pub unsafe fn migrate_memo<P: Policy>(at: *const u8) -> *const u8 {
    let asked = unsafe { &*at.cast::<MigrateMemoRecord>() };
    match Plugin::<P>::migrate_memo(asked.from_schema, unsafe { asked.memo.items() }.to_vec()) {
        Ok(memo) => answer(&[&[0], &list(&memo)], Lists::Bytes(memo)),
        Err(said) => failed(said),
    }
}

/// # Safety
///
/// As for [`init`].
pub unsafe fn admit<P: Policy + Admission>(at: *const u8) -> *const u8 {
    let asked = unsafe { &*at.cast::<AdmitRecord>() };
    let labels = unsafe { asked.labels.labels() };
    let asked = Admit {
        now_us: asked.now_us,
        session: asked.session,
        room: asked.room,
        standing: (asked.stands != 0).then_some(asked.standing),
        scenario: unsafe { asked.scenario.text() },
        labels: &labels,
        regions: unsafe { asked.regions.table() },
    };
    let admission_abi::Answer { verdict, reason } =
        Loaded::<P>::with(|loaded| judge(loaded, &asked)).answer();
    let (case, value): (u32, u64) = match verdict {
        admission_abi::Verdict::Abstain => (0, 0),
        admission_abi::Verdict::Accept => (1, 0),
        admission_abi::Verdict::AcceptCapped(kbps) => (2, kbps.into()),
        admission_abi::Verdict::Redirect(region) => (3, region),
        admission_abi::Verdict::Reject(retry_ms) => (4, retry_ms.into()),
    };
    let words = [case, 0, value as u32, (value >> 32) as u32, reason];
    answer(&[&words], Lists::Nothing)
}

/// # Safety
///
/// As for [`init`].
pub unsafe fn place<P: Policy + Routing>(at: *const u8) -> *const u8 {
    let asked = unsafe { &*at.cast::<PlaceRecord>() };
    let (scenario, labels) = unsafe { (asked.scenario.text(), asked.labels.labels()) };
    let nodes = unsafe { asked.nodes.table() };
    let placement = Loaded::<P>::with(|loaded| {
        routing::place(loaded, asked.now_us, asked.room, scenario, &labels, nodes)
    });
    let numbers = [placement.ttl_ms, placement.reason];
    let (hops, state) = (list(&placement.hops), list(&placement.state));
    answer(&[&hops, &numbers, &state], Lists::Placement(placement))
}

/// # Safety
///
/// As for [`init`].
pub unsafe fn open_rooms<P: Policy + Routing>(at: *const u8) -> *const u8 {
    let newcomers = unsafe { &*at.cast::<List<NewRoomRecord>>() };
    let newcomer = |newcomer: &NewRoomRecord| routing_abi::Newcomer {
        room: newcomer.room,
        scenario: unsafe { newcomer.scenario.text() }.to_owned(),
        labels: unsafe { newcomer.labels.labels() },
    };
    let newcomers: Vec<_> = unsafe { newcomers.items() }.iter().map(newcomer).collect();
    first_states(Loaded::<P>::with(|loaded| routing::open(loaded, &newcomers)))
}

fn first_states(states: types::Blobs) -> *const u8 {
    answer(&[&list(&states.offsets), &list(&states.bytes)], Lists::States(states))
}

/// # Safety
///
/// As for [`init`].
pub unsafe fn reroute<P: Policy + Routing>(at: *const u8) -> *const u8 {
    let asked = unsafe { &*at.cast::<RerouteRecord>() };
    let asked = unsafe {
        routing::Reroute {
            now_us: asked.now_us,
            nodes: asked.nodes.table(),
            rooms: asked.rooms.table(),
            width: asked.width,
            standing: asked.standing.items(),
            states: asked.states.table(),
            memo: asked.memo.items(),
        }
    };
    let moved = Loaded::<P>::with(|loaded| routing::reroute(loaded, &asked));
    let record = |moved: &routing_abi::Move| MoveRecord {
        row: moved.row,
        hops: list(&moved.hops),
        ttl_ms: moved.ttl_ms,
        reason: moved.reason,
    };
    let moves: Vec<MoveRecord> = moved.moves.iter().map(record).collect();
    let (first, keep) = (list(&moves), keep_fields(&moved.keep));
    answer(&[&first, &keep], Lists::Moves(moves, moved))
}

/// # Safety
///
/// As for [`init`].
pub unsafe fn open_sessions<P: Policy + Degradation>(at: *const u8) -> *const u8 {
    let newcomers = unsafe { &*at.cast::<List<NewSessionRecord>>() };
    let newcomer = |newcomer: &NewSessionRecord| degradation_abi::Newcomer {
        session: newcomer.session,
        room: newcomer.room,
        scenario: unsafe { newcomer.scenario.text() }.to_owned(),
        labels: unsafe { newcomer.labels.labels() },
    };
    let newcomers: Vec<_> = unsafe { newcomers.items() }.iter().map(newcomer).collect();
    first_states(Loaded::<P>::with(|loaded| degradation::open(loaded, &newcomers)))
}

/// # Safety
///
/// As for [`init`].
pub unsafe fn tick<P: Policy + Degradation>(at: *const u8) -> *const u8 {
    let asked = unsafe { &*at.cast::<TickRecord>() };
    let (sessions, states) = unsafe { (asked.sessions.table(), asked.states.table()) };
    let memo = unsafe { asked.memo.items() };
    let decided =
        Loaded::<P>::with(|loaded| degradation::tick(loaded, asked.now_us, sessions, states, memo));
    let degradation_abi::Answer { actions, keep } = decided;
    let record = |action: &degradation_abi::Action| ActionRecord {
        row: action.row,
        op: action.op,
        arg: action.arg,
        reason: action.reason,
    };
    let actions: Vec<ActionRecord> = actions.iter().map(record).collect();
    let (first, fields) = (list(&actions), keep_fields(&keep));
    answer(&[&first, &fields], Lists::Actions(actions, keep))
}

/// # Safety
///
/// As for [`init`].
pub unsafe fn resolve<P: Policy + Scenario>(at: *const u8) -> *const u8 {
    let asked = unsafe { &*at.cast::<ResolveRecord>() };
    let (scenario, labels) = unsafe { (asked.scenario.text(), asked.labels.labels()) };
    let params = Loaded::<P>::with(|loaded| scenario::resolve(loaded, scenario, &labels));
    let record =
        |&(param, value): &(Param, i64)| ParamRecord { key: list(param.name().as_bytes()), value };
    let params: Vec<ParamRecord> = params.0.iter().map(record).collect();
    answer(&[&list(&params)], Lists::Params(params))
}

/// Exports a function of the contract in the flat calling convention.
#[doc(hidden)]
#[macro_export]
macro_rules! flat_export {
    ($name:tt, $function:ident, $policy:ty) => {
        const _: () = {
            #[unsafe(export_name = $name)]
            unsafe extern "C" fn exported(at: *const u8) -> *const u8 {
                // SAFETY: the gateway calls it with the address of the arguments.
                unsafe { $crate::flat::$function::<$policy>(at) }
            }
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! flat_guest {
    ($policy:ty) => {
        const _: () = {
            #[unsafe(export_name = "flat_reserve")]
            extern "C" fn reserve(bytes: usize) -> *const u8 {
                $crate::flat::reserve(bytes)
            }
        };
        $crate::flat_export!("flat_evenkeel:policy/guest@0.1.1#init", init, $policy);
        $crate::flat_export!("flat_evenkeel:policy/guest@0.1.1#catalog", catalog, $policy);
        $crate::flat_export!("flat_evenkeel:policy/guest@0.1.1#migrate", migrate, $policy);
        $crate::flat_export!(
            "flat_evenkeel:policy/guest@0.1.1#migrate-memo",
            migrate_memo,
            $policy
        );
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! flat_admission {
    ($policy:ty) => {
        $crate::flat_export!("flat_evenkeel:policy/admission@0.1.1#admit", admit, $policy);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! flat_routing {
    ($policy:ty) => {
        $crate::flat_export!("flat_evenkeel:policy/routing@0.1.1#place", place, $policy);
        $crate::flat_export!("flat_evenkeel:policy/routing@0.1.1#open", open_rooms, $policy);
        $crate::flat_export!("flat_evenkeel:policy/routing@0.1.1#reroute", reroute, $policy);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! flat_degradation {
    ($policy:ty) => {
        $crate::flat_export!("flat_evenkeel:policy/degradation@0.1.1#tick", tick, $policy);
        $crate::flat_export!("flat_evenkeel:policy/degradation@0.1.1#open", open_sessions, $policy);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! flat_scenario {
    ($policy:ty) => {
        $crate::flat_export!("flat_evenkeel:policy/scenario@0.1.1#resolve", resolve, $policy);
    };
}
