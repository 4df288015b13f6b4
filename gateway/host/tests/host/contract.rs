//! The contract's files: WIT and registry, current and released.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Table;
use wit_parser::{Docs, Function, InterfaceId, Resolve, Type, TypeDefKind, TypeId, WorldItem};

#[path = "../../../../plugin-sdk/build/registry.rs"]
#[allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "build scripts read it too")]
pub(crate) mod registry;

use registry::RegistryEntry;

pub(crate) fn sdk() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugin-sdk")
}

pub(crate) fn read(path: &str) -> String {
    let path = sdk().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Released versions, each a folder under `plugin-sdk/fixtures`.
pub(crate) fn releases() -> Vec<String> {
    let folders = std::fs::read_dir(sdk().join("fixtures")).unwrap();
    let names = folders.map(|folder| folder.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> =
        names.filter(|name| name.starts_with(|c: char| c.is_ascii_digit())).collect();
    names.sort_by_key(|name| {
        name.split('.').map(|part| part.parse().unwrap()).collect::<Vec<u32>>()
    });
    assert!(!names.is_empty(), "there is a release");
    names
}

/// All tables of a registry, by key.
pub(crate) fn tables(text: &str) -> Result<BTreeMap<&'static str, Vec<RegistryEntry>>, String> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    if let Some(key) =
        table.keys().find(|key| !registry::TABLES.iter().any(|(known, _)| known == key))
    {
        return Err(format!("[[{key}]] is no table of the registry"));
    }
    registry::TABLES.iter().map(|&(key, _)| Ok((key, registry::entries(&table, key)?))).collect()
}

/// A resolved WIT package.
pub(crate) struct Wit {
    pub(crate) resolve: Resolve,
    pub(crate) version: String,
}

/// An interface as text that depends on its types only.
pub(crate) struct Interface {
    pub(crate) doc: String,
    pub(crate) types: Vec<Named>,
    pub(crate) functions: Vec<Named>,
}

/// A type or a function.
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) doc: String,
    /// `func(level: u8, message: string)`; complete, so that any difference shows.
    pub(crate) text: String,
    /// Fields or cases of a record or variant, with types and docs.
    pub(crate) parts: Vec<(String, String, String)>,
}

impl Wit {
    pub(crate) fn parse(text: &str) -> Wit {
        let mut resolve = Resolve::default();
        let package = resolve.push_source("policy.wit", text).unwrap();
        let name = &resolve.packages[package].name;
        assert_eq!((&*name.namespace, &*name.name), ("evenkeel", "policy"));
        let version = name.version.as_ref().unwrap().to_string();
        Wit { resolve, version }
    }

    pub(crate) fn interfaces(&self) -> BTreeMap<String, Interface> {
        let all =
            self.resolve.interfaces.iter().filter_map(|(id, of)| Some((of.name.clone()?, id)));
        all.map(|(name, id)| (name, self.interface(id))).collect()
    }

    pub(crate) fn worlds(&self) -> BTreeMap<String, Vec<String>> {
        let worlds = self.resolve.worlds.iter().map(|(_, world)| {
            let item = |word: &str, item: &WorldItem| match item {
                WorldItem::Interface { id, .. } => {
                    let name = self.resolve.interfaces[*id].name.clone().unwrap_or_default();
                    // Types are listed with the items that use them.
                    (name != "types").then(|| format!("{word} {name}"))
                }
                WorldItem::Function(function) => Some(format!("{word} func {}", function.name)),
                WorldItem::Type { .. } => None,
            };
            let imports = world.imports.values().filter_map(|import| item("import", import));
            let exports = world.exports.values().filter_map(|export| item("export", export));
            (world.name.clone(), imports.chain(exports).collect())
        });
        worlds.collect()
    }

