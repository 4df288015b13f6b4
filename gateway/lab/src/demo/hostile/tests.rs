use super::*;

#[test]
fn all_but_the_broken_plugin_are_modules() {
    for vice in Vice::ALL {
        let module = plugin(vice, 7).unwrap();
        let is_module = module.starts_with(b"\0asm");
        assert_eq!(is_module, vice != Vice::Broken, "{vice:?}");
    }
}
