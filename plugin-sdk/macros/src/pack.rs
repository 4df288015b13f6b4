//! `#[derive(Pack)]` and `#[derive(State)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{Data, DataEnum, DeriveInput, Error, Fields, LitInt, Path, Result, Type};

pub(crate) fn derive_state(input: &DeriveInput) -> Result<TokenStream> {
    let mut said = Arguments::default();
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("state")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("schema") {
                said.schema = Some(number(&meta)?);
            } else if meta.path.is_ident("unchanged_since") {
                said.unchanged_since = Some(number(&meta)?);
            } else if meta.path.is_ident("from") {
                said.from = Some(meta.value()?.parse::<Type>()?);
            } else if meta.path.is_ident("migrate") {
                said.migrate = Some(meta.value()?.parse::<Path>()?);
            } else {
                let words = "expected `schema`, `unchanged_since`, `from` or `migrate`";
                return Err(meta.error(words));
            }
            Ok(())
        })?;
    }
    let Some(schema) = &said.schema else {
        let message = "give the version of its fields: #[state(schema = 1)]";
        return Err(Error::new_spanned(&input.ident, message));
    };
    if let (Some(from), Some(_)) = (&said.from, &said.migrate) {
        let message = "`from` converts an older type, `migrate` reads bytes: use one of them";
        return Err(Error::new_spanned(from, message));
    }
    let pack = derive(input)?;
    let ident = &input.ident;
    let migrate = said.migration(schema)?;
    Ok(quote! {
        #pack

        impl ::evenkeel_plugin_sdk::State for #ident {
            const SCHEMA: u32 = #schema;

            #migrate
        }
    })
}

/// The arguments of `#[state(…)]`.
#[derive(Default)]
struct Arguments {
    schema: Option<LitInt>,
    unchanged_since: Option<LitInt>,
    from: Option<Type>,
    migrate: Option<Path>,
}

impl Arguments {
    /// Returns the code that migrates older schemas: `unpack` reads unchanged ones, the author's code reads others.
    fn migration(&self, schema: &LitInt) -> Result<TokenStream> {
        let oldest = self.unchanged_since.as_ref().unwrap_or(schema);
        if oldest.base10_parse::<u32>()? > schema.base10_parse::<u32>()? {
            return Err(Error::new_spanned(
                oldest,
                "its fields cannot be unchanged since a later schema",
            ));
        }
        let sdk = quote!(::evenkeel_plugin_sdk);
        let (older, check) = match (&self.from, &self.migrate) {
            (Some(from), _) => {
                let check = quote_spanned! { from.span() => const {
                    assert!(
                        <#from as #sdk::State>::SCHEMA < #oldest,
                        "`from` names a type with a lower schema"
                    );
                }};
                let older = quote_spanned! { from.span() =>
                    <#from as #sdk::State>::migrate(schema, bytes).map(::core::convert::Into::into)
                };
                (older, check)
            }
            (None, Some(path)) => (quote!(#path(schema, bytes)), quote!()),
            (None, None) => (quote!(::core::option::Option::None), quote!()),
        };
        Ok(quote! {
            fn migrate(schema: u32, bytes: &[u8]) -> ::core::option::Option<Self> {
                #check
                if (#oldest..=Self::SCHEMA).contains(&schema) {
                    #sdk::unpack(bytes)
                } else {
                    #older
                }
            }
        })
    }
}

/// Parses a schema number.
fn number(meta: &ParseNestedMeta<'_>) -> Result<LitInt> {
    let number = meta.value()?.parse::<LitInt>()?;
    if number.base10_parse::<u32>()? == 0 {
        return Err(Error::new_spanned(number, "schemas count from 1"));
    }
    Ok(number)
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

        #[inline(always)]
        fn unpack(bytes: &mut &[u8]) -> Option<Self> {
            Some(Self { #(#names: #pack::unpack(bytes)?),* })
        }
    })
}

/// Encodes variants without fields as their index. The first is the default.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_states_have_clear_errors() {
        for (item, sentence) in [
            ("struct Memory { a: u8 }", "give the version of its fields"),
            ("#[state(schema = 0)] struct Memory { a: u8 }", "schemas count from 1"),
            ("#[state(schema = 1, form = A)] struct Memory { a: u8 }", "expected `schema`"),
            (
                "#[state(schema = 1, unchanged_since = 2)] struct Memory { a: u8 }",
                "since a later schema",
            ),
            (
                "#[state(schema = 2, from = A, migrate = b)] struct Memory { a: u8 }",
                "use one of them",
            ),
            ("#[state(schema = 1)] struct Memory(u8);", "give the fields names"),
            ("#[state(schema = 1)] enum Mood {}", "an enum without variants cannot be packed"),
            (
                "#[state(schema = 1)] enum Mood { Calm(u8) }",
                "a variant with fields cannot be packed",
            ),
        ] {
            let said = derive_state(&syn::parse_str(item).unwrap()).unwrap_err().to_string();
            assert!(said.contains(sentence), "{item}: {said}");
        }
        let right =
            "#[state(schema = 3, unchanged_since = 2, from = First)] struct Memory { a: u8 }";
        derive_state(&syn::parse_str(right).unwrap()).unwrap();
    }
}
