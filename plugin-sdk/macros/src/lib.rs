//! Derive and attribute macros of the policy SDK, documented where the SDK exports them.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use proc_macro::TokenStream;
use syn::{DeriveInput, ItemImpl, parse_macro_input};

use crate::cost::HookFunction;

mod case;
mod cost;
mod hook;
mod pack;
mod reason;
mod settings;

/// Settings of a policy; see the trait of the same name.
#[proc_macro_derive(Settings, attributes(setting))]
pub fn settings(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    settings::derive(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// State of a session, a room or the policy; see the trait of the same name.
#[proc_macro_derive(State, attributes(state))]
pub fn state(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    pack::derive_state(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Part of a state; see the trait of the same name.
#[proc_macro_derive(Pack)]
pub fn pack(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    pack::derive(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Reasons of decisions; see the trait of the same name.
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
    /// On `impl Admission for …`: makes the crate a plugin with the admission hook.
    ///
    /// `#[admission(cost(admit(call = 2_000, row = 100)))]` declares the cost of an answer; see
    /// `#[degradation]`. Rows are regions.
    admission, hook::Shape {
        hook: "admission", state: false, reason: true, reads: true, ops: false,
        calls: &[HookFunction { name: "admit", rows: "regions" }],
    };
    /// On `impl Routing for …`: makes the crate a plugin with the routing hook.
    ///
    /// `#[routing(cost(place(call = 2_000, row = 300), reroute(call = 50_000, row = 9_000)))]`
    /// declares the cost of an answer; see `#[degradation]`. Rows are nodes of `place` and rooms of
    /// `reroute`.
    routing, hook::Shape {
        hook: "routing", state: true, reason: true, reads: true, ops: false,
        calls: &[HookFunction { name: "place", rows: "nodes" }, HookFunction { name: "reroute", rows: "rooms" }],
    };
    /// On `impl Degradation for …`: makes the crate a plugin with the degradation hook.
    ///
    /// `#[degradation(cost(tick(call = 2_000, row = 300)))]` declares in the manifest the maximum
    /// cost of an answer, in WebAssembly instructions: a constant part and a part per row. Rows are
    /// sessions. `evenkeel plugin bench` and `evenkeel plugin test --recording` check it; a gateway
    /// does not, as it has time limits.
    degradation, hook::Shape {
        hook: "degradation", state: true, reason: true, reads: true, ops: true,
        calls: &[HookFunction { name: "tick", rows: "sessions" }],
    };
    /// On `impl Scenario for …`: makes the crate a plugin with the scenario hook.
    ///
    /// `#[scenario(cost(resolve(call = 2_000)))]` declares the cost of an answer; see
    /// `#[degradation]`.
    scenario, hook::Shape {
        hook: "scenario", state: false, reason: false, reads: false, ops: false,
        calls: &[HookFunction { name: "resolve", rows: "" }],
    };
}
