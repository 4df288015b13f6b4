use super::*;

fn why_not(name: &str) -> Option<String> {
    check(name).err().map(|failed| failed.to_string())
}

#[test]
fn name_is_a_lower_case_crate_name() {
    for good in ["a", "my-route", "route-2", "a--b", &"a".repeat(64), "matching"] {
        assert_eq!(why_not(good), None, "{good}");
    }
    for bad in ["", "My-route", "my_route", "2nd", "-a", "a-", "a/b", "ä", &"a".repeat(65)] {
        let said = why_not(bad).unwrap();
        assert!(said.contains("lower-case letters, digits and hyphens"), "{said}");
    }
}

#[test]
fn reserved_crate_name_is_refused() {
    for bad in ["match", "test", "proc-macro", "gen"] {
        assert!(why_not(bad).unwrap().contains("reserved by Rust"), "{bad}");
    }
    for bad in ["syn", "wit-bindgen", "evenkeel-plugin-sdk"] {
        assert!(why_not(bad).unwrap().contains("is a dependency"), "{bad}");
    }
}
