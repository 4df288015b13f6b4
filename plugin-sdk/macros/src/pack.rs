//! `#[derive(Pack)]` and `#[derive(State)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DataEnum, DeriveInput, Error, Fields, LitInt, Path, Result};

pub(crate) fn derive_state(input: &DeriveInput) -> Result<TokenStream> {
    let (mut schema, mut migrate) = (None, None);
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("state")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("schema") {
                let number = meta.value()?.parse::<LitInt>()?;
                if number.base10_parse::<u32>()? == 0 {
                    return Err(Error::new_spanned(number, "schemas count from 1"));
                }
                schema = Some(number);
            } else if meta.path.is_ident("migrate") {
                migrate = Some(meta.value()?.parse::<Path>()?);
            } else {
                return Err(meta.error("found neither `schema` nor `migrate`"));
            }
            Ok(())
        })?;
    }
    let Some(schema) = schema else {
        let message = "say which version of its fields this is: #[state(schema = 1)]";
        return Err(Error::new_spanned(&input.ident, message));
    };
    let migrate = migrate.map(|path| {
        quote! {
            fn migrate(schema: u32, bytes: &[u8]) -> Option<Self> {
                if schema == Self::SCHEMA {
                    ::evenkeel_plugin_sdk::unpack(bytes)
                } else {
                    #path(schema, bytes)
                }
            }
        }
    });
    let pack = derive(input)?;
    let ident = &input.ident;
    Ok(quote! {
        #pack

        impl ::evenkeel_plugin_sdk::State for #ident {
            const SCHEMA: u32 = #schema;

            #migrate
        }
    })
}

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let ident = &input.ident;
    let body = match &input.data {
        Data::Struct(data) => fields(&data.fields)?,
        Data::Enum(data) => variants(data)?,
        Data::Union(_) => return Err(Error::new_spanned(ident, "a union cannot be packed")),
    };
    Ok(quote! {
        impl ::evenkeel_plugin_sdk::Pack for #ident {
            #body
        }
    })
}

fn fields(fields: &Fields) -> Result<TokenStream> {
    let Fields::Named(named) = fields else {
        return Err(Error::new_spanned(fields, "give the fields names"));
    };
    let names: Vec<_> = named.named.iter().map(|field| &field.ident).collect();
    let pack = quote!(::evenkeel_plugin_sdk::Pack);
    Ok(quote! {
        fn fresh() -> Self {
            Self { #(#names: #pack::fresh()),* }
        }

        fn pack(&self, out: &mut Vec<u8>) {
            #(#pack::pack(&self.#names, out);)*
        }

        fn unpack(bytes: &mut &[u8]) -> Option<Self> {
            Some(Self { #(#names: #pack::unpack(bytes)?),* })
        }
    })
}

/// Variants without fields, as the number of their place. The first is the fresh one.
fn variants(data: &DataEnum) -> Result<TokenStream> {
    for variant in &data.variants {
        if !matches!(variant.fields, Fields::Unit) {
            return Err(Error::new_spanned(variant, "a variant with fields cannot be packed"));
        }
    }
    let names: Vec<_> = data.variants.iter().map(|variant| &variant.ident).collect();
    let numbers = 0..names.len() as u32;
    let again = numbers.clone();
    let Some(first) = names.first() else {
        return Err(Error::new_spanned(
            &data.variants,
            "an enum without variants cannot be packed",
        ));
    };
    Ok(quote! {
        fn fresh() -> Self {
            Self::#first
        }

        fn pack(&self, out: &mut Vec<u8>) {
            let number: u32 = match self { #(Self::#names => #numbers),* };
            ::evenkeel_plugin_sdk::Pack::pack(&number, out);
        }

        fn unpack(bytes: &mut &[u8]) -> Option<Self> {
            match <u32 as ::evenkeel_plugin_sdk::Pack>::unpack(bytes)? {
                #(#again => Some(Self::#names),)*
                _ => None,
            }
        }
    })
}
