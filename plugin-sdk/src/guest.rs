//! The exports of every plugin, and the instance's policy.

use std::any::Any;
use std::cell::RefCell;
use std::marker::PhantomData;

use crate::catalog::Catalog;
use crate::frame::Columns;
use crate::keep;
use crate::registry::{Metric, Op};
use crate::settings::Settings;
use crate::state::{State, pack};
use crate::wit::guest_interface as abi;
use crate::wit::types;

/// The gateway's view of a policy, independent of its hook. The attribute macros implement it.
pub trait Policy: Settings {
    /// State of a session or room.
    type State: State;
    /// State of the policy itself.
    type Memo: State;
    /// Metrics that the policy reads.
    const READS: &'static [Metric];
    /// Actions that the policy takes.
    const OPS: &'static [Op];
    /// The manifest: JSON, as in the plugin's custom section `evenkeel:manifest`.
    const MANIFEST: &'static str;
}

/// A policy behind the contract's exports.
#[derive(Debug)]
pub struct Plugin<P>(PhantomData<P>);

/// A policy with its settings, grant and catalog.
#[derive(Debug)]
pub(crate) struct Loaded<P> {
    pub(crate) policy: P,
    pub(crate) catalog: Catalog,
    pub(crate) subject: Columns,
    pub(crate) node: Columns,
    pub(crate) ops: Box<[u32]>,
    pub(crate) seed: u64,
}

thread_local! {
    /// The policy of this instance. An instance has one thread and one policy.
    static LOADED: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
}

impl<P: Settings> Loaded<P> {
    pub(crate) fn new(policy: P, grant: &abi::Grant) -> Loaded<P> {
        Loaded {
            policy,
            catalog: Catalog::default(),
            subject: Columns::new(&grant.subject_metrics),
            node: Columns::new(&grant.node_metrics),
            ops: grant.ops.as_slice().into(),
            seed: grant.seed,
        }
    }

    /// Calls `f` with the policy of this instance.
    ///
    /// # Panics
    ///
    /// Panics before `init` has succeeded; the gateway calls `init` first.
    pub(crate) fn with<R>(f: impl FnOnce(&Loaded<P>) -> R) -> R {
        LOADED.with_borrow(|loaded| {
            let loaded = loaded.as_ref().and_then(|loaded| loaded.downcast_ref());
            f(loaded.expect("the gateway calls init before anything else"))
        })
    }

    fn with_mut<R>(f: impl FnOnce(&mut Loaded<P>) -> R) -> R {
        LOADED.with_borrow_mut(|loaded| {
            let loaded = loaded.as_mut().and_then(|loaded| loaded.downcast_mut());
            f(loaded.expect("the gateway calls init before anything else"))
        })
    }
}

impl<P: Policy> abi::Guest for Plugin<P> {
    fn init(settings: String, grant: abi::Grant) -> Result<(), String> {
        crate::diag::log_panics();
        let loaded = Loaded::new(P::parse(&settings)?, &grant);
        LOADED.set(Some(Box::new(loaded)));
        Ok(())
    }

    fn catalog(entries: Vec<types::Entry>) {
        Loaded::<P>::with_mut(|loaded| loaded.catalog = Catalog::new(entries));
    }

    fn migrate(from_schema: u32, states: types::Blobs) -> Result<types::Blobs, String> {
        let mut migrated = keep::no_blobs();
        for row in 0..states.offsets.len().saturating_sub(1) {
            let state = P::State::migrate(from_schema, keep::row(&states, row));
            let state = state.ok_or_else(|| unreadable("state", from_schema, P::State::SCHEMA))?;
            keep::push(&mut migrated, &state);
        }
        Ok(migrated)
    }

    fn migrate_memo(from_schema: u32, memo: Vec<u8>) -> Result<Vec<u8>, String> {
        let migrated = P::Memo::migrate(from_schema, &memo);
        let migrated = migrated.ok_or_else(|| unreadable("memo", from_schema, P::Memo::SCHEMA))?;
        Ok(pack(&migrated))
    }
}

fn unreadable(what: &str, from: u32, to: u32) -> String {
    format!("a {what} of schema {from} cannot be read by this revision, whose schema is {to}")
}
