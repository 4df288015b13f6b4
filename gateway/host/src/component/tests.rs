use super::*;
use crate::shipped;

#[test]
fn import_error_is_one_bounded_line() {
    let found = |bytes: &[u8]| match look(bytes) {
        Err(PluginRefusal::Import { found, .. } | PluginRefusal::Contract { found, .. }) => found,
        other => panic!("{other:?}"),
    };
    // A number of two bytes (LEB128).
    let number = |number: usize| [(number & 127) as u8 | 128, (number >> 7) as u8];
    let importing = |interface: &str| {
        let of_it = [&b"\x01"[..], &number(interface.len()), interface.as_bytes()].concat();
        let import = [&of_it[..], b"\x01f\0\0"].concat();
        let module = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x02";
        [&module[..], &number(import.len()), &import].concat()
    };
    let long = format!("\n{}", "a".repeat(2_000));
    assert_eq!(found(&importing(&long)).len(), LINE_BYTES_MAX);
    assert!(found(&importing(&long)).starts_with(" aaa"));
    let other = format!("evenkeel:policy/diag@\n{}", "9".repeat(2_000));
    assert_eq!(found(&importing(&other)).len(), NAME_BYTES_MAX);
}

#[test]
fn plugin_in_use_is_not_compiled_again() {
    let engine = Engine::new();
    let [first, second, ..] = shipped() else { panic!("plugins are shipped") };
    let held = Component::vet(&engine, first.bytes).unwrap();
    let again = Component::vet(&engine, first.bytes).unwrap();
    assert!(Arc::ptr_eq(&held.0, &again.0));
    assert!(!Arc::ptr_eq(&held.0, &Component::vet(&engine, second.bytes).unwrap().0));
    let digest = *held.digest();
    drop((held, again));
    assert!(engine.recall(&digest).is_none(), "unused plugins are dropped");
}

#[test]
fn parser_error_is_one_line() {
    // A component that contains a core module with another magic number.
    let plugin = b"\0asm\x0d\0\x01\0\x01\x08\0a\0m\x01\0\0\0";
    let Err(PluginRefusal::NotWasm { said }) = look(plugin) else { panic!("taken") };
    assert!(said.contains("magic") && !said.contains(char::is_control), "{said}");
}

#[test]
fn inner_module_beyond_the_file_is_refused() {
    // The core module is declared to be one byte longer than the file.
    let plugin = b"\0asm\x0d\0\x01\0\x01\x09\0asm\x01\0\0\0";
    let said = "a module inside exceeds the file".into();
    assert_eq!(look(plugin), Err(PluginRefusal::NotWasm { said }));
}
