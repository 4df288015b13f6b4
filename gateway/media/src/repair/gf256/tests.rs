use super::*;

#[test]
fn products_obey_the_axioms_of_a_field() {
    for a in 0..=255 {
        assert_eq!([product(a, 0), product(0, a), product(a, 1)], [0, 0, a]);
        assert!(a == 0 || product(a, inverse(a)) == 1, "{a}");
        for b in 0..=255 {
            assert_eq!(product(a, b), product(b, a));
            let c = a.rotate_left(3) ^ b;
            assert_eq!(product(product(a, b), c), product(a, product(b, c)));
            assert_eq!(product(a, b ^ c), product(a, b) ^ product(a, c));
        }
    }
}

#[test]
fn product_is_that_of_polynomials() {
    let slow = |a: u8, b: u8| {
        (0..8).rev().fold(0_u8, |sum, bit| {
            let doubled = (sum << 1) ^ if sum & 0x80 == 0 { 0 } else { REDUCTION };
            doubled ^ if b >> bit & 1 == 0 { 0 } else { a }
        })
    };
    for (a, b) in (0..=255).flat_map(|a| (0..=255).map(move |b| (a, b))) {
        assert_eq!(product(a, b), slow(a, b), "{a} {b}");
    }
}

#[test]
fn multiple_is_added_as_far_as_both_reach() {
    let from: Vec<u8> = (0..=255).collect();
    for factor in [0, 1, 2, 0x8e, 255] {
        let mut sum = vec![7; 100];
        add_multiple(&mut sum, factor, &from);
        let expected: Vec<u8> = (0..100).map(|element| 7 ^ product(factor, element)).collect();
        assert_eq!(sum, expected);
        add_multiple_growing(&mut sum, factor, &from);
        assert_eq!((sum.len(), sum[99], sum[100]), (256, 7, product(factor, 100)));
    }
}

/// The equation of these factors by column, for unknowns with these values.
fn equation(system: &mut LinearSystem, factors: &[(usize, u8)], values: &[&[u8]]) -> Equation {
    let mut equation = system.equation(&[]);
    for &(column, factor) in factors {
        equation.factors[column] = factor;
        add_multiple_growing(&mut equation.value, factor, values[column]);
    }
    equation
}

const VALUES: [&[u8]; 4] = [b"zero", b"first", b"second", b"3"];

fn solved(system: &mut LinearSystem) -> Vec<(usize, Vec<u8>)> {
    let mut solved: Vec<_> = std::iter::from_fn(|| system.take_solved()).collect();
    solved.iter_mut().for_each(|(column, value)| value.truncate(VALUES[*column].len()));
    solved.sort();
    solved
}

fn expected(columns: &[usize]) -> Vec<(usize, Vec<u8>)> {
    columns.iter().map(|&column| (column, VALUES[column].to_vec())).collect()
}

#[test]
fn as_many_equations_as_unknowns_solve_all() {
    let mut system = LinearSystem::default();
    for (factors, solves) in [
        ([(0, 3), (1, 5), (2, 7)], &[][..]),
        ([(0, 9), (1, 200), (2, 7)], &[][..]),
        // A multiple of the first one tells nothing.
        ([(0, product(3, 2)), (1, product(5, 2)), (2, product(7, 2))], &[][..]),
        ([(0, 0), (1, 17), (2, 4)], &[0, 1, 2][..]),
    ] {
        let row = equation(&mut system, &factors, &VALUES);
        system.insert(row, 0);
        assert_eq!(solved(&mut system), expected(solves));
    }
}

#[test]
fn value_that_arrives_late_solves_the_rest() {
    let mut system = LinearSystem::default();
    for factors in [[(1, 3), (2, 5), (3, 1)], [(1, 6), (2, 8), (3, 77)]] {
        let row = equation(&mut system, &factors, &VALUES);
        system.insert(row, 0);
    }
    assert!(solved(&mut system).is_empty());
    system.substitute(1, VALUES[1], 0);
    assert_eq!(solved(&mut system), expected(&[2, 3]));
}

#[test]
fn forgotten_unknown_leaves_other_equations() {
    let mut system = LinearSystem::default();
    for factors in [[(0, 3), (1, 5)], [(0, 6), (1, 8)], [(2, 1), (3, 77)], [(2, 9), (3, 9)]] {
        let mut row = equation(&mut system, &factors, &VALUES);
        // An unknown beyond the others, so that the first two equations solve nothing.
        row.factors[63] = if factors[0].0 == 0 { 1 } else { 0 };
        system.insert(row, 0);
    }
    system.forget(0);
    assert_eq!(solved(&mut system), expected(&[2, 3]));
    system.forget(1);
    assert!(system.rows.is_empty());
}

#[test]
fn oldest_column_is_the_pivot_around_the_circle() {
    let mut system = LinearSystem::default();
    let row = equation(&mut system, &[(1, 3), (3, 5)], &VALUES);
    system.insert(row, 2);
    system.forget(1);
    assert_eq!(system.rows.len(), 1, "column 3 is older than column 1");
    system.forget(3);
    assert!(system.rows.is_empty());
}

#[test]
fn open_equations_are_bounded() {
    let mut system = LinearSystem::default();
    for column in 0..COLUMNS - 1 {
        let mut row = system.equation(b"value");
        (row.factors[column], row.factors[COLUMNS - 1]) = (1, 1);
        system.insert(row, 0);
        assert!(system.rows.len() <= ROWS_MAX && system.spare.len() <= ROWS_MAX);
    }
}
