//! The two active mutations of a compiled plugin, which its bytes hold behind a mark.

use std::ops::Range;

/// The mark in the data of a compiled plugin. The numbers of the active mutations follow, little-endian.
pub const MARK: &[u8; 16] = b"evenkeel-mutant:";

/// The number of no mutation.
pub const NONE: u32 = u32::MAX;

/// The place of the numbers.
fn place(plugin: &[u8]) -> Result<Range<usize>, String> {
    let mut marks = (0..plugin.len()).filter(|&at| plugin[at..].starts_with(MARK));
    let (first, another) = (marks.next(), marks.next());
    let from = first.ok_or("the plugin has no mark of mutations")? + MARK.len();
    let numbers = from..from + 8;
    if another.is_some() || plugin.len() < numbers.end {
        return Err("the plugin has two marks of mutations, or no numbers".to_owned());
    }
    Ok(numbers)
}

/// The plugin with these mutations.
///
/// # Errors
/// It was not built with mutations.
pub fn with_mutations(plugin: &[u8], numbers: [u32; 2]) -> Result<Vec<u8>, String> {
    let place = place(plugin)?;
    let mut mutant = plugin.to_vec();
    let bytes: Vec<u8> = numbers.into_iter().flat_map(u32::to_le_bytes).collect();
    mutant[place].copy_from_slice(&bytes);
    Ok(mutant)
}

/// The file of the generated crates that reads the numbers. The compiler must not know them: a call of [`std::hint::black_box`]
/// hides the table.
pub(crate) fn module() -> String {
    let mark = String::from_utf8_lossy(MARK);
    let none = "\\xff".repeat(8);
    format!(
        "static ACTIVE: [u8; 24] = *b\"{mark}{none}\";\n\n\
         #[inline(never)]\n\
         pub(crate) fn is(number: u32) -> bool {{\n    \
             let active = core::hint::black_box(&ACTIVE);\n    \
             let at = |from: usize| u32::from_le_bytes([active[from], active[from + 1], active[from + 2], active[from + 3]]);\n    \
             at(16) == number || at(20) == number\n\
         }}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(marks: usize) -> Vec<u8> {
        let table = [&MARK[..], &[0xff; 8]].concat();
        [b"before".to_vec(), table.repeat(marks), b"after".to_vec()].concat()
    }

    #[test]
    fn numbers_follow_the_mark() {
        let plugin = plugin(1);
        let mutant = with_mutations(&plugin, [7, 258]).unwrap();
        assert_eq!(mutant[22..30], [7, 0, 0, 0, 2, 1, 0, 0]);
        assert_eq!((&mutant[..22], &mutant[30..]), (&plugin[..22], &plugin[30..]));
        assert_eq!(with_mutations(&mutant, [NONE; 2]).unwrap(), plugin);
    }

    #[test]
    fn plugin_needs_exactly_one_mark() {
        assert!(with_mutations(&plugin(0), [0, 1]).unwrap_err().contains("no mark"));
        assert!(with_mutations(&plugin(2), [0, 1]).unwrap_err().contains("two marks"));
        assert!(with_mutations(MARK, [0, 1]).unwrap_err().contains("no numbers"));
    }

    #[test]
    fn generated_module_has_the_mark() {
        let module = module();
        assert!(syn::parse_file(&module).is_ok(), "{module}");
        assert!(module.contains("*b\"evenkeel-mutant:\\xff\\xff"), "{module}");
    }
}
