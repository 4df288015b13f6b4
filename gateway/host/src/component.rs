//! The functions of a plugin that is called through the component model: its language has a compiler that makes
//! components only, or its SDK has no [flat](crate::flat) exports.

use evenkeel_model::Hook;
use wasmtime::Store;
use wasmtime::component::{Component, Instance, InstancePre, Linker};

use crate::arguments::{AdmitArguments, PlaceArguments, RerouteArguments, TickArguments};
use crate::calls::PluginCalls;
use crate::manifest::Manifest;
use crate::store::StoreData;
use crate::store::bindings::evenkeel::policy::types::{BlobsParam, BlobsResult, Entry, Label};
use crate::store::bindings::exports::evenkeel::policy::{
    admission, degradation, guest, routing, scenario,
};

/// A component with the host's functions, and the indices of its exports; hooks missing in the manifest are not looked up.
pub(crate) struct LinkedComponent {
    pub(crate) instance_pre: InstancePre<StoreData>,
    guest: guest::GuestIndices,
    admission: Option<admission::GuestIndices>,
    routing: Option<routing::GuestIndices>,
    degradation: Option<degradation::GuestIndices>,
    scenario: Option<scenario::GuestIndices>,
}

/// The component has no functions of a hook.
#[derive(Debug, thiserror::Error)]
#[error("it has no functions of this hook")]
struct NoSuchHook;

/// A question of a hook that the instance was not created for.
#[derive(Debug, thiserror::Error)]
#[error("the instance answers questions of another hook")]
struct OtherHook;

impl LinkedComponent {
    /// Links a component that has the exports of its manifest.
    ///
    /// # Errors
    /// An import has another type, or an export is missing.
    pub(crate) fn link(
        linker: &Linker<StoreData>,
        component: &Component,
        manifest: &Manifest,
    ) -> wasmtime::Result<LinkedComponent> {
        let pre = linker.instantiate_pre(component)?;
        let named = |hook| manifest.hooks.contains(&hook);
        Ok(LinkedComponent {
            guest: guest::GuestIndices::new(&pre)?,
            admission: named(Hook::Admission)
                .then(|| admission::GuestIndices::new(&pre))
                .transpose()?,
            routing: named(Hook::Routing).then(|| routing::GuestIndices::new(&pre)).transpose()?,
            degradation: named(Hook::Degradation)
                .then(|| degradation::GuestIndices::new(&pre))
                .transpose()?,
            scenario: named(Hook::Scenario)
                .then(|| scenario::GuestIndices::new(&pre))
                .transpose()?,
            instance_pre: pre,
        })
    }

    /// The functions of an instance that answers questions of this hook.
    pub(crate) fn load(
        &self,
        store: &mut Store<StoreData>,
        instance: &Instance,
        hook: Hook,
    ) -> wasmtime::Result<ComponentCalls> {
        let guest = self.guest.load(&mut *store, instance)?;
        macro_rules! load {
            ($field:ident, $calls:ident) => {{
                let indices = self.$field.as_ref().ok_or(NoSuchHook)?;
                HookCalls::$calls(indices.load(&mut *store, instance)?)
            }};
        }
        let hook = match hook {
            Hook::Admission => load!(admission, Admission),
            Hook::Routing => load!(routing, Routing),
            Hook::Degradation => load!(degradation, Degradation),
            Hook::Scenario => load!(scenario, Scenario),
        };
        Ok(ComponentCalls { guest, hook })
    }
}

/// The functions of an instance, one hook's among them.
pub(crate) struct ComponentCalls {
    guest: guest::Guest,
    hook: HookCalls,
}

enum HookCalls {
    Admission(admission::Guest),
    Routing(routing::Guest),
    Degradation(degradation::Guest),
    Scenario(scenario::Guest),
}

impl PluginCalls for ComponentCalls {
    fn init(
        &mut self,
        store: &mut Store<StoreData>,
        settings: &str,
        grant: guest::Grant<'_>,
    ) -> wasmtime::Result<Result<(), String>> {
        self.guest.call_init(store, settings, grant)
    }

    fn catalog(
        &mut self,
        store: &mut Store<StoreData>,
        entries: &[Entry<'_>],
    ) -> wasmtime::Result<()> {
        self.guest.call_catalog(store, entries)
    }

    fn migrate(
        &mut self,
        store: &mut Store<StoreData>,
        from: u32,
        states: BlobsParam<'_>,
    ) -> wasmtime::Result<Result<BlobsResult, String>> {
        self.guest.call_migrate(store, from, states)
    }

    fn migrate_memo(
        &mut self,
        store: &mut Store<StoreData>,
        from: u32,
        memo: &[u8],
    ) -> wasmtime::Result<Result<Vec<u8>, String>> {
        self.guest.call_migrate_memo(store, from, memo)
    }

    fn resolve(
        &mut self,
        store: &mut Store<StoreData>,
        scenario: &str,
        labels: &[Label<'_>],
    ) -> wasmtime::Result<Vec<scenario::Param>> {
        let HookCalls::Scenario(hook) = &self.hook else { return Err(OtherHook.into()) };
        hook.call_resolve(store, scenario, labels)
    }

    fn admit(
        &mut self,
        store: &mut Store<StoreData>,
        asked: AdmitArguments<'_>,
    ) -> wasmtime::Result<admission::Answer> {
        let HookCalls::Admission(hook) = &self.hook else { return Err(OtherHook.into()) };
        let AdmitArguments { now_us, session, room, standing, scenario, labels, regions } = asked;
        hook.call_admit(store, now_us, session, room, standing, scenario, labels, regions)
    }

    fn place(
        &mut self,
        store: &mut Store<StoreData>,
        asked: PlaceArguments<'_>,
    ) -> wasmtime::Result<routing::Placement> {
        let HookCalls::Routing(hook) = &self.hook else { return Err(OtherHook.into()) };
        let PlaceArguments { now_us, room, scenario, labels, nodes } = asked;
        hook.call_place(store, now_us, room, scenario, labels, nodes)
    }

    fn open_rooms(
        &mut self,
        store: &mut Store<StoreData>,
        newcomers: &[routing::Newcomer<'_>],
    ) -> wasmtime::Result<BlobsResult> {
        let HookCalls::Routing(hook) = &self.hook else { return Err(OtherHook.into()) };
        hook.call_open(store, newcomers)
    }

    fn reroute(
        &mut self,
        store: &mut Store<StoreData>,
        asked: RerouteArguments<'_>,
    ) -> wasmtime::Result<routing::Answer> {
        let HookCalls::Routing(hook) = &self.hook else { return Err(OtherHook.into()) };
        let RerouteArguments { now_us, nodes, rooms, width, standing, states, memo } = asked;
        hook.call_reroute(store, now_us, nodes, rooms, width, standing, states, memo)
    }

    fn open_sessions(
        &mut self,
        store: &mut Store<StoreData>,
        newcomers: &[degradation::Newcomer<'_>],
    ) -> wasmtime::Result<BlobsResult> {
        let HookCalls::Degradation(hook) = &self.hook else { return Err(OtherHook.into()) };
        hook.call_open(store, newcomers)
    }

    fn tick(
        &mut self,
        store: &mut Store<StoreData>,
        asked: TickArguments<'_>,
    ) -> wasmtime::Result<degradation::Answer> {
        let HookCalls::Degradation(hook) = &self.hook else { return Err(OtherHook.into()) };
        let TickArguments { now_us, sessions, states, memo } = asked;
        hook.call_tick(store, now_us, sessions, states, memo)
    }
}
