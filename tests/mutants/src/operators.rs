//! The operators: each changes an expression or statement, if the switch of its number is on.

use std::collections::BTreeMap;

use quote::ToTokens;
use serde::{Deserialize, Serialize};
use syn::visit_mut::{self, VisitMut};
use syn::{
    AngleBracketedGenericArguments, Attribute, BinOp, Block, Expr, ExprBinary, ExprCall, ExprConst,
    ExprIf, ExprLit, ExprMethodCall, ExprPath, ExprReference, ExprRepeat, File, Ident,
    ImplItemConst, ImplItemFn, Item, ItemConst, ItemEnum, ItemFn, ItemStatic, ItemStruct, Lit,
    LitBool, LitFloat, LitInt, Pat, Stmt, TraitItemConst, Type, UnOp, parse_quote,
};

/// A place of a plugin's source with a change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MutationPoint {
    /// `arithmetic`, `boundary`, `branches`, `comparison`, `constant`, `deletion`, `logic`, `method`, `negation`, `nothing`
    /// or `variant`.
    pub operator: String,
    /// The source file, below `src`.
    pub file: String,
    pub before: String,
    pub after: String,
    /// The points from this number up to its own stand in code that the change replaces: they have no effect together with it.
    pub covers_from: u32,
}

/// Variants without fields, by the name of their enum.
pub(crate) type UnitVariants = BTreeMap<String, Vec<String>>;

/// Variants of the SDK that decisions are made of or by.
const OF_SDK: [(&str, &[&str]); 3] = [
    ("Breaker", &["HalfOpen", "Open"]),
    ("Health", &["Down", "Suspect", "Wary"]),
    ("Verdict", &["Abstain", "Accept"]),
];

/// Methods with another of the same parameters and result.
const METHODS: [(&str, &str); 20] = [
    ("all", "any"),
    ("any", "all"),
    ("ceil", "floor"),
    ("floor", "ceil"),
    ("div_f64", "mul_f64"),
    ("mul_f64", "div_f64"),
    ("is_none", "is_some"),
    ("is_some", "is_none"),
    ("is_none_or", "is_some_and"),
    ("is_some_and", "is_none_or"),
    ("max", "min"),
    ("min", "max"),
    ("max_by", "min_by"),
    ("min_by", "max_by"),
    ("max_by_key", "min_by_key"),
    ("min_by_key", "max_by_key"),
    ("saturating_add", "saturating_sub"),
    ("saturating_sub", "saturating_add"),
    ("wrapping_add", "wrapping_sub"),
    ("wrapping_sub", "wrapping_add"),
];

/// The enums of a plugin's files whose variants can replace one another, and those of the SDK. Reasons decide nothing.
pub(crate) fn unit_variants<'a>(files: impl IntoIterator<Item = &'a File>) -> UnitVariants {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let mut found: UnitVariants =
        OF_SDK.iter().map(|(name, variants)| ((*name).to_owned(), owned(variants))).collect();
    for item in files.into_iter().flat_map(|file| &file.items) {
        let Item::Enum(item) = item else { continue };
        let is_reason = |attribute: &Attribute| {
            attribute.path().is_ident("derive") && text(attribute).contains("Reason")
        };
        let units = item.variants.iter().filter(|variant| variant.fields.is_empty());
        let units: Vec<String> = units.map(|variant| variant.ident.to_string()).collect();
        if units.len() > 1 && !item.attrs.iter().any(is_reason) {
            found.insert(item.ident.to_string(), units);
        }
    }
    found
}

/// Puts a switch at each point of a file, and lists the points.
pub(crate) struct Mutator<'a> {
    pub(crate) variants: &'a UnitVariants,
    /// The file's name.
    pub(crate) file: String,
    pub(crate) points: Vec<MutationPoint>,
}

