//! `#[derive(Reason)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Fields, Result};

use crate::case::kebab;

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Enum(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "reasons are the variants of an enum"));
    };
    let (mut names, mut checks) = (Vec::new(), Vec::new());
    for variant in &data.variants {
        if !matches!(variant.fields, Fields::Unit) {
            return Err(Error::new_spanned(variant, "a reason has no fields"));
        }
        let Some((_, number)) = &variant.discriminant else {
            return Err(Error::new_spanned(
                variant,
                "write its number, from 1: records contain it, so it must not change when reasons are added",
            ));
        };
        let name = kebab(&variant.ident.to_string());
        names.push(quote!((#number, #name)));
        checks.push(quote_spanned! { number.span() =>
            const _: () = assert!(
                (#number) > 0 && (#number) < ::evenkeel_plugin_sdk::COMMON_REASONS_FROM,
                "a policy's own reasons have numbers from 1 to 65,535"
            );
        });
    }
    let ident = &input.ident;
    Ok(quote! {
        #(#checks)*

        impl ::evenkeel_plugin_sdk::Reason for #ident {
            const NAMES: &'static [(u32, &'static str)] = &[#(#names),*];

            fn number(self) -> u32 {
                self as u32
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_reasons_have_clear_errors() {
        for (item, sentence) in [
            ("struct Why;", "reasons are the variants of an enum"),
            ("enum Why { Loss }", "write its number, from 1"),
            ("enum Why { Loss(u32) = 1 }", "a reason has no fields"),
        ] {
            let said = derive(&syn::parse_str(item).unwrap()).unwrap_err().to_string();
            assert!(said.contains(sentence), "{item}: {said}");
        }
        derive(&syn::parse_str("enum Why { Loss = 1, Delay = 2 }").unwrap()).unwrap();
    }
}
