//! Flame graphs: each function is a bar on its caller, as wide as its share of the samples.

use std::collections::BTreeMap;
use std::fmt::Write as _;

const WIDTH: f64 = 1_200.0;
const BAR_HEIGHT: usize = 18;

/// Narrower bars have no text.
const TEXT_FROM: f64 = 40.0;

/// Width of a letter, roughly.
const LETTER: f64 = 7.0;

/// A function on its callers, with its samples and those of the functions that it called.
#[derive(Default)]
struct Flame<'a> {
    samples: u64,
    callees: BTreeMap<&'a str, Flame<'a>>,
}

impl Flame<'_> {
    fn height(&self) -> usize {
        1 + self.callees.values().map(Flame::height).max().unwrap_or(0)
    }
}

pub(super) fn draw(stacks: &BTreeMap<Vec<String>, u64>) -> String {
    let mut root = Flame::default();
    for (stack, samples) in stacks {
        let mut flame = &mut root;
        flame.samples += samples;
        for name in stack {
            flame = flame.callees.entry(name).or_default();
            flame.samples += samples;
        }
    }
    let height = root.height() * BAR_HEIGHT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"monospace\" font-size=\"11\">\n"
    );
    let all = root.samples.max(1);
    let mut waiting = vec![("all", &root, 0.0, height - BAR_HEIGHT)];
    while let Some((name, flame, left, top)) = waiting.pop() {
        bar(&mut svg, name, flame.samples, all, left, top);
        let mut left = left;
        for (name, callee) in &flame.callees {
            // Callees stand above their caller.
            waiting.push((*name, callee, left, top.saturating_sub(BAR_HEIGHT)));
            left += WIDTH * callee.samples as f64 / all as f64;
        }
    }
    svg + "</svg>\n"
}

fn bar(svg: &mut String, name: &str, samples: u64, all: u64, left: f64, top: usize) {
    let share = samples as f64 / all as f64;
    let (width, percent) = (WIDTH * share, 100.0 * share);
    let name = escaped(name);
    // The same function has the same shade in every graph.
    let shade =
        name.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % 40;
    // Writing to a string cannot fail.
    let _ = write!(
        svg,
        "<g><title>{name}: {samples} samples, {percent:.1} %</title><rect x=\"{left:.1}\" y=\"{top}\" width=\"{width:.1}\" \
         height=\"{}\" fill=\"hsl({}, 80%, 65%)\"/>",
        BAR_HEIGHT - 1,
        15 + shade,
    );
    if width >= TEXT_FROM {
        let letters = ((width - 6.0) / LETTER) as usize;
        let text: String = name.chars().take(letters).collect();
        // An entity that was cut would be no XML.
        let text = text
            .rfind('&')
            .filter(|&at| !text[at..].contains(';'))
            .map_or(&*text, |at| &text[..at]);
        let _ = write!(svg, "<text x=\"{:.1}\" y=\"{}\">{text}</text>", left + 3.0, top + 13);
    }
    svg.push_str("</g>\n");
}

fn escaped(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
