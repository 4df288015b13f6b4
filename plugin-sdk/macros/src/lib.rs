//! The derive and attribute macros of the policy SDK; their documentation is where the SDK exports them.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use proc_macro::TokenStream;
use syn::{DeriveInput, ItemImpl, parse_macro_input};

use crate::cost::Call;

mod case;
mod cost;
mod hook;
mod pack;
mod reason;
mod settings;

/// What an operator can set of a policy; see the trait of the same name.
#[proc_macro_derive(Settings, attributes(setting))]
pub fn settings(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    settings::derive(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// What a policy remembers of a session, a room or itself; see the trait of the same name.
#[proc_macro_derive(State, attributes(state))]
pub fn state(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    pack::derive_state(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// What a state is made of; see the trait of the same name.
#[proc_macro_derive(Pack)]
pub fn pack(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    pack::derive(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Why decisions are made; see the trait of the same name.
#[proc_macro_derive(Reason)]
pub fn reason(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    reason::derive(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

macro_rules! hooks {
    ($($(#[$doc:meta])* $hook:ident, $shape:expr;)*) => {$(
        $(#[$doc])*
        #[proc_macro_attribute]
        pub fn $hook(arguments: TokenStream, item: TokenStream) -> TokenStream {
            let item = parse_macro_input!(item as ItemImpl);
            hook::attribute(&$shape, &arguments.into(), item)
                .unwrap_or_else(syn::Error::into_compile_error)
                .into()
        }
    )*};
}

hooks! {
    /// On `impl Admission for …`: makes the crate a plugin that answers the admission hook.
    ///
    /// `#[admission(cost(admit(call = 2_000, row = 100)))]` promises what an answer takes at most; see
    /// `#[degradation]`. Rows are regions.
    admission, hook::Shape {
        hook: "admission", state: false, reason: true, reads: true, ops: false,
        calls: &[Call { name: "admit", rows: "regions" }],
    };
    /// On `impl Routing for …`: makes the crate a plugin that answers the routing hook.
    ///
    /// `#[routing(cost(place(call = 2_000, row = 300), reroute(call = 50_000, row = 9_000)))]` promises what an answer takes
    /// at most; see `#[degradation]`. Rows are nodes of `place` and rooms of `reroute`.
    routing, hook::Shape {
        hook: "routing", state: true, reason: true, reads: true, ops: false,
        calls: &[Call { name: "place", rows: "nodes" }, Call { name: "reroute", rows: "rooms" }],
    };
    /// On `impl Degradation for …`: makes the crate a plugin that answers the degradation hook.
    ///
    /// `#[degradation(cost(tick(call = 2_000, row = 300)))]` promises in the manifest what an answer takes at most, in
    /// WebAssembly instructions: so many however few rows there are, and so many for each. Rows are sessions. `evenkeel
    /// plugin bench` holds the plugin to it, and `evenkeel plugin test --recording`; a gateway does not, it has a clock.
    degradation, hook::Shape {
        hook: "degradation", state: true, reason: true, reads: true, ops: true,
        calls: &[Call { name: "tick", rows: "sessions" }],
    };
    /// On `impl Scenario for …`: makes the crate a plugin that answers the scenario hook.
    ///
    /// `#[scenario(cost(resolve(call = 2_000)))]` promises what an answer takes at most; see `#[degradation]`.
    scenario, hook::Shape {
        hook: "scenario", state: false, reason: false, reads: false, ops: false,
        calls: &[Call { name: "resolve", rows: "" }],
    };
}
