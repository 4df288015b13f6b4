//! Arithmetic of GF(256), and systems of linear equations over it.
//!
//! The polynomial of the field is x⁸ + x⁴ + x³ + x² + 1, as in RFC 8681. `docs/adr/0013-own-gf256.md` says why this is no crate.

/// The polynomial without x⁸.
const REDUCTION: u8 = 0x1d;

/// Powers of x, which generates the field, twice in a row, so that a sum of two logarithms needs no reduction.
const POWERS: [u8; 510] = {
    let (mut powers, mut power, mut exponent) = ([0; 510], 1_u8, 0);
    while exponent < 255 {
        powers[exponent] = power;
        powers[exponent + 255] = power;
        power = (power << 1) ^ if power & 0x80 == 0 { 0 } else { REDUCTION };
        exponent += 1;
    }
    powers
};

/// Exponents by power; 0 has none.
const LOGARITHMS: [u8; 256] = {
    let (mut logarithms, mut exponent) = ([0; 256], 0);
    while exponent < 255 {
        logarithms[POWERS[exponent] as usize] = exponent as u8;
        exponent += 1;
    }
    logarithms
};

fn logarithm(a: u8) -> usize {
    usize::from(LOGARITHMS[usize::from(a)])
}

pub(super) fn product(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 { 0 } else { POWERS[logarithm(a) + logarithm(b)] }
}

/// The inverse of 0 is undefined; this returns 1.
fn inverse(a: u8) -> u8 {
    POWERS[255 - logarithm(a)]
}

/// The products of a factor and each element.
fn multiples(factor: u8) -> [u8; 256] {
    let (mut low, mut all) = ([0; 16], [0; 256]);
    for (element, low) in (0..).zip(&mut low) {
        *low = product(factor, element);
    }
    for (high, row) in (0..).zip(all.as_chunks_mut::<16>().0) {
        let high = product(factor, high << 4);
        row.iter_mut().zip(low).for_each(|(sum, low)| *sum = high ^ low);
    }
    all
}

/// Adds `factor` times `from` to `to`, as far as both reach. Subtraction is the same.
pub(super) fn add_multiple(to: &mut [u8], factor: u8, from: &[u8]) {
    if factor != 0 {
        let multiples = multiples(factor);
        let both = to.iter_mut().zip(from);
        both.for_each(|(sum, element)| *sum ^= multiples[usize::from(*element)]);
    }
}

/// Like [`add_multiple`]; `to` grows to the length of `from`, as if zeros followed it.
pub(super) fn add_multiple_growing(to: &mut Vec<u8>, factor: u8, from: &[u8]) {
    to.resize(to.len().max(from.len()), 0);
    add_multiple(to, factor, from);
}

/// Columns of a system: unknowns at one time.
pub(super) const COLUMNS: usize = 64;

/// Equations at one time. A repair symbol adds one at most, and more than these are open only after bursts that stay lost.
const ROWS_MAX: usize = 16;

/// A sum of multiples of unknowns, and its value.
#[derive(Clone, Debug)]
pub(super) struct Equation {
    pub(super) factors: [u8; COLUMNS],
    pub(super) value: Vec<u8>,
}

impl Equation {
    fn subtract_multiple(&mut self, factor: u8, other: &Equation) {
        add_multiple(&mut self.factors, factor, &other.factors);
        add_multiple_growing(&mut self.value, factor, &other.value);
    }
}

/// An equation whose unknown `pivot` has the factor 1, and 0 in all other equations.
#[derive(Debug)]
struct PivotEquation {
    pivot: usize,
    equation: Equation,
}

/// A system in reduced echelon form. The oldest unknown of an equation is its pivot. No allocation per equation: buffers are used again.
#[derive(Default, Debug)]
pub(super) struct LinearSystem {
    rows: Vec<PivotEquation>,
    spare: Vec<Vec<u8>>,
}

impl LinearSystem {
    /// An equation without unknowns, with this value.
    pub(super) fn equation(&mut self, value: &[u8]) -> Equation {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(value);
        Equation { factors: [0; COLUMNS], value: buffer }
    }

    /// Takes back the buffer of a value.
    pub(super) fn recycle(&mut self, value: Vec<u8>) {
        if self.spare.len() < ROWS_MAX {
            self.spare.push(value);
        }
    }

    /// Adds an equation. Columns are used in a circle, of which `oldest` comes first.
    pub(super) fn insert(&mut self, mut equation: Equation, oldest: usize) {
        for row in &self.rows {
            equation.subtract_multiple(equation.factors[row.pivot], &row.equation);
        }
        let mut columns = (0..COLUMNS).map(|column| (oldest + column) % COLUMNS);
        let Some(pivot) = columns.find(|&column| equation.factors[column] != 0) else {
            return self.recycle(equation.value);
        };
        let scale = multiples(inverse(equation.factors[pivot]));
        let Equation { factors, value } = &mut equation;
        for byte in factors.iter_mut().chain(value) {
            *byte = scale[usize::from(*byte)];
        }
        for row in &mut self.rows {
            row.equation.subtract_multiple(row.equation.factors[pivot], &equation);
        }
        if self.rows.len() == ROWS_MAX {
            let first = self.rows.remove(0);
            self.recycle(first.equation.value);
        }
        self.rows.push(PivotEquation { pivot, equation });
    }

    /// Puts a value in the place of an unknown.
    pub(super) fn substitute(&mut self, column: usize, value: &[u8], oldest: usize) {
        for row in &mut self.rows {
            let factor = std::mem::take(&mut row.equation.factors[column]);
            add_multiple_growing(&mut row.equation.value, factor, value);
        }
        if let Some(place) = self.rows.iter().position(|row| row.pivot == column) {
            let row = self.rows.swap_remove(place);
            self.insert(row.equation, oldest);
        }
    }

    /// Gives up the oldest unknown: it can only be a pivot.
    pub(super) fn forget(&mut self, oldest: usize) {
        if let Some(place) = self.rows.iter().position(|row| row.pivot == oldest) {
            let row = self.rows.swap_remove(place);
            self.recycle(row.equation.value);
        }
    }

    /// Takes an equation with one unknown: its column, and its value.
    pub(super) fn take_solved(&mut self) -> Option<(usize, Vec<u8>)> {
        let is_solved = |row: &PivotEquation| {
            row.equation.factors.iter().filter(|factor| **factor != 0).count() == 1
        };
        let place = self.rows.iter().position(is_solved)?;
        let PivotEquation { pivot, equation } = self.rows.swap_remove(place);
        Some((pivot, equation.value))
    }
}

#[cfg(test)]
mod tests;
