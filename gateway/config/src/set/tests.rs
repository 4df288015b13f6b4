use super::*;
use crate::invalid::ConfigSource;

#[test]
fn dscp_is_name_or_number() {
    let text = "voice = \"x\"";
    let mut check = ConfigCheck::new(ConfigSource::new(Path::new("a.toml"), text), Path::new(""));
    let mut point = |word: &str| {
        let raw = Spanned::new(8..11, word.to_owned());
        dscp(&Some(raw), 99, &mut check)
    };
    let words = ["EF", "ef", "AF41", "AF11", "AF43", "CS5", "BE", "63"];
    assert_eq!(words.map(&mut point), [46, 46, 34, 10, 38, 40, 0, 63]);
    for word in ["AF44", "AF51", "CS8", "64", ""] {
        assert_eq!(point(word), 99, "{word}");
    }
    assert_eq!(check.invalid.len(), 5);
}

#[test]
fn every_hook_has_its_own_on_fault() {
    for hook in Hook::ALL {
        let others = Hook::ALL.into_iter().filter(|other| *other != hook);
        let others: Vec<_> = others.flat_map(OnFault::of).collect();
        assert!(OnFault::of(hook).iter().all(|mode| !others.contains(&mode)), "{hook:?}");
    }
}
