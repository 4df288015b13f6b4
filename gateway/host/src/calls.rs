//! The functions of an instance, called through the component model or flat.

use wasmtime::Store;

use crate::arguments::{AdmitArguments, PlaceArguments, RerouteArguments, TickArguments};
use crate::flat::FlatCalls;
use crate::store::StoreData;
use crate::store::bindings::evenkeel::policy::types::{BlobsParam, BlobsResult, Entry, Label};
use crate::store::bindings::exports::evenkeel::policy::{
    admission, degradation, guest, routing, scenario,
};

/// The functions of an instance that answers the questions of one hook.
pub(crate) enum Calls {
    Component(ComponentCalls),
    Flat(FlatCalls),
}

pub(crate) struct ComponentCalls {
    pub(crate) base: guest::Guest,
    pub(crate) hook: HookCalls,
}

pub(crate) enum HookCalls {
    Admission(admission::Guest),
    Routing(routing::Guest),
    Degradation(degradation::Guest),
    Scenario(scenario::Guest),
}

/// A question of a hook that the instance was not created for.
#[derive(Debug, thiserror::Error)]
#[error("the instance answers questions of another hook")]
struct OtherHook;

type Outcome<T> = wasmtime::Result<T>;

impl Calls {
    pub(crate) fn init(
        &mut self,
        store: &mut Store<StoreData>,
        settings: &str,
        grant: guest::Grant<'_>,
    ) -> Outcome<Result<(), String>> {
        match self {
            Calls::Component(calls) => calls.base.call_init(store, settings, grant),
            Calls::Flat(calls) => calls.init(store, settings, &grant),
        }
    }

    pub(crate) fn catalog(
        &mut self,
        store: &mut Store<StoreData>,
        entries: &[Entry<'_>],
    ) -> Outcome<()> {
        match self {
            Calls::Component(calls) => calls.base.call_catalog(store, entries),
            Calls::Flat(calls) => calls.catalog(store, entries),
        }
    }

    pub(crate) fn migrate(
        &mut self,
        store: &mut Store<StoreData>,
        from: u32,
        states: BlobsParam<'_>,
    ) -> Outcome<Result<BlobsResult, String>> {
        match self {
            Calls::Component(calls) => calls.base.call_migrate(store, from, states),
            Calls::Flat(calls) => calls.migrate(store, from, &states),
        }
    }

    pub(crate) fn migrate_memo(
        &mut self,
        store: &mut Store<StoreData>,
        from: u32,
        memo: &[u8],
    ) -> Outcome<Result<Vec<u8>, String>> {
        match self {
            Calls::Component(calls) => calls.base.call_migrate_memo(store, from, memo),
            Calls::Flat(calls) => calls.migrate_memo(store, from, memo),
        }
    }

    pub(crate) fn resolve(
        &mut self,
        store: &mut Store<StoreData>,
        scenario: &str,
        labels: &[Label<'_>],
    ) -> Outcome<Vec<scenario::Param>> {
        match self {
            Calls::Component(ComponentCalls { hook: HookCalls::Scenario(hook), .. }) => {
                hook.call_resolve(store, scenario, labels)
            }
            Calls::Component(_) => Err(OtherHook.into()),
            Calls::Flat(calls) => calls.resolve(store, scenario, labels),
        }
    }

    pub(crate) fn admit(
        &mut self,
        store: &mut Store<StoreData>,
        asked: AdmitArguments<'_>,
    ) -> Outcome<admission::Answer> {
        match self {
            Calls::Component(ComponentCalls { hook: HookCalls::Admission(hook), .. }) => {
                let AdmitArguments { now_us, session, room, standing, scenario, labels, regions } =
                    asked;
                hook.call_admit(store, now_us, session, room, standing, scenario, labels, regions)
            }
            Calls::Component(_) => Err(OtherHook.into()),
            Calls::Flat(calls) => calls.admit(store, &asked),
        }
    }

    pub(crate) fn place(
        &mut self,
        store: &mut Store<StoreData>,
        asked: PlaceArguments<'_>,
    ) -> Outcome<routing::Placement> {
        match self {
            Calls::Component(ComponentCalls { hook: HookCalls::Routing(hook), .. }) => {
                let PlaceArguments { now_us, room, scenario, labels, nodes } = asked;
                hook.call_place(store, now_us, room, scenario, labels, nodes)
            }
            Calls::Component(_) => Err(OtherHook.into()),
            Calls::Flat(calls) => calls.place(store, &asked),
        }
    }

    pub(crate) fn open_rooms(
        &mut self,
        store: &mut Store<StoreData>,
        newcomers: &[routing::Newcomer<'_>],
    ) -> Outcome<BlobsResult> {
        match self {
            Calls::Component(ComponentCalls { hook: HookCalls::Routing(hook), .. }) => {
                hook.call_open(store, newcomers)
            }
            Calls::Component(_) => Err(OtherHook.into()),
            Calls::Flat(calls) => calls.open_rooms(store, newcomers),
        }
    }

    pub(crate) fn reroute(
        &mut self,
        store: &mut Store<StoreData>,
        asked: RerouteArguments<'_>,
    ) -> Outcome<routing::Answer> {
        match self {
            Calls::Component(ComponentCalls { hook: HookCalls::Routing(hook), .. }) => {
                let RerouteArguments { now_us, nodes, rooms, width, standing, states, memo } =
                    asked;
                hook.call_reroute(store, now_us, nodes, rooms, width, standing, states, memo)
            }
            Calls::Component(_) => Err(OtherHook.into()),
            Calls::Flat(calls) => calls.reroute(store, &asked),
        }
    }

    pub(crate) fn open_sessions(
        &mut self,
        store: &mut Store<StoreData>,
        newcomers: &[degradation::Newcomer<'_>],
    ) -> Outcome<BlobsResult> {
        match self {
            Calls::Component(ComponentCalls { hook: HookCalls::Degradation(hook), .. }) => {
                hook.call_open(store, newcomers)
            }
            Calls::Component(_) => Err(OtherHook.into()),
            Calls::Flat(calls) => calls.open_sessions(store, newcomers),
        }
    }

    pub(crate) fn tick(
        &mut self,
        store: &mut Store<StoreData>,
        asked: TickArguments<'_>,
    ) -> Outcome<degradation::Answer> {
        match self {
            Calls::Component(ComponentCalls { hook: HookCalls::Degradation(hook), .. }) => {
                let TickArguments { now_us, sessions, states, memo } = asked;
                hook.call_tick(store, now_us, sessions, states, memo)
            }
            Calls::Component(_) => Err(OtherHook.into()),
            Calls::Flat(calls) => calls.tick(store, &asked),
        }
    }
}
