//! Data documents: facts that a policy looks up, given beside its settings.

use std::marker::PhantomData;

use crate::diag::{Level, log};
use crate::json::Json;
use crate::manifest::Text;
use crate::settings::Setting;

/// A data document with facts by key: tenants, classes of devices, carriers.
///
/// Declare it in the hook's `DATA`, so that the gateway checks it by the schema of `T`; look up in any function of the
/// policy. A document is part of the revision: a lookup gives the same answer until the document is rolled out anew.
///
/// ```
/// use evenkeel_plugin_sdk::prelude::*;
///
/// #[derive(Settings)]
/// struct Tenant {
///     #[setting(default = 10, min = 0, max = 100)]
///     priority: u32,
/// }
///
/// const TENANTS: DataMap<Tenant> = DataMap::named("tenants");
///
/// #[derive(Settings)]
/// struct ByTenant;
///
/// #[scenario]
/// impl Scenario for ByTenant {
///     const DATA: &'static [Document] = &[TENANTS.document()];
///
///     fn resolve(&self, _scenario: &str, labels: Labels<'_>, out: &mut Params) {
///         if let Some(tenant) = labels.value(label::TENANT).and_then(|name| TENANTS.get(name)) {
///             out.priority(tenant.priority);
///         }
///     }
/// }
///
/// use evenkeel_plugin_sdk::trial::{Trial, World, give_document};
///
/// give_document("tenants", r#"{"acme": {"priority": 90}, "other": {}}"#);
/// let mut trial = Trial::of(ByTenant, World::around("east"));
/// assert_eq!(trial.resolve(&[("tenant", "acme")]).value(Param::Priority), Some(90));
/// assert_eq!(trial.resolve(&[("tenant", "other")]).value(Param::Priority), Some(10));
/// assert_eq!(trial.resolve(&[("tenant", "unknown")]).value(Param::Priority), None);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct DataMap<T> {
    name: &'static str,
    of: PhantomData<fn() -> T>,
}

impl<T: Setting> DataMap<T> {
    /// The document of this name: 1 to 64 lower-case letters, digits and hyphens.
    pub const fn named(name: &'static str) -> DataMap<T> {
        DataMap { name, of: PhantomData }
    }

    /// The declaration of the document.
    pub const fn document(&self) -> Document {
        Document { name: self.name, value: [T::SCHEMA, T::MIN, T::MAX] }
    }

    /// The fact with this key. A fact that contradicts a bound of `T` that the schema cannot express is logged, and counts
    /// as missing.
    pub fn get(&self, key: &str) -> Option<T> {
        let read = T::read(&member(self.name, key)?);
        read.inspect_err(|error| log(Level::Error, &format!("{} of {}: {error}", key, self.name)))
            .ok()
    }
}

/// A data document that a policy declares; see [`DataMap::document`].
#[derive(Clone, Copy, Debug)]
pub struct Document {
    pub(crate) name: &'static str,
    /// Parts of the schema of each member.
    pub(crate) value: [Text; 3],
}

#[cfg(target_arch = "wasm32")]
fn member(document: &str, key: &str) -> Option<Json> {
    // The gateway writes JSON, but perhaps more deeply nested than this parser reads.
    Json::parse(&crate::wit::documents::lookup(document, &[key.to_owned()])?).ok()
}

#[cfg(not(target_arch = "wasm32"))]
fn member(document: &str, key: &str) -> Option<Json> {
    crate::trial::member(document, key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::BitRate;
    use crate::trial::{give_document, lines};

    const RATES: DataMap<BitRate> = DataMap::named("rates");
    const COUNTS: DataMap<u8> = DataMap::named("counts");

    #[test]
    fn declared_documents_have_a_schema() {
        const TEXT: Text = Text::Documents(&[RATES.document(), COUNTS.document()]);
        let bytes: [u8; TEXT.len()] = TEXT.bytes();
        let expected = concat!(
            r#","data":{"rates":{"type":"object","additionalProperties":{"type":"string","#,
            r#""pattern":"^[0-9]+([.][0-9]+)? (kbit/s|Mbit/s|Gbit/s)$"}},"#,
            r#""counts":{"type":"object","additionalProperties":{"type":"integer","minimum":0,"maximum":255}}}"#,
        );
        assert_eq!(std::str::from_utf8(&bytes), Ok(expected));
        assert!(Text::Documents(&[]).is_empty());
    }

    #[test]
    fn unreadable_fact_is_logged_and_missing() {
        assert_eq!(RATES.get("gold"), None, "no document was given");
        give_document("rates", r#"{"gold": "2 Mbit/s", "odd": 7}"#);
        assert_eq!(RATES.get("gold").map(BitRate::kbps), Some(2_000));
        assert_eq!((RATES.get("silver"), lines()), (None, vec![]));
        assert_eq!(RATES.get("odd"), None);
        let said =
            "odd of rates: found 7, expected a bit rate such as \"300 kbit/s\" or \"1.5 Mbit/s\"";
        assert_eq!(lines(), [(Level::Error, said.to_owned())]);
    }
}
