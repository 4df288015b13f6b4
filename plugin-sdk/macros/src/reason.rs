//! `#[derive(Reason)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, Result};

use crate::case::kebab;

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Enum(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "reasons are the variants of an enum"));
    };
    let mut names = Vec::new();
    for variant in &data.variants {
        if !matches!(variant.fields, Fields::Unit) {
            return Err(Error::new_spanned(variant, "a reason has no fields"));
        }
        let Some((_, number)) = &variant.discriminant else {
            return Err(Error::new_spanned(
                variant,
                "write its number, from 1: it stands in records and must not shift when reasons are added",
            ));
        };
        let name = kebab(&variant.ident.to_string());
        names.push(quote!((#number, #name)));
    }
    let ident = &input.ident;
    Ok(quote! {
        impl ::evenkeel_plugin_sdk::Reason for #ident {
            const NAMES: &'static [(u32, &'static str)] = &[#(#names),*];

            fn number(self) -> u32 {
                self as u32
            }
        }
    })
}
