//! The functions of an instance, called through the component model or flat.

use wasmtime::Store;

use crate::arguments::{AdmitArguments, PlaceArguments, RerouteArguments, TickArguments};
use crate::component::ComponentCalls;
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

impl Calls {
    pub(crate) fn init(
        &mut self,
        store: &mut Store<StoreData>,
        settings: &str,
        grant: guest::Grant<'_>,
    ) -> wasmtime::Result<Result<(), String>> {
        match self {
            Calls::Component(calls) => calls.init(store, settings, grant),
            Calls::Flat(calls) => calls.init(store, settings, &grant),
        }
    }

    pub(crate) fn catalog(
        &mut self,
        store: &mut Store<StoreData>,
        entries: &[Entry<'_>],
    ) -> wasmtime::Result<()> {
        match self {
            Calls::Component(calls) => calls.catalog(store, entries),
            Calls::Flat(calls) => calls.catalog(store, entries),
        }
    }

    pub(crate) fn migrate(
        &mut self,
        store: &mut Store<StoreData>,
        from: u32,
        states: BlobsParam<'_>,
    ) -> wasmtime::Result<Result<BlobsResult, String>> {
        match self {
            Calls::Component(calls) => calls.migrate(store, from, states),
            Calls::Flat(calls) => calls.migrate(store, from, &states),
        }
    }

    pub(crate) fn migrate_memo(
        &mut self,
        store: &mut Store<StoreData>,
        from: u32,
        memo: &[u8],
    ) -> wasmtime::Result<Result<Vec<u8>, String>> {
        match self {
            Calls::Component(calls) => calls.migrate_memo(store, from, memo),
            Calls::Flat(calls) => calls.migrate_memo(store, from, memo),
        }
    }

    pub(crate) fn resolve(
        &mut self,
        store: &mut Store<StoreData>,
        scenario: &str,
        labels: &[Label<'_>],
    ) -> wasmtime::Result<Vec<scenario::Param>> {
        match self {
            Calls::Component(calls) => calls.resolve(store, scenario, labels),
            Calls::Flat(calls) => calls.resolve(store, scenario, labels),
        }
    }

    pub(crate) fn admit(
        &mut self,
        store: &mut Store<StoreData>,
        asked: AdmitArguments<'_>,
    ) -> wasmtime::Result<admission::Answer> {
        match self {
            Calls::Component(calls) => calls.admit(store, asked),
            Calls::Flat(calls) => calls.admit(store, &asked),
        }
    }

    pub(crate) fn place(
        &mut self,
        store: &mut Store<StoreData>,
        asked: PlaceArguments<'_>,
    ) -> wasmtime::Result<routing::Placement> {
        match self {
            Calls::Component(calls) => calls.place(store, asked),
            Calls::Flat(calls) => calls.place(store, &asked),
        }
    }

    pub(crate) fn open_rooms(
        &mut self,
        store: &mut Store<StoreData>,
        newcomers: &[routing::Newcomer<'_>],
    ) -> wasmtime::Result<BlobsResult> {
        match self {
            Calls::Component(calls) => calls.open_rooms(store, newcomers),
            Calls::Flat(calls) => calls.open_rooms(store, newcomers),
        }
    }

    pub(crate) fn reroute(
        &mut self,
        store: &mut Store<StoreData>,
        asked: RerouteArguments<'_>,
    ) -> wasmtime::Result<routing::Answer> {
        match self {
            Calls::Component(calls) => calls.reroute(store, asked),
            Calls::Flat(calls) => calls.reroute(store, &asked),
        }
    }

    pub(crate) fn open_sessions(
        &mut self,
        store: &mut Store<StoreData>,
        newcomers: &[degradation::Newcomer<'_>],
    ) -> wasmtime::Result<BlobsResult> {
        match self {
            Calls::Component(calls) => calls.open_sessions(store, newcomers),
            Calls::Flat(calls) => calls.open_sessions(store, newcomers),
        }
    }

    pub(crate) fn tick(
        &mut self,
        store: &mut Store<StoreData>,
        asked: TickArguments<'_>,
    ) -> wasmtime::Result<degradation::Answer> {
        match self {
            Calls::Component(calls) => calls.tick(store, asked),
            Calls::Flat(calls) => calls.tick(store, &asked),
        }
    }
}
