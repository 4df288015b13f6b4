//! The guest's side of `wit/policy.wit`, generated.
//!
//! `policy.wit` has one world per hook. Generating each of these worlds would give a plugin four different `guest`
//! traits. The worlds here are therefore parts of them, and an attribute macro exports two parts.
//!
//! The canonical ABI passes pointers. All unsafe code of a plugin is generated in this module.

#![allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]

pub mod guest {
    wit_bindgen::generate!({
        path: "wit",
        inline: "package evenkeel:sdk;
            world guest {
                import evenkeel:policy/diag@0.1.0;
                export evenkeel:policy/guest@0.1.0;
            }",
        world: "evenkeel:sdk/guest",
        pub_export_macro: true,
        export_macro_name: "export_guest",
        default_bindings_module: "evenkeel_plugin_sdk::wit::guest",
        generate_all,
    });
}

macro_rules! hook {
    ($hook:ident, $world:literal, $inline:literal, $export:literal, $path:literal) => {
        pub mod $hook {
            wit_bindgen::generate!({
                path: "wit",
                inline: $inline,
                world: $world,
                pub_export_macro: true,
                export_macro_name: $export,
                default_bindings_module: $path,
                with: { "evenkeel:policy/types@0.1.0": crate::wit::guest::evenkeel::policy::types },
                generate_all,
            });
        }
    };
}

hook!(
    admission,
    "evenkeel:sdk/admission-hook",
    "package evenkeel:sdk; world admission-hook { export evenkeel:policy/admission@0.1.0; }",
    "export_admission",
    "evenkeel_plugin_sdk::wit::admission"
);
hook!(
    routing,
    "evenkeel:sdk/routing-hook",
    "package evenkeel:sdk; world routing-hook { export evenkeel:policy/routing@0.1.0; }",
    "export_routing",
    "evenkeel_plugin_sdk::wit::routing"
);
hook!(
    degradation,
    "evenkeel:sdk/degradation-hook",
    "package evenkeel:sdk; world degradation-hook { export evenkeel:policy/degradation@0.1.0; }",
    "export_degradation",
    "evenkeel_plugin_sdk::wit::degradation"
);
hook!(
    scenario,
    "evenkeel:sdk/scenario-hook",
    "package evenkeel:sdk; world scenario-hook { export evenkeel:policy/scenario@0.1.0; }",
    "export_scenario",
    "evenkeel_plugin_sdk::wit::scenario"
);

pub use guest::evenkeel::policy::{diag, types};
pub use guest::exports::evenkeel::policy::guest as guest_interface;