    fn interface(&self, id: InterfaceId) -> Interface {
        let interface = &self.resolve.interfaces[id];
        let types = interface.types.iter().filter(|&(_, &id)| !self.is_use(id));
        let types = types.map(|(name, &id)| Named {
            name: name.clone(),
            doc: words(&self.resolve.types[id].docs),
            text: self.definition(id),
            parts: self.parts(id),
        });
        let functions = interface.functions.values().map(|function| Named {
            name: function.name.clone(),
            doc: words(&function.docs),
            text: self.function(function),
            parts: Vec::new(),
        });
        let (types, functions) = (types.collect(), functions.collect());
        Interface { doc: words(&interface.docs), types, functions }
    }

    /// True if it is another interface's type under the same name.
    fn is_use(&self, id: TypeId) -> bool {
        let of = &self.resolve.types[id];
        match of.kind {
            TypeDefKind::Type(Type::Id(other)) => {
                self.resolve.types[other].owner != of.owner
                    && self.resolve.types[other].name == of.name
            }
            _ => false,
        }
    }

    fn parts(&self, id: TypeId) -> Vec<(String, String, String)> {
        match &self.resolve.types[id].kind {
            TypeDefKind::Record(record) => {
                let fields = record.fields.iter();
                fields.map(|of| (of.name.clone(), self.of(&of.ty), words(&of.docs))).collect()
            }
            TypeDefKind::Variant(variant) => {
                let cases = variant.cases.iter();
                let payload =
                    |ty: &Option<Type>| ty.as_ref().map_or(String::new(), |ty| self.of(ty));
                cases.map(|of| (of.name.clone(), payload(&of.ty), words(&of.docs))).collect()
            }
            _ => Vec::new(),
        }
    }

    fn definition(&self, id: TypeId) -> String {
        let list = |word: &str| {
            let parts = self.parts(id).into_iter();
            let parts = parts
                .map(|(name, of, _)| if of.is_empty() { name } else { format!("{name}: {of}") });
            format!("{word} {{ {} }}", parts.collect::<Vec<_>>().join(", "))
        };
        match &self.resolve.types[id].kind {
            TypeDefKind::Record(_) => list("record"),
            TypeDefKind::Variant(_) => list("variant"),
            TypeDefKind::Enum(of) => {
                let cases: Vec<_> = of.cases.iter().map(|case| case.name.as_str()).collect();
                format!("enum {{ {} }}", cases.join(", "))
            }
            TypeDefKind::Type(of) => format!("type = {}", self.of(of)),
            other => self.anonymous(other),
        }
    }

    fn anonymous(&self, kind: &TypeDefKind) -> String {
        let maybe = |of: &Option<Type>| of.as_ref().map_or("_".to_owned(), |of| self.of(of));
        match kind {
            TypeDefKind::List(of) => format!("list<{}>", self.of(of)),
            TypeDefKind::Option(of) => format!("option<{}>", self.of(of)),
            TypeDefKind::Result(of) => format!("result<{}, {}>", maybe(&of.ok), maybe(&of.err)),
            TypeDefKind::Tuple(of) => {
                let parts: Vec<_> = of.types.iter().map(|of| self.of(of)).collect();
                format!("tuple<{}>", parts.join(", "))
            }
            // A kind that the contract does not use; its name suffices.
            other => other.as_str().to_owned(),
        }
    }

    /// The name of a type, or its structure if it has no name.
    fn of(&self, of: &Type) -> String {
        match of {
            Type::Id(id) => {
                let of = &self.resolve.types[*id];
                of.name.clone().unwrap_or_else(|| self.anonymous(&of.kind))
            }
            plain => format!("{plain:?}").to_lowercase(),
        }
    }

    fn function(&self, function: &Function) -> String {
        let params =
            function.params.iter().map(|param| format!("{}: {}", param.name, self.of(&param.ty)));
        let params = params.collect::<Vec<_>>().join(", ");
        let result =
            function.result.as_ref().map_or(String::new(), |of| format!(" -> {}", self.of(of)));
        format!("func({params}){result}")
    }
}

/// Docs as one line.
fn words(docs: &Docs) -> String {
    let text = docs.contents.as_deref().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
