use evenkeel_fuzz::Corpus;

use super::*;
use crate::refusal::tests::assert_is_message;
use crate::trust::{SecretKey, shipped, sign, signer};

#[test]
fn module_shows_imports_exports_and_manifest() {
    let [plugin, ..] = shipped() else { panic!("plugins are shipped") };
    let file = PluginFile::parse(plugin.bytes);
    assert_eq!((file.form, &file.broken), (Some(PluginFormat::Module), &None));
    assert!(file.imports.iter().all(|import| import.starts_with("evenkeel:policy/diag@")));
    assert!(file.exports.iter().any(|export| export.ends_with("#init")));
    let manifest = String::from_utf8(file.manifest.unwrap()).unwrap();
    assert!(manifest.starts_with(&format!("{{\"name\":\"{}\"", plugin.name)));
    let section = file.sections.iter().find(|(name, _)| &**name == MANIFEST_SECTION);
    assert_eq!(section.map(|(_, bytes)| *bytes), Some(manifest.len()));
}

#[test]
fn truncated_file_shows_its_readable_part() {
    let [plugin, ..] = shipped() else { panic!("plugins are shipped") };
    let file = PluginFile::parse(&plugin.bytes[..plugin.bytes.len() / 2]);
    assert!(file.broken.is_some() && !file.imports.is_empty());
    assert_eq!(file.manifest, None, "custom sections are last");
    let text = PluginFile::parse(b"no plugin at all");
    assert_eq!((text.form, text.broken.is_some()), (None, true));
}

#[test]
fn fuzz_plugin() {
    let key = SecretKey::generate();
    Corpus::of("plugin").check(|bytes| {
        let file = PluginFile::parse(bytes);
        let listed = [file.imports.len(), file.exports.len(), file.sections.len()];
        assert!(listed.into_iter().all(|listed| listed <= LISTED_MAX));
        if let Err(refused) = read_manifest(bytes) {
            assert_is_message(&refused);
        }
        if let Err(refused) = signer(bytes) {
            assert_is_message(&refused);
        }
        let Ok(signed) = sign(bytes, &key) else { return };
        assert_eq!(signer(&signed), Ok(Some(key.public())));
        assert_eq!(
            sign(&signed, &key).as_ref(),
            Ok(&signed),
            "signing again replaces the signature"
        );
        assert_eq!(read_manifest(&signed).is_ok(), read_manifest(bytes).is_ok());
    });
}

#[test]
fn import_error_is_one_bounded_line() {
    let found = |bytes: &[u8]| match read_manifest(bytes) {
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
fn parser_error_is_one_line() {
    // A component that contains a core module with another magic number.
    let plugin = b"\0asm\x0d\0\x01\0\x01\x08\0a\0m\x01\0\0\0";
    let Err(PluginRefusal::NotWasm(said)) = read_manifest(plugin) else { panic!("taken") };
    assert!(said.contains("magic") && !said.contains(char::is_control), "{said}");
}

#[test]
fn inner_module_beyond_the_file_is_refused() {
    // The core module is declared to be one byte longer than the file.
    let plugin = b"\0asm\x0d\0\x01\0\x01\x09\0asm\x01\0\0\0";
    let said = "a module inside exceeds the file".into();
    assert_eq!(read_manifest(plugin), Err(PluginRefusal::NotWasm(said)));
}
