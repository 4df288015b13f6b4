//! Marks tests by what they need.

use proc_macro::{Delimiter, Group, TokenStream, TokenTree};

/// `Need=name;…` of everything that the machine lacked when the build script looked.
const LACKING: &str = env!("EVENKEEL_LACKING");

/// Marks a test by variants of `evenkeel_testkit::need::Need`, above `#[test]`. Where the machine lacks one of them, the test is
/// ignored with this reason, and fails if it is run.
#[proc_macro_attribute]
pub fn required(needs: TokenStream, test: TokenStream) -> TokenStream {
    let names: Vec<String> = needs
        .into_iter()
        .filter_map(|token| match token {
            TokenTree::Ident(name) => Some(name.to_string()),
            _ => None,
        })
        .collect();
    let mut tokens: Vec<TokenTree> = test.into_iter().collect();
    let body = tokens.pop();
    let attributes: Vec<String> = tokens.iter().filter_map(attribute).collect();
    let is_test = |attribute: &String| {
        let path = attribute.split('(').next().unwrap_or_default();
        path.rsplit("::").next().is_some_and(|name| name.trim() == "test")
    };
    let (Some(TokenTree::Group(body)), true) = (body, attributes.iter().any(is_test)) else {
        return parse("compile_error!(\"`#[required]` stands above `#[test]`\");");
    };
    let variants = names.iter().map(|name| format!("::evenkeel_testkit::need::Need::{name}, "));
    let check = format!("::evenkeel_testkit::required(&[{}]);", variants.collect::<String>());
    let mut checked =
        Group::new(Delimiter::Brace, parse(&check).into_iter().chain(body.stream()).collect());
    checked.set_span(body.span());
    let is_ignored = attributes.iter().any(|attribute| attribute.starts_with("ignore"));
    let reason = reason(&names, LACKING).filter(|_| !is_ignored);
    let ignore =
        reason.map_or_else(TokenStream::new, |reason| parse(&format!("#[ignore = {reason:?}]")));
    ignore.into_iter().chain(tokens).chain([TokenTree::Group(checked)]).collect()
}

/// The text between the brackets of an attribute.
fn attribute(token: &TokenTree) -> Option<String> {
    match token {
        TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket => {
            Some(group.stream().to_string())
        }
        _ => None,
    }
}

fn parse(source: &str) -> TokenStream {
    source.parse().expect("it is written here")
}

/// The reason to ignore a test with these needs; `None` if the machine has them.
fn reason(needs: &[String], lacking: &str) -> Option<String> {
    let lacking = lacking.split(';').filter_map(|line| line.split_once('='));
    let names: Vec<&str> = lacking
        .filter(|(need, _)| needs.iter().any(|it| it == need))
        .map(|(_, name)| name)
        .collect();
    (!names.is_empty()).then(|| format!("needs {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_names_what_the_machine_lacks() {
        let lacking = "Nft=nft (nftables);Root=root";
        let of = |needs: &[&str]| {
            reason(&needs.iter().map(|need| (*need).to_owned()).collect::<Vec<_>>(), lacking)
        };
        assert_eq!(of(&["Root", "Nft"]).as_deref(), Some("needs nft (nftables), root"));
        assert_eq!(of(&["Nats", "Root"]).as_deref(), Some("needs root"));
        assert_eq!(of(&["Nats"]), None);
        assert_eq!(reason(&["Root".to_owned()], ""), None);
    }
}
