use evenkeel_fuzz::Corpus;

use super::*;
use crate::component::look;
use crate::outline::MANIFEST_SECTION;
use crate::refused::tests::assert_is_message;
use crate::shipped;
use crate::signature::{SecretKey, sign, signer};

#[test]
fn module_shows_imports_exports_and_manifest() {
    let [plugin, ..] = shipped() else { panic!("plugins are shipped") };
    let file = PluginFile::parse(plugin.bytes);
    assert_eq!((file.form, &file.broken), (Some(Form::Module), &None));
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
        if let Err(refused) = look(bytes) {
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
        assert_eq!(look(&signed).is_ok(), look(bytes).is_ok());
    });
}
