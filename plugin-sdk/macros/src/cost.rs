//! Declared costs: `cost(tick(call = 2_000, row = 300))` in the attribute of a hook.

use proc_macro2::TokenStream;
use syn::meta::{self, ParseNestedMeta};
use syn::parse::{ParseStream, Parser};
use syn::{Error, LitInt, Result};

/// A function of a hook.
pub(crate) struct HookFunction {
    pub(crate) name: &'static str,
    /// Name of the rows of the function; empty if it has none.
    pub(crate) rows: &'static str,
}

/// Returns the last member of the manifest, with the comma before it; empty without declared costs.
pub(crate) fn promised(calls: &[HookFunction], arguments: &TokenStream) -> Result<String> {
    let mut promises: Vec<(&str, u32, u32)> = Vec::new();
    let arguments = arguments.clone();
    meta::parser(|meta| {
        if !meta.path.is_ident("cost") {
            return Err(meta.error("this attribute takes `cost(…)` or nothing"));
        }
        let nothing = "`cost` names calls: `cost(tick(call = 2_000, row = 300))`";
        if is_empty(&meta.input.fork()).unwrap_or(false) {
            return Err(meta.error(nothing));
        }
        meta.parse_nested_meta(|meta| {
            let Some(call) = calls.iter().find(|call| meta.path.is_ident(call.name)) else {
                let names: Vec<String> =
                    calls.iter().map(|call| format!("`{}`", call.name)).collect();
                let said = format!("this hook has no such call: it has {}", names.join(" and "));
                return Err(meta.error(said));
            };
            if promises.iter().any(|(name, ..)| *name == call.name) {
                return Err(meta.error("the cost of this call is given twice"));
            }
            let (whole, row) = promise(call, &meta)?;
            promises.push((call.name, whole, row));
            Ok(())
        })
    })
    .parse2(arguments)?;
    let promises: Vec<String> = promises
        .into_iter()
        .map(|(name, whole, row)| format!("\"{name}\":{{\"call\":{whole},\"row\":{row}}}"))
        .collect();
    let is_none = promises.is_empty();
    Ok(if is_none { String::new() } else { format!(",\"cost\":{{{}}}", promises.join(",")) })
}

/// Returns whether the following parentheses are empty.
fn is_empty(input: ParseStream<'_>) -> Result<bool> {
    let content;
    syn::parenthesized!(content in input);
    Ok(content.is_empty())
}

/// Returns the cost of a call: independent of rows, and per row.
fn promise(call: &HookFunction, meta: &ParseNestedMeta<'_>) -> Result<(u32, u32)> {
    let (mut whole, mut row) = (None, None);
    meta.parse_nested_meta(|part| {
        let place = if part.path.is_ident("call") {
            &mut whole
        } else if part.path.is_ident("row") && call.rows.is_empty() {
            return Err(part.error(format!("`{}` has no rows: give `call` only", call.name)));
        } else if part.path.is_ident("row") {
            &mut row
        } else {
            return Err(part.error("expected `call` or `row`"));
        };
        if place.is_some() {
            return Err(part.error("given twice"));
        }
        let literal: LitInt = part.value()?.parse()?;
        let said = format!("{literal} is not a number of instructions: 0 to {}", u32::MAX);
        *place = Some(literal.base10_parse().map_err(|_| Error::new(literal.span(), said))?);
        Ok(())
    })?;
    match (whole, row) {
        (Some(0), _) => Err(meta.error("no call takes 0 instructions")),
        (None, _) => Err(meta.error("`call = …` is missing: instructions independent of rows")),
        (Some(_), None) if !call.rows.is_empty() => Err(meta.error(format!(
            "`row = …` is missing: instructions for each of the {}, or 0",
            call.rows
        ))),
        (Some(whole), row) => Ok((whole, row.unwrap_or(0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLS: &[HookFunction] = &[
        HookFunction { name: "place", rows: "nodes" },
        HookFunction { name: "resolve", rows: "" },
    ];

    fn read(arguments: &str) -> std::result::Result<String, String> {
        promised(CALLS, &arguments.parse().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn cost_is_a_member_of_the_manifest() {
        assert_eq!(read("").unwrap(), "");
        assert_eq!(
            read("cost(place(call = 2_000, row = 30), resolve(call = 9))").unwrap(),
            r#","cost":{"place":{"call":2000,"row":30},"resolve":{"call":9,"row":0}}"#
        );
    }

    #[test]
    fn invalid_costs_have_clear_errors() {
        for (arguments, sentence) in [
            ("price(place(call = 1, row = 1))", "takes `cost(…)` or nothing"),
            ("cost()", "names calls"),
            ("cost", "expected parentheses"),
            ("cost(tick(call = 1, row = 1))", "it has `place` and `resolve`"),
            ("cost(place(call = 1))", "each of the nodes"),
            ("cost(place(row = 1))", "`call = …` is missing"),
            ("cost(place(call = 0, row = 1))", "0 instructions"),
            ("cost(place(call = -1, row = 1))", "-1 is not a number of instructions"),
            ("cost(place(call = 1.5, row = 1))", "expected integer literal"),
            ("cost(place(call = 5_000_000_000, row = 1))", "0 to 4294967295"),
            ("cost(place(call = 1, call = 1, row = 1))", "given twice"),
            ("cost(place(call = 1, row = 1), place(call = 1, row = 1))", "given twice"),
            ("cost(place(call = 1, column = 1))", "expected `call` or `row`"),
            ("cost(resolve(call = 1, row = 1))", "has no rows"),
        ] {
            let said = read(arguments).unwrap_err();
            assert!(said.contains(sentence), "{arguments}: {said}");
        }
    }
}
