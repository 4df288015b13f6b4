//! The hook attributes, which make a crate a plugin.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Error, ImplItem, ItemImpl, Result, parse_quote};

use crate::cost::{HookFunction, promised};

/// Properties of a hook's trait.
pub(crate) struct Shape {
    pub(crate) hook: &'static str,
    pub(crate) state: bool,
    pub(crate) reason: bool,
    pub(crate) reads: bool,
    pub(crate) ops: bool,
    pub(crate) calls: &'static [HookFunction],
}

pub(crate) fn attribute(
    shape: &Shape,
    arguments: &TokenStream,
    mut item: ItemImpl,
) -> Result<TokenStream> {
    let cost = promised(shape.calls, arguments)?;
    let Some((_, path, _)) = &item.trait_ else {
        let example =
            format!("write it on the implementation of the trait: #[{}] impl …", shape.hook);
        return Err(Error::new_spanned(&item.self_ty, example));
    };
    if !item.generics.params.is_empty() {
        return Err(Error::new_spanned(&item.generics, "a policy has no type parameters"));
    }
    let path = path.clone();
    let policy = item.self_ty.clone();
    if shape.state {
        fill(&mut item, "State");
        fill(&mut item, "Memo");
    }
    if shape.reason {
        fill(&mut item, "Reason");
    }

    let hook = shape.hook;
    let sdk = quote!(::evenkeel_plugin_sdk);
    let of = quote!(<#policy as #path>);
    let (state, memo) = if shape.state {
        (quote!(#of::State), quote!(#of::Memo))
    } else {
        (quote!(()), quote!(()))
    };
    let reads = if shape.reads { quote!(#of::READS) } else { quote!(&[]) };
    let ops = if shape.ops { quote!(#of::OPS) } else { quote!(&[]) };
    let reason = if shape.reason { quote!(#of::Reason) } else { quote!(()) };
    let export_hook = format_ident!("export_{hook}");
    let bindings = format_ident!("{hook}");
    let flat_hook = format_ident!("flat_{hook}");

    Ok(quote! {
        #item

        impl #sdk::Policy for #policy {
            type State = #state;
            type Memo = #memo;
            const READS: &'static [#sdk::Metric] = #reads;
            const OPS: &'static [#sdk::Op] = #ops;
            const MANIFEST: &'static str = ONE_HOOK_PER_PLUGIN;
        }

        // The constant's name gives a clear error for a second hook in one module.
        #[doc(hidden)]
        #[allow(unsafe_code, reason = "the exports of a plugin, generated")]
        const ONE_HOOK_PER_PLUGIN: &str = {
            const TEXT: #sdk::manifest::Text = #sdk::manifest_text!(Facts {
                name: env!("CARGO_PKG_NAME"),
                version: env!("CARGO_PKG_VERSION"),
                hook: #hook,
                settings: <#policy as #sdk::Setting>::SCHEMA,
                data: #of::DATA,
                state_schema: <#state as #sdk::State>::SCHEMA,
                memo_schema: <#memo as #sdk::State>::SCHEMA,
                reads: #reads,
                ops: #ops,
                reasons: <#reason as #sdk::Reason>::NAMES,
                cost: #cost,
            });
            const LENGTH: usize = TEXT.len();
            const BYTES: [u8; LENGTH] = TEXT.bytes();

            #[cfg(target_arch = "wasm32")]
            #[used]
            #[unsafe(link_section = "evenkeel:manifest")]
            static MANIFEST: [u8; LENGTH] = BYTES;

            #[cfg(target_arch = "wasm32")]
            type Exported = #sdk::Plugin<#policy>;
            #[cfg(target_arch = "wasm32")]
            #sdk::wit::guest::export_guest!(Exported with_types_in #sdk::wit::guest);
            #[cfg(target_arch = "wasm32")]
            #sdk::wit::#bindings::#export_hook!(Exported with_types_in #sdk::wit::#bindings);
            #[cfg(target_arch = "wasm32")]
            #sdk::flat_guest!(#policy);
            #[cfg(target_arch = "wasm32")]
            #sdk::#flat_hook!(#policy);

            match ::core::str::from_utf8(&BYTES) {
                Ok(text) => text,
                Err(_) => panic!("the manifest is made of strings"),
            }
        };

        /// `evenkeel plugin bench` runs this to measure the native cost of the policy.
        #[cfg(test)]
        #[test]
        #[ignore = "`evenkeel plugin bench` runs it"]
        fn measured_natively() {
            #sdk::trial::native::#bindings::<#policy>();
        }

        // A native build never calls `init`, which reads the settings.
        const _: fn(&#sdk::json::Json) -> Result<#policy, String> = <#policy as #sdk::Setting>::read;
    })
}

/// Adds `type Name = ();` if it is missing.
fn fill(item: &mut ItemImpl, name: &str) {
    let given = item.items.iter().any(|item| match item {
        ImplItem::Type(given) => given.ident == name,
        _ => false,
    });
    if !given {
        let name = format_ident!("{name}");
        item.items.insert(0, parse_quote!(type #name = ();));
    }
}
