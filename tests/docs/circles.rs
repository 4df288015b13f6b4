//! Circles of files: files of one crate that import from one another.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::Visit;
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree, Visibility};

use crate::page::root;
use crate::structure::sources;

/// Renamed imports of a module, by name: the imported path.
type Imports = BTreeMap<String, Vec<String>>;

#[derive(Default)]
struct Module {
    file: PathBuf,
    imports: Imports,
    /// Names that the module passes on, and may not use itself.
    reexports: BTreeSet<String>,
    /// Paths that begin with `crate`, `self`, `super` or a child module.
    paths: Vec<Vec<String>>,
}

/// The modules of a crate by path, without tests.
#[derive(Default)]
struct CrateModules(BTreeMap<Vec<String>, Module>);

impl CrateModules {
    fn read(folder: &Path) -> CrateModules {
        let mut modules = CrateModules::default();
        for file in sources(folder) {
            let inside = file.strip_prefix(folder).unwrap().with_extension("");
            let mut path: Vec<String> =
                inside.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            if path.iter().any(|part| part == "tests") {
                continue;
            }
            path.retain(|part| !["lib", "main", "mod"].contains(&part.as_str()));
            let parsed = syn::parse_file(&fs::read_to_string(&file).unwrap()).unwrap();
            let mut reader = ModuleReader { modules: &mut modules, file, path };
            reader.enter();
            parsed.items.iter().for_each(|item| reader.visit_item(item));
        }
        modules
    }

    /// The file that defines the item of a path, which begins in `module`; `None` for items of other crates.
    fn definition(&self, module: &[String], path: &[String], depth: usize) -> Option<&Path> {
        let (mut at, mut rest) = (module.to_vec(), path);
        match rest.first()?.as_str() {
            "crate" => (at, rest) = (Vec::new(), &rest[1..]),
            "self" => rest = &rest[1..],
            "super" => {
                while let Some(("super", after)) =
                    rest.split_first().map(|(first, after)| (first.as_str(), after))
                {
                    at.pop();
                    rest = after;
                }
            }
            first => {
                let child = [at.as_slice(), &[first.to_owned()]].concat();
                let imported = self.0.get(&at).and_then(|module| module.imports.get(first));
                if let Some(imported) = imported.filter(|_| !self.0.contains_key(&child)) {
                    // Such an import of another crate begins with that crate's name.
                    let whole = [imported.as_slice(), &rest[1..]].concat();
                    let is_same = whole == path;
                    return (depth > 0 && !is_same)
                        .then(|| self.definition(&at, &whole, depth - 1))?;
                }
                self.0.get(&child)?;
            }
        }
        while let Some((next, after)) = rest.split_first() {
            let child = [at.as_slice(), std::slice::from_ref(next)].concat();
            if !self.0.contains_key(&child) {
                break;
            }
            (at, rest) = (child, after);
        }
        let module = self.0.get(&at)?;
        let reexport = rest.first().and_then(|name| module.imports.get(name));
        match reexport.filter(|_| depth > 0) {
            Some(reexport) => {
                self.definition(&at, reexport, depth - 1).or(Some(module.file.as_path()))
            }
            None => Some(&module.file),
        }
    }

    /// Imports between files, with the first name of each.
    fn imports(&self) -> BTreeMap<&Path, BTreeSet<&Path>> {
        let mut imports = BTreeMap::<&Path, BTreeSet<&Path>>::new();
        for (at, module) in &self.0 {
            let used = module.imports.iter().filter(|(name, _)| !module.reexports.contains(*name));
            for path in module.paths.iter().chain(used.map(|(_, path)| path)) {
                if let Some(other) = self.definition(at, path, 4).filter(|to| *to != module.file) {
                    imports.entry(&module.file).or_default().insert(other);
                }
            }
        }
        imports
    }
}

struct ModuleReader<'a> {
    modules: &'a mut CrateModules,
    file: PathBuf,
    path: Vec<String>,
}

