use super::*;

#[test]
fn codes_need_the_secret() {
    let (one, other) = (SessionUrls::default(), SessionUrls::default());
    let code = one.code(&["s17", "whip"]);
    assert_ne!(other.code(&["s17", "whip"]), code);
    other.resume(one.secret());
    assert_eq!(other.code(&["s17", "whip"]), code);
    for parts in [&["s1", "7whip"][..], &["s17whip"], &["s18", "whip"]] {
        assert_ne!(one.code(parts), code, "{parts:?}");
    }
    assert_eq!(format!("{:?}", one.secret()), "SessionUrlSecret { .. }");
}
