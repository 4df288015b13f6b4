use super::*;
use crate::outline::MANIFEST_SECTION;
use crate::shipped;

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