impl Mutator<'_> {
    /// Adds a point, and returns its number.
    fn point(
        &mut self,
        operator: &str,
        before: &impl ToTokens,
        after: String,
        covers_from: u32,
    ) -> u32 {
        let number = self.next();
        let (operator, file, before) = (operator.to_owned(), self.file.clone(), text(before));
        self.points.push(MutationPoint { operator, file, before, after, covers_from });
        number
    }

    fn next(&self) -> u32 {
        self.points.len() as u32
    }

    /// The changes of an expression as a whole.
    fn changes(&self, expr: &Expr) -> Vec<(&'static str, Expr)> {
        match expr {
            Expr::Binary(binary) if !has_let(expr) => changes_of_binary(binary),
            Expr::Unary(unary) if matches!(unary.op, UnOp::Not(_)) => {
                vec![("negation", paren(&unary.expr))]
            }
            Expr::Lit(lit) => {
                other_constant(lit).map(|lit| ("constant", lit)).into_iter().collect()
            }
            Expr::MethodCall(call) => {
                let other = METHODS.iter().find(|(name, _)| call.method == name);
                let other = other.map(|(_, name)| {
                    Expr::MethodCall(ExprMethodCall {
                        method: Ident::new(name, call.method.span()),
                        ..call.clone()
                    })
                });
                other.map(|other| ("method", other)).into_iter().collect()
            }
            Expr::Call(call) if is_some_call(call) => vec![("nothing", parse_quote!(None))],
            Expr::Path(path) => {
                self.other_variant(path).map(|path| ("variant", path)).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    /// The next variant of the enum of a path such as `Verdict::Accept`.
    fn other_variant(&self, path: &ExprPath) -> Option<Expr> {
        let segments = &path.path.segments;
        if segments.len() != 2 {
            return None;
        }
        let variants = self.variants.get(&segments[0].ident.to_string())?;
        let at = variants.iter().position(|variant| segments[1].ident == variant)?;
        let mut other = path.clone();
        let name = &variants[(at + 1) % variants.len()];
        other.path.segments[1].ident = Ident::new(name, segments[1].ident.span());
        Some(Expr::Path(other))
    }
}

impl VisitMut for Mutator<'_> {
    fn visit_expr_mut(&mut self, expr: &mut Expr) {
        let (plain, first) = (expr.clone(), self.next());
        visit_mut::visit_expr_mut(self, expr);
        for (operator, after) in self.changes(&plain) {
            let number = self.point(operator, &plain, text(&after), first);
            *expr = parse_quote!((if crate::mutant::is(#number) { (#after) } else { (#expr) }));
        }
    }

    /// Swaps the branches.
    fn visit_expr_if_mut(&mut self, item: &mut ExprIf) {
        let plain = item.cond.clone();
        visit_mut::visit_expr_if_mut(self, item);
        if !has_let(&plain) {
            let after = format!("!({})", text(&plain));
            let number = self.point("branches", &plain, after, self.next());
            let cond = &item.cond;
            *item.cond = parse_quote!(crate::mutant::is(#number) ^ (#cond));
        }
    }

    /// Deletes a statement that has an effect and no value.
    fn visit_stmt_mut(&mut self, stmt: &mut Stmt) {
        let (plain, first) = (stmt.clone(), self.next());
        visit_mut::visit_stmt_mut(self, stmt);
        if is_effect(&plain) {
            let number = self.point("deletion", &plain, String::new(), first);
            let block: Block = parse_quote!({ #stmt });
            *stmt = Stmt::Expr(parse_quote!(if !crate::mutant::is(#number) #block), None);
        }
    }

    /// A constant that is borrowed may need to live for ever.
    fn visit_expr_reference_mut(&mut self, item: &mut ExprReference) {
        if !matches!(*item.expr, Expr::Array(_) | Expr::Lit(_) | Expr::Path(_) | Expr::Tuple(_)) {
            visit_mut::visit_expr_reference_mut(self, item);
        }
    }

    fn visit_expr_repeat_mut(&mut self, item: &mut ExprRepeat) {
        self.visit_expr_mut(&mut item.expr);
    }

    fn visit_item_fn_mut(&mut self, item: &mut ItemFn) {
        if item.sig.constness.is_none() {
            visit_mut::visit_item_fn_mut(self, item);
        }
    }

    fn visit_impl_item_fn_mut(&mut self, item: &mut ImplItemFn) {
        if item.sig.constness.is_none() {
            visit_mut::visit_impl_item_fn_mut(self, item);
        }
    }

    // A switch is no constant, pattern or type.

    fn visit_expr_const_mut(&mut self, _: &mut ExprConst) {}

    fn visit_item_const_mut(&mut self, _: &mut ItemConst) {}

    fn visit_item_static_mut(&mut self, _: &mut ItemStatic) {}

    fn visit_item_enum_mut(&mut self, _: &mut ItemEnum) {}

    fn visit_item_struct_mut(&mut self, _: &mut ItemStruct) {}

    fn visit_impl_item_const_mut(&mut self, _: &mut ImplItemConst) {}

    fn visit_trait_item_const_mut(&mut self, _: &mut TraitItemConst) {}

    fn visit_pat_mut(&mut self, _: &mut Pat) {}

    fn visit_type_mut(&mut self, _: &mut Type) {}

    fn visit_attribute_mut(&mut self, _: &mut Attribute) {}

    fn visit_angle_bracketed_generic_arguments_mut(
        &mut self,
        _: &mut AngleBracketedGenericArguments,
    ) {
    }
}

fn changes_of_binary(binary: &ExprBinary) -> Vec<(&'static str, Expr)> {
    // Comparisons do not associate, and other operators bind otherwise.
    let (left, right) = (paren(&binary.left), paren(&binary.right));
    let change = |operator, op: BinOp| {
        let (attrs, left, right) = (Vec::new(), left.clone().into(), right.clone().into());
        (operator, Expr::Binary(ExprBinary { attrs, left, op, right }))
    };
    let arithmetic = |op| vec![change("arithmetic", op)];
    match binary.op {
        BinOp::Lt(_) => {
            vec![change("boundary", parse_quote!(<=)), change("comparison", parse_quote!(>=))]
        }
        BinOp::Le(_) => {
            vec![change("boundary", parse_quote!(<)), change("comparison", parse_quote!(>))]
        }
        BinOp::Gt(_) => {
            vec![change("boundary", parse_quote!(>=)), change("comparison", parse_quote!(<=))]
        }
        BinOp::Ge(_) => {
            vec![change("boundary", parse_quote!(>)), change("comparison", parse_quote!(<))]
        }
        BinOp::Eq(_) => vec![change("comparison", parse_quote!(!=))],
        BinOp::Ne(_) => vec![change("comparison", parse_quote!(==))],
        BinOp::And(_) => vec![change("logic", parse_quote!(||))],
        BinOp::Or(_) => vec![change("logic", parse_quote!(&&))],
        BinOp::Add(_) => arithmetic(parse_quote!(-)),
        BinOp::Sub(_) => arithmetic(parse_quote!(+)),
        BinOp::Mul(_) | BinOp::Rem(_) => arithmetic(parse_quote!(/)),
        BinOp::Div(_) => arithmetic(parse_quote!(*)),
        BinOp::BitAnd(_) | BinOp::BitXor(_) => arithmetic(parse_quote!(|)),
        BinOp::BitOr(_) => arithmetic(parse_quote!(&)),
        BinOp::Shl(_) => arithmetic(parse_quote!(>>)),
        BinOp::Shr(_) => arithmetic(parse_quote!(<<)),
        BinOp::AddAssign(_) => arithmetic(parse_quote!(-=)),
        BinOp::SubAssign(_) => arithmetic(parse_quote!(+=)),
        BinOp::MulAssign(_) => arithmetic(parse_quote!(/=)),
        BinOp::DivAssign(_) => arithmetic(parse_quote!(*=)),
        BinOp::BitOrAssign(_) => arithmetic(parse_quote!(&=)),
        BinOp::BitAndAssign(_) => arithmetic(parse_quote!(|=)),
        _ => Vec::new(),
    }
}

/// The opposite boolean, the next integer, or twice the number.
fn other_constant(lit: &ExprLit) -> Option<Expr> {
    let lit = match &lit.lit {
        Lit::Bool(bool) => Lit::Bool(LitBool::new(!bool.value, bool.span)),
        Lit::Int(int) => {
            let next = int.base10_parse::<u64>().ok()?.checked_add(1)?;
            Lit::Int(LitInt::new(&format!("{next}{}", int.suffix()), int.span()))
        }
        Lit::Float(float) => {
            let number = float.base10_parse::<f64>().ok()?;
            let other = if number == 0.0 { 1.0 } else { number * 2.0 };
            Lit::Float(LitFloat::new(&format!("{other:?}{}", float.suffix()), float.span()))
        }
        _ => return None,
    };
    Some(Expr::Lit(ExprLit { attrs: Vec::new(), lit }))
}

fn is_some_call(call: &ExprCall) -> bool {
    matches!(&*call.func, Expr::Path(path) if path.path.is_ident("Some")) && call.args.len() == 1
}

/// True for a call of a method, and an assignment to a field or by an operator.
fn is_effect(stmt: &Stmt) -> bool {
    match stmt {
        Stmt::Expr(Expr::MethodCall(_), Some(_)) => true,
        Stmt::Expr(Expr::Assign(assign), Some(_)) => matches!(*assign.left, Expr::Field(_)),
        Stmt::Expr(Expr::Binary(_), Some(_)) => true,
        _ => false,
    }
}

/// True for a condition with `let`.
fn has_let(cond: &Expr) -> bool {
    match cond {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

fn paren(expr: &Expr) -> Expr {
    parse_quote!((#expr))
}

/// The source without its spaces, which depend on the printer.
fn text(source: &impl ToTokens) -> String {
    source.to_token_stream().to_string().split_whitespace().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutate(source: &str) -> (File, Vec<MutationPoint>) {
        let mut file = syn::parse_file(source).unwrap();
        let variants = unit_variants([&file]);
        let mut mutator =
            Mutator { variants: &variants, file: "lib.rs".to_owned(), points: Vec::new() };
        mutator.visit_file_mut(&mut file);
        let points = mutator.points;
        (file, points)
    }

    /// Each point of the body of a function as `operator: before -> after`.
    fn points(body: &str) -> String {
        let (_, points) = mutate(&format!("fn f() {{ {body} }}"));
        let shown = |it: &MutationPoint| format!("{}: {} -> {}", it.operator, it.before, it.after);
        points.iter().map(shown).collect::<Vec<_>>().join("  ")
    }

    #[test]
    fn operators_change_expressions() {
        for (body, expected) in [
            ("a < b", "boundary: a<b -> (a)<=(b)  comparison: a<b -> (a)>=(b)"),
            ("a >= b", "boundary: a>=b -> (a)>(b)  comparison: a>=b -> (a)<(b)"),
            ("a == b", "comparison: a==b -> (a)!=(b)"),
            ("a && b", "logic: a&&b -> (a)||(b)"),
            ("a * b", "arithmetic: a*b -> (a)/(b)"),
            ("a >> b", "arithmetic: a>>b -> (a)<<(b)"),
            ("!a", "negation: !a -> (a)"),
            ("true", "constant: true -> false"),
            ("7_u8", "constant: 7_u8 -> 8u8"),
            ("0.0", "constant: 0.0 -> 1.0"),
            ("0.75_f64", "constant: 0.75_f64 -> 1.5f64"),
            ("a.min(b)", "method: a.min(b) -> a.max(b)"),
            ("Some(a)", "nothing: Some(a) -> None"),
            ("Verdict::Accept", "variant: Verdict::Accept -> Verdict::Abstain"),
            ("a.push(b);", "deletion: a.push(b); -> "),
            ("a.b = c;", "deletion: a.b=c; -> "),
            ("a += b;", "arithmetic: a+=b -> (a)-=(b)  deletion: a+=b; -> "),
            ("if a { b } else { c }", "branches: a -> !(a)"),
        ] {
            assert_eq!(points(body), expected, "{body}");
        }
    }

    #[test]
    fn constants_patterns_and_types_stay() {
        for body in [
            "const A: u32 = 1 + 2;",
            "match a { 0..=9 => b, 10 => c, Some(11) => d, _ => e }",
            "let a: [u8; 4] = b;",
            "let a = b::<3>();",
            "let a = &0;",
            "let a = [b; 4];",
            "if let Some(a) = b && c { d }",
            "\"text\"",
        ] {
            assert_eq!(points(body), "", "{body}");
        }
        assert_eq!(mutate("const fn f() -> u32 { 1 }").1, []);
        assert_eq!(mutate("enum A { B = 1 } struct C { #[d(e = 1)] f: [u8; 2] }").1, []);
    }

    #[test]
    fn variants_are_those_of_the_enum() {
        let mutated = |attribute: &str| {
            let (_, points) = mutate(&format!(
                "{attribute} enum Level {{ Low, High, Some(u8) }} fn f() -> Level {{ Level::High }}"
            ));
            points.iter().map(|point| point.after.clone()).collect::<Vec<_>>()
        };
        assert_eq!(mutated(""), ["Level::Low"]);
        assert_eq!(mutated("#[derive(Reason)]"), [""; 0], "a reason decides nothing");
    }

    #[test]
    fn outer_point_covers_the_inner_ones() {
        let (_, points) = mutate("fn f() { (a + 1) < b }");
        let found: Vec<(&str, u32)> =
            points.iter().map(|it| (&*it.operator, it.covers_from)).collect();
        let expected = [("constant", 0), ("arithmetic", 0), ("boundary", 0), ("comparison", 0)];
        assert_eq!(found, expected);
    }

    #[test]
    fn mutated_source_has_a_switch_for_each_point() {
        let (file, points) = mutate(
            "fn f(a: u32) -> bool { let b = g(a + 1); b.push(2); if !b.is_empty() && a > 3 { return true; } false }",
        );
        let printed = text(&file);
        assert!(syn::parse_file(&file.to_token_stream().to_string()).is_ok(), "{printed}");
        for number in 0..points.len() {
            let switch = format!("crate::mutant::is({number}u32)");
            assert_eq!(printed.matches(&switch).count(), 1, "{switch} in {printed}");
        }
    }
}
