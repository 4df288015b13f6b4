//! `#[derive(Settings)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DataEnum, DeriveInput, Error, Expr, ExprArray, ExprLit, ExprUnary, Field,
    Fields, FieldsNamed, Lit, LitStr, Meta, Result, Token, Type, UnOp,
};

use crate::case::kebab;

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    if !input.generics.params.is_empty() {
        return Err(Error::new_spanned(&input.generics, "settings have no type parameters"));
    }
    match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => derive_struct(input, fields),
            Fields::Unit => derive_struct(input, &syn::parse_quote!({})),
            Fields::Unnamed(fields) => Err(Error::new_spanned(fields, "give the fields names")),
        },
        Data::Enum(data) => derive_enum(input, data),
        Data::Union(_) => Err(Error::new_spanned(&input.ident, "settings are a struct or an enum")),
    }
}

fn derive_struct(input: &DeriveInput, fields: &FieldsNamed) -> Result<TokenStream> {
    let fields = fields.named.iter().map(Knob::of).collect::<Result<Vec<_>>>()?;
    let ident = &input.ident;
    let names: Vec<_> = fields.iter().map(|knob| &knob.field.ident).collect();
    let keys: Vec<_> = fields.iter().map(|knob| &knob.key).collect();
    let reads = fields.iter().map(Knob::read);
    let schema = schema(&fields);
    let unit = matches!(&input.data, Data::Struct(data) if matches!(data.fields, Fields::Unit));
    let build = if unit {
        quote!({
            let _ = fields;
            Ok(Self)
        })
    } else {
        quote!(Ok(Self { #(#names: #reads),* }))
    };
    let default = fields.iter().all(Knob::may_be_left_out).then(|| {
        quote! {
            impl ::core::default::Default for #ident {
                /// Creates settings with all defaults.
                fn default() -> Self {
                    <Self as ::evenkeel_plugin_sdk::Settings>::parse("{}")
                        .expect("a default is within its bounds")
                }
            }
        }
    });
    let checks = fields.iter().flat_map(Knob::checks);
    Ok(quote! {
        #(#checks)*

        impl ::evenkeel_plugin_sdk::Settings for #ident {}

        impl ::evenkeel_plugin_sdk::Setting for #ident {
            const SCHEMA: ::evenkeel_plugin_sdk::manifest::Text = #schema;
            const HAS_FIELDS: bool = true;

            fn read(
                json: &::evenkeel_plugin_sdk::json::Json,
            ) -> ::core::result::Result<Self, ::std::string::String> {
                let fields = ::evenkeel_plugin_sdk::settings::fields(json, &[#(#keys),*])?;
                #build
            }
        }

        #default
    })
}

fn derive_enum(input: &DeriveInput, data: &DataEnum) -> Result<TokenStream> {
    let mut names = Vec::new();
    for variant in &data.variants {
        if !matches!(variant.fields, Fields::Unit) {
            return Err(Error::new_spanned(variant, "a choice has no fields"));
        }
        names.push(kebab(&variant.ident.to_string()));
    }
    let ident = &input.ident;
    let variants = data.variants.iter().map(|variant| &variant.ident);
    let list: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
    let schema = format!("\"type\":\"string\",\"enum\":[{}]", list.join(","));
    let expected = format!("one of {}", list.join(", "));
    Ok(quote! {
        impl ::evenkeel_plugin_sdk::Setting for #ident {
            const SCHEMA: ::evenkeel_plugin_sdk::manifest::Text =
                ::evenkeel_plugin_sdk::manifest::Text::Plain(#schema);

            fn read(
                json: &::evenkeel_plugin_sdk::json::Json,
            ) -> ::core::result::Result<Self, ::std::string::String> {
                if let ::evenkeel_plugin_sdk::json::Json::Text(text) = json {
                    match text.as_str() {
                        #(#names => return Ok(Self::#variants),)*
                        _ => {}
                    }
                }
                Err(::evenkeel_plugin_sdk::settings::expected(#expected, json))
            }
        }
    })
}

/// Returns the members of the object's schema.
fn schema(fields: &[Knob<'_>]) -> TokenStream {
    let text = quote!(::evenkeel_plugin_sdk::manifest::Text);
    let properties = fields.iter().enumerate().map(|(at, knob)| {
        let separator = if at == 0 { "" } else { "," };
        let begin = format!("{separator}\"{}\":{{", knob.key);
        let facts = knob.facts();
        let of = {
            let inner = &knob.field.ty;
            quote!(<#inner as ::evenkeel_plugin_sdk::Setting>)
        };
        let bound = |limit: &Option<Limit>, word: &str, of_type: TokenStream| match limit {
            Some(Limit { json: Some(number), .. }) => {
                let text_of = format!(",\"{word}\":{number}");
                quote!(#text::Plain(#text_of))
            }
            _ => of_type,
        };
        let min = bound(&knob.min, "minimum", quote!(#of::MIN));
        let max = bound(&knob.max, "maximum", quote!(#of::MAX));
        quote! {
            #text::Plain(#begin), #of::SCHEMA, #min, #max, #text::Plain(#facts),
        }
    });
    let required = fields.iter().filter(|knob| !knob.may_be_left_out());
    let required: Vec<_> = required.map(|knob| format!("\"{}\"", knob.key)).collect();
    let end = format!("}},\"required\":[{}],\"additionalProperties\":false", required.join(","));
    quote! {
        #text::All(&[
            #text::Plain("\"type\":\"object\",\"properties\":{"),
            #(#properties)*
            #text::Plain(#end),
        ])
    }
}

/// A bound: a number, or a text with a duration or bit rate.
struct Limit {
    /// The number that is compared with the value's size.
    size: f64,
    /// The number as JSON, for the schema; `None` for a text.
    json: Option<String>,
    /// Unit of the size: `ms` or `kbit/s`; empty for a number.
    counts: &'static str,
}

/// A field with its attributes.
struct Knob<'a> {
    field: &'a Field,
    key: String,
    default: Option<String>,
    /// True if the default consists of the defaults of a struct's fields.
    default_of_fields: bool,
    min: Option<Limit>,
    max: Option<Limit>,
    unit: String,
    doc: String,
}

impl Knob<'_> {
    fn of(field: &Field) -> Result<Knob<'_>> {
        let key = field.ident.as_ref().expect("a named field").to_string();
        let doc = doc(&field.attrs);
        let (default, min, max, unit) = (None, None, None, String::new());
        let default_of_fields = false;
        let mut knob = Knob { field, key, default, default_of_fields, min, max, unit, doc };
        let mut default_size = None;
        for attribute in &field.attrs {
            if !attribute.path().is_ident("setting") {
                continue;
            }
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("default") && !meta.input.peek(Token![=]) {
                    knob.default = Some("{}".to_owned());
                    knob.default_of_fields = true;
                } else if meta.path.is_ident("default") {
                    let value = meta.value()?.parse::<Expr>()?;
                    default_size = limit(&value).ok();
                    knob.default = Some(json(&value)?);
                } else if meta.path.is_ident("min") {
                    knob.min = Some(limit(&meta.value()?.parse()?)?);
                } else if meta.path.is_ident("max") {
                    knob.max = Some(limit(&meta.value()?.parse()?)?);
                } else if meta.path.is_ident("unit") {
                    knob.unit = meta.value()?.parse::<LitStr>()?.value();
                } else {
                    return Err(meta.error("expected `default`, `unit`, `min` or `max`"));
                }
                Ok(())
            })?;
        }
        if let Some(default) = default_size {
            let low = knob.min.as_ref().is_some_and(|min| default.size < min.size);
            let high = knob.max.as_ref().is_some_and(|max| default.size > max.size);
            if low || high {
                return Err(Error::new_spanned(field, "the default is outside its bounds"));
            }
        }
        Ok(knob)
    }

    fn may_be_left_out(&self) -> bool {
        let optional = match &self.field.ty {
            Type::Path(path) => {
                path.path.segments.last().is_some_and(|last| last.ident == "Option")
            }
            _ => false,
        };
        self.default.is_some() || optional
    }

    /// Returns the schema's members besides type and bounds.
    fn facts(&self) -> String {
        let mut facts = String::new();
        if let Some(default) = &self.default {
            facts += &format!(",\"default\":{default}");
        }
        if !self.unit.is_empty() {
            facts += &format!(",\"unit\":{}", quoted(&self.unit));
        }
        if !self.doc.is_empty() {
            facts += &format!(",\"description\":{}", quoted(&self.doc));
        }
        facts + "}"
    }

    fn limits(&self) -> impl Iterator<Item = &Limit> {
        self.min.iter().chain(&self.max)
    }

    /// Returns checks that need the field's type; the compiler evaluates them.
    fn checks(&self) -> Vec<TokenStream> {
        let of = &self.field.ty;
        let setting = quote!(<#of as ::evenkeel_plugin_sdk::Setting>);
        let limits = self.limits().map(|Limit { counts, .. }| {
            let message = match *counts {
                "ms" => "a bound such as \"8s\" is for a Duration",
                "kbit/s" => "a bound such as \"300 kbit/s\" is for a BitRate",
                _ => "a bound of this type has a unit: \"8s\" for a Duration, \"300 kbit/s\" for a BitRate",
            };
            quote_spanned! { of.span() => const _: () = assert!(
                ::evenkeel_plugin_sdk::settings::same(#setting::COUNTS, #counts),
                #message
            ); }
        });
        let fields = self.default_of_fields.then(|| {
            quote_spanned! { of.span() => const _: () = assert!(
                #setting::HAS_FIELDS,
                "`default` without a value is for a struct that derives Settings: write `default = …`"
            ); }
        });
        limits.chain(fields).collect()
    }

    fn read(&self) -> TokenStream {
        let Knob { key, unit, .. } = self;
        let option = |value: Option<TokenStream>| match value {
            Some(value) => quote!(::core::option::Option::Some(#value)),
            None => quote!(::core::option::Option::None),
        };
        let default = option(self.default.as_ref().map(|default| quote!(#default)));
        let size = |limit: &Option<Limit>| {
            option(limit.as_ref().map(|limit| {
                let size = limit.size;
                quote!(#size)
            }))
        };
        let (min, max) = (size(&self.min), size(&self.max));
        let counts = self.limits().map(|limit| limit.counts).find(|counts| !counts.is_empty());
        let unit = counts.unwrap_or(unit);
        quote! {
            ::evenkeel_plugin_sdk::settings::field(
                fields,
                #key,
                #default,
                ::evenkeel_plugin_sdk::settings::Bounds { min: #min, max: #max, unit: #unit },
            )?
        }
    }
}

/// Returns the doc comment in one line.
fn doc(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(meta) if meta.path.is_ident("doc") => match &meta.value {
            Expr::Lit(ExprLit { lit: Lit::Str(line), .. }) => Some(line.value().trim().to_owned()),
            _ => None,
        },
        _ => None,
    });
    let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    lines.join(" ")
}

/// Converts a literal to JSON.
fn json(value: &Expr) -> Result<String> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Ok(quoted(&text.value())),
        Expr::Lit(ExprLit { lit: Lit::Bool(value), .. }) => Ok(value.value.to_string()),
        Expr::Array(ExprArray { elems, .. }) => {
            let items = elems.iter().map(json).collect::<Result<Vec<_>>>()?;
            Ok(format!("[{}]", items.join(",")))
        }
        _ => number(value),
    }
}

/// Converts a number to JSON.
fn number(value: &Expr) -> Result<String> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => Ok(number.base10_digits().to_owned()),
        Expr::Lit(ExprLit { lit: Lit::Float(number), .. }) => Ok(number.base10_digits().to_owned()),
        Expr::Unary(ExprUnary { op: UnOp::Neg(_), expr, .. }) => Ok(format!("-{}", number(expr)?)),
        _ => Err(Error::new_spanned(
            value,
            "found neither a number, a string, a bool nor a list of those: a default is a literal",
        )),
    }
}

fn limit(value: &Expr) -> Result<Limit> {
    if let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = value {
        let text = text.value();
        let duration = milliseconds(&text).map(|size| (size, "ms"));
        let found = duration.or_else(|| kilobits(&text).map(|size| (size, "kbit/s")));
        let Some((size, counts)) = found else {
            let message = "found neither a duration such as \"250ms\" or \"8s\" nor a rate such as \"300 kbit/s\"";
            return Err(Error::new_spanned(value, message));
        };
        return Ok(Limit { size, json: None, counts });
    }
    let json = number(value)?;
    let size = json.parse().map_err(|error| Error::new_spanned(value, error))?;
    Ok(Limit { size, json: Some(json), counts: "" })
}

fn milliseconds(text: &str) -> Option<f64> {
    let (digits, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    let ms = match unit {
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 6e4,
        "h" => 3.6e6,
        _ => return None,
    };
    digits.parse::<f64>().ok().map(|count| count * ms)
}

fn kilobits(text: &str) -> Option<f64> {
    let (digits, unit) = text.split_once(' ')?;
    let kilobits = match unit {
        "kbit/s" => 1.0,
        "Mbit/s" => 1e3,
        "Gbit/s" => 1e6,
        _ => return None,
    };
    digits.parse::<f64>().ok().map(|count| count * kilobits)
}

/// Returns the text as a JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            _ if u32::from(letter) < 0x20 => out.push(' '),
            _ => out.push(letter),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(input: &DeriveInput) -> String {
        derive(input).map(|_| ()).unwrap_err().to_string()
    }

    fn field_error(field: &str) -> String {
        error(&syn::parse_str(&format!("struct Knobs {{ {field} }}")).unwrap())
    }

    #[test]
    fn invalid_setting_attributes_have_clear_errors() {
        for (field, sentence) in [
            ("#[setting(defualt = 3)] a: u32", "expected `default`, `unit`, `min` or `max`"),
            ("#[setting(default = 3 + 4)] a: u32", "a default is a literal"),
            ("#[setting(default = A)] a: u32", "a default is a literal"),
            ("#[setting(default = 9, max = 8)] a: u32", "the default is outside its bounds"),
            (
                "#[setting(default = \"1s\", min = \"2s\")] a: Duration",
                "the default is outside its bounds",
            ),
            ("#[setting(min = \"8 days\")] a: Duration", "found neither a duration such as"),
            ("#[setting(min = true)] a: bool", "found neither a number"),
        ] {
            let said = field_error(field);
            assert!(said.contains(sentence), "{field}: {said}");
        }
        for field in [
            "#[setting(default = 8, max = 8)] a: u32",
            "#[setting(default)] a: Inner",
            "a: Option<u8>",
        ] {
            derive(&syn::parse_str(&format!("struct Knobs {{ {field} }}")).unwrap()).unwrap();
        }
    }

    #[test]
    fn invalid_settings_types_have_clear_errors() {
        for (item, sentence) in [
            ("struct Knobs(u32);", "give the fields names"),
            ("struct Knobs<T> { a: T }", "settings have no type parameters"),
            ("enum Step { Cap(u32) }", "a choice has no fields"),
            ("union Knobs { a: u32 }", "settings are a struct or an enum"),
        ] {
            let said = error(&syn::parse_str(item).unwrap());
            assert!(said.contains(sentence), "{item}: {said}");
        }
    }
}
