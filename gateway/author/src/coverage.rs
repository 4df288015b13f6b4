//! Coverage: the branches of a plugin that its tests reach.
//!
//! A copy of the plugin reports each branch that it enters, and answers the random worlds and the cases. With debug
//! information branches have lines of source; without it they are counted by function.

mod places;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use addr2line::gimli::{Dwarf, EndianSlice, LittleEndian};
use addr2line::{Context, gimli};
use evenkeel_host::{CallBudgets, Component, Engine, PluginRefusal, ReachedPlaces};
use serde_json::{Value, json};
use wasmparser::{KnownCustom, Name, Parser, Payload};

use self::places::{CodePlace, instrument};
use crate::built::BuiltPlugin;
use crate::case::{self, Case};
use crate::conformance::{self, ConformanceOptions};
use crate::failed::AuthorError;

/// Budget of a call that reports its branches, which takes many times as long.
const OBSERVED: Duration = Duration::from_secs(2);

/// Functions shown at most, the ones with the most unreached branches first.
const FUNCTIONS_SHOWN: usize = 20;

/// Parts of paths of source that is not the author's: Rust's own, crates, the SDK, and the C header.
const FOREIGN: [&str; 7] = [
    "/rustc/",
    "/rust/deps/",
    "/library/",
    "/.cargo/",
    "/registry/src/",
    "/sdk/src/",
    "evenkeel_policy.h",
];

/// The branches that tests reach. As text for people; see [`json`](CoverageReport::json) for tools.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CoverageReport {
    /// Branches that do not end in a trap.
    branches: usize,
    reached: usize,
    /// By function: branches and how many of them were reached. Functions that were not entered are left out.
    functions: BTreeMap<String, (usize, usize)>,
    /// Lines of unreached branches by file; `None` without debug information.
    unreached: Option<BTreeMap<String, BTreeSet<u32>>>,
}

/// Tests a plugin with worlds and cases, and reports its branches.
///
/// # Errors
/// The plugin is a component, refuses the settings, or fails before its first question.
pub fn cover(
    built: &BuiltPlugin,
    options: &ConformanceOptions,
    cases: &[Case],
) -> Result<CoverageReport, AuthorError> {
    let refused = |said: String| PluginRefusal::NotAPlugin(said.into());
    let observed = instrument(&built.bytes).map_err(refused)?;
    let budgets = CallBudgets::all(OBSERVED);
    let (engine, reached) = Engine::observing(budgets, observed.places.len());
    let component = Component::vet_observed(&engine, &built.bytes, &observed.module)?;
    let BuiltPlugin { bytes, documents, compiled_in, .. } = built;
    let (bytes, documents, compiled_in) = (bytes.clone(), documents.clone(), *compiled_in);
    let copy = BuiltPlugin { bytes, component, documents, engine, compiled_in };
    conformance::run(&copy, options)?;
    case::run(&copy, cases, &options.settings)?;
    Ok(CoverageReport::of(&built.bytes, &observed.places, &reached))
}

impl CoverageReport {
    fn of(module: &[u8], places: &[CodePlace], reached: &ReachedPlaces) -> CoverageReport {
        let (names, sections) = names_and_sections(module);
        let source = SourceLines::of(&sections);
        let (mut branches, mut reached_count) = (0, 0);
        let mut functions: BTreeMap<u32, (usize, usize)> = BTreeMap::new();
        let mut unreached: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
        for (number, place) in places.iter().enumerate() {
            let is_reached = reached.has(number);
            if place.traps && !is_reached {
                continue;
            }
            let line = source.as_ref().map(|source| source.line(place.offset));
            // With debug information only the author's own source counts.
            if matches!(line, Some(None)) {
                continue;
            }
            branches += 1;
            reached_count += usize::from(is_reached);
            let function = functions.entry(place.function).or_default();
            *function = (function.0 + 1, function.1 + usize::from(is_reached));
            if let Some(Some((file, line))) = line.filter(|_| !is_reached) {
                unreached.entry(file).or_default().insert(line);
            }
        }
        let named = |number: u32| {
            let name =
                names.get(&number).map(|name| format!("{:#}", rustc_demangle::demangle(name)));
            name.unwrap_or_else(|| format!("function {number}"))
        };
        let entered = functions.into_iter().filter(|(_, (_, reached))| *reached > 0);
        CoverageReport {
            branches,
            reached: reached_count,
            functions: entered.map(|(number, counts)| (named(number), counts)).collect(),
            unreached: source.map(|_| unreached),
        }
    }