impl ModuleReader<'_> {
    fn enter(&mut self) {
        self.module().file = self.file.clone();
    }

    fn module(&mut self) -> &mut Module {
        self.modules.0.entry(self.path.clone()).or_default()
    }

    fn import(&mut self, tree: &UseTree, path: &[String], passes_on: bool) {
        let with = |name: &syn::Ident| [path, &[name.to_string()]].concat();
        let (name, path) = match tree {
            UseTree::Path(tree) => return self.import(&tree.tree, &with(&tree.ident), passes_on),
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.import(tree, path, passes_on));
            }
            // The names of a glob are those of its module.
            UseTree::Glob(_) => return self.module().paths.push(path.to_vec()),
            UseTree::Name(name) if name.ident == "self" => {
                (path.last().cloned().unwrap_or_default(), path.to_vec())
            }
            UseTree::Name(name) => (name.ident.to_string(), with(&name.ident)),
            UseTree::Rename(tree) => (tree.rename.to_string(), with(&tree.ident)),
        };
        if passes_on {
            self.module().reexports.insert(name.clone());
        }
        self.module().imports.insert(name, path);
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|word| word == "test")
    })
}

impl<'a> Visit<'a> for ModuleReader<'_> {
    fn visit_item(&mut self, item: &'a Item) {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            _ => return syn::visit::visit_item(self, item),
        };
        if !is_test(attributes) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'a ItemMod) {
        if let Some((_, items)) = &item.content {
            self.path.push(item.ident.to_string());
            self.enter();
            items.iter().for_each(|item| self.visit_item(item));
            self.path.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        self.import(&item.tree, &[], !matches!(item.vis, Visibility::Inherited));
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        if path.segments.len() > 1 {
            let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.module().paths.push(segments);
        }
        syn::visit::visit_path(self, path);
    }
}

/// Groups of files that reach one another.
fn circles<'a>(imports: &BTreeMap<&'a Path, BTreeSet<&'a Path>>) -> Vec<BTreeSet<&'a Path>> {
    let reached = |from: &'a Path| {
        let mut reached = BTreeSet::new();
        let mut open = vec![from];
        while let Some(file) = open.pop() {
            let next = imports.get(file).into_iter().flatten();
            open.extend(next.filter(|next| reached.insert(**next)));
        }
        reached
    };
    let all: BTreeMap<&Path, _> = imports.keys().map(|file| (*file, reached(file))).collect();
    let mut circles = Vec::<BTreeSet<&Path>>::new();
    for (file, reached) in &all {
        let is_new = !circles.iter().any(|circle| circle.contains(file));
        if is_new && reached.contains(file) {
            let returns = |other: &&&Path| all.get(**other).is_some_and(|to| to.contains(file));
            circles.push(reached.iter().filter(returns).copied().collect());
        }
    }
    circles
}

#[test]
fn files_do_not_import_one_another() {
    let mut found = Vec::new();
    let (mut files, mut arrows) = (0, 0);
    for entry in fs::read_dir(root().join("gateway")).unwrap() {
        let folder = entry.unwrap().path().join("src");
        if !folder.is_dir() {
            continue;
        }
        let modules = CrateModules::read(&folder);
        let imports = modules.imports();
        files += imports.len();
        arrows += imports.values().map(BTreeSet::len).sum::<usize>();
        for circle in circles(&imports) {
            let mut text = String::new();
            for file in &circle {
                let targets = imports[file].iter().filter(|other| circle.contains(*other));
                let names: Vec<_> =
                    targets.map(|file| file.strip_prefix(root()).unwrap()).collect();
                text +=
                    &format!("\n  {} -> {names:?}", file.strip_prefix(root()).unwrap().display());
            }
            found.push(text);
        }
    }
    assert!(files > 100 && arrows > files, "{files} files, {arrows} imports");
    assert!(found.is_empty(), "{} circles:{}", found.len(), found.join("\n"));
}

#[test]
fn circle_is_found_through_a_reexport() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("lib.rs", "mod one;\nmod two;\npub use one::One;\n");
    write("one.rs", "pub struct One;\nfn two() -> crate::two::Two { crate::two::Two }\n");
    let found = |two: &str| {
        write("two.rs", two);
        let modules = CrateModules::read(folder.path());
        circles(&modules.imports()).iter().map(BTreeSet::len).collect::<Vec<_>>()
    };
    assert_eq!(found("pub struct Two;\n"), [0; 0]);
    assert_eq!(found("use crate::One;\npub struct Two(One);\n"), [2]);
    assert_eq!(found("pub struct Two;\n#[cfg(test)]\nuse crate::One;\n"), [0; 0]);
}
