//! The functions of a plugin's instance, however it is called.

use wasmtime::Store;

use crate::arguments::{AdmitArguments, PlaceArguments, RerouteArguments, TickArguments};
use crate::store::StoreData;
use crate::store::bindings::evenkeel::policy::types::{BlobsParam, BlobsResult, Entry, Label};
use crate::store::bindings::exports::evenkeel::policy::{
    admission, degradation, guest, routing, scenario,
};

/// The functions of an instance that answers the questions of one hook.
pub(crate) trait PluginCalls: Send {
    fn init(
        &mut self,
        store: &mut Store<StoreData>,
        settings: &str,
        grant: guest::Grant<'_>,
    ) -> wasmtime::Result<Result<(), String>>;

    fn catalog(
        &mut self,
        store: &mut Store<StoreData>,
        entries: &[Entry<'_>],
    ) -> wasmtime::Result<()>;

    fn migrate(
        &mut self,
        store: &mut Store<StoreData>,
        from: u32,
        states: BlobsParam<'_>,
    ) -> wasmtime::Result<Result<BlobsResult, String>>;

    fn migrate_memo(
        &mut self,
        store: &mut Store<StoreData>,
        from: u32,
        memo: &[u8],
    ) -> wasmtime::Result<Result<Vec<u8>, String>>;

    fn resolve(
        &mut self,
        store: &mut Store<StoreData>,
        scenario: &str,
        labels: &[Label<'_>],
    ) -> wasmtime::Result<Vec<scenario::Param>>;

    fn admit(
        &mut self,
        store: &mut Store<StoreData>,
        asked: AdmitArguments<'_>,
    ) -> wasmtime::Result<admission::Answer>;

    fn place(
        &mut self,
        store: &mut Store<StoreData>,
        asked: PlaceArguments<'_>,
    ) -> wasmtime::Result<routing::Placement>;

    fn open_rooms(
        &mut self,
        store: &mut Store<StoreData>,
        newcomers: &[routing::Newcomer<'_>],
    ) -> wasmtime::Result<BlobsResult>;

    fn reroute(
        &mut self,
        store: &mut Store<StoreData>,
        asked: RerouteArguments<'_>,
    ) -> wasmtime::Result<routing::Answer>;

    fn open_sessions(
        &mut self,
        store: &mut Store<StoreData>,
        newcomers: &[degradation::Newcomer<'_>],
    ) -> wasmtime::Result<BlobsResult>;

    fn tick(
        &mut self,
        store: &mut Store<StoreData>,
        asked: TickArguments<'_>,
    ) -> wasmtime::Result<degradation::Answer>;
}