    /// The report of `--json`.
    pub fn json(&self) -> Value {
        let function = |(name, (branches, reached)): (&String, &(usize, usize))| json!({"name": name, "branches": branches, "reached": reached});
        json!({
            "branches": self.branches,
            "reached": self.reached,
            "functions": self.functions.iter().map(function).collect::<Vec<_>>(),
            "unreached": self.unreached,
        })
    }
}

impl fmt::Display for CoverageReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = 100 * self.reached / self.branches.max(1);
        write!(f, "coverage: {} of {} branches, {percent} %", self.reached, self.branches)?;
        if let Some(unreached) = &self.unreached {
            for (file, lines) in unreached {
                let lines: Vec<String> = lines.iter().map(u32::to_string).collect();
                write!(f, "\n  not reached: {file}, lines {}", lines.join(", "))?;
            }
            return Ok(());
        }
        let mut functions: Vec<_> = self.functions.iter().collect();
        functions.retain(|(_, (branches, reached))| reached < branches);
        functions.sort_by_key(|(_, (branches, reached))| Reverse(branches - reached));
        for (name, (branches, reached)) in functions.iter().take(FUNCTIONS_SHOWN) {
            write!(f, "\n  {reached:>6} of {branches:>5} in {name}")?;
        }
        Ok(())
    }
}

/// Names of functions by number, and the custom sections by name.
fn names_and_sections(module: &[u8]) -> (BTreeMap<u32, &str>, BTreeMap<&str, &[u8]>) {
    let (mut names, mut sections) = (BTreeMap::new(), BTreeMap::new());
    for payload in Parser::new(0).parse_all(module) {
        let Ok(Payload::CustomSection(section)) = payload else { continue };
        sections.insert(section.name(), section.data());
        let KnownCustom::Name(subsections) = section.as_known() else { continue };
        let functions = subsections.into_iter().filter_map(|name| match name {
            Ok(Name::Function(functions)) => Some(functions),
            _ => None,
        });
        names
            .extend(functions.flatten().filter_map(Result::ok).map(|name| (name.index, name.name)));
    }
    (names, sections)
}

/// Lines of source by offset in the code section.
struct SourceLines<'a>(Context<EndianSlice<'a, LittleEndian>>);

impl<'a> SourceLines<'a> {
    /// `None` without debug information.
    fn of(sections: &BTreeMap<&str, &'a [u8]>) -> Option<SourceLines<'a>> {
        if !sections.contains_key(gimli::SectionId::DebugLine.name()) {
            return None;
        }
        let section = |id: gimli::SectionId| {
            let data = sections.get(id.name()).copied().unwrap_or_default();
            Ok::<_, gimli::Error>(EndianSlice::new(data, LittleEndian))
        };
        let context = Dwarf::load(section).and_then(Context::from_dwarf);
        context.ok().map(SourceLines)
    }

    /// File and line of the author's source, the innermost if functions are inlined.
    fn line(&self, offset: u64) -> Option<(String, u32)> {
        let mut frames = self.0.find_frames(offset).skip_all_loads().ok()?;
        while let Some(frame) = frames.next().ok()? {
            let Some(location) = frame.location else { continue };
            let (Some(file), Some(line)) = (location.file, location.line) else { continue };
            if line > 0 && !FOREIGN.iter().any(|foreign| file.contains(foreign)) {
                return Some((file.to_owned(), line));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
