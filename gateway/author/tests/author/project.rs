//! A new project of every hook can be built, tested, measured and inspected in any folder.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use evenkeel_author::coverage::cover;
use evenkeel_author::measure::{MeasuredCall, measure};
use evenkeel_author::{
    AuthorError, BuiltPlugin, Inspection, Language, Project, conformance, create,
};
use evenkeel_model::Hook;
use serde_json::{Value, json};
use toml::Table;

/// A folder outside this repository with a project of every hook.
///
/// Build output is kept for the next run, and the registry is not needed: projects have the
/// gateway's dependencies. All projects have the same SDK, which is compiled once.
static PROJECTS: LazyLock<PathBuf> = LazyLock::new(|| {
    // One folder per checkout, reused by the next run.
    let checkout = env!("CARGO_MANIFEST_DIR").replace('/', "-");
    let folder = std::env::temp_dir().join(format!("evenkeel-projects{checkout}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join(".cargo")).unwrap();
    let compiled = Path::new(env!("CARGO_TARGET_TMPDIR")).join("author");
    let config = format!("[build]\ntarget-dir = {compiled:?}\n[net]\noffline = true\n");
    fs::write(folder.join(".cargo/config.toml"), config).unwrap();
    for hook in Hook::ALL {
        let name = format!("my-{}", hook.name());
        let project = create(&folder, &name, hook, Language::Rust).unwrap();
        assert_eq!(sdk(&project), sdk(&folder.join("my-admission")), "{}", hook.name());
        if hook != Hook::Admission {
            let manifest = fs::read_to_string(project.join("Cargo.toml")).unwrap();
            let shared = manifest.replace("path = \"sdk\"", "path = \"../my-admission/sdk\"");
            assert_ne!(shared, manifest);
            fs::write(project.join("Cargo.toml"), shared).unwrap();
        }
    }
    folder
});

/// All files of a project's SDK.
fn sdk(project: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = project.join("sdk");
    let (mut files, mut open) = (Vec::new(), vec![folder.clone()]);
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                files.push((path.strip_prefix(&folder).unwrap().into(), fs::read(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

/// Names, versions and checksums of a project's lock file.
fn locked(project: &Path) -> Vec<[Option<Value>; 3]> {
    let lock: Table = fs::read_to_string(project.join("Cargo.lock")).unwrap().parse().unwrap();
    let packages = lock["package"].as_array().unwrap().iter();
    let field = |package: &toml::Value, name| Some(json!(package.get(name)?));
    packages.map(|of| ["name", "version", "checksum"].map(|name| field(of, name))).collect()
}

fn from_nothing_to_a_plugin(hook: Hook) {
    let project = Project::at(&PROJECTS.join(format!("my-{}", hook.name()))).unwrap();
    let before = locked(&project.folder);
    project.test(true).unwrap();
    let built = BuiltPlugin::of(&project).unwrap();
    assert!(locked(&project.folder).iter().all(|package| before.contains(package)));

    let path = built.write(&project.folder).unwrap();
    assert_eq!(path.file_name().unwrap().to_str(), Some(&*format!("my-{}.wasm", hook.name())));
    let bytes = fs::read(&path).unwrap();
    assert!(bytes.starts_with(b"\0asm") && bytes.len() < 200_000, "{} bytes", bytes.len());
    assert_eq!(fs::read_dir(&project.folder).unwrap().filter(is_part).count(), 0);

    let inspection = Inspection::of(&bytes);
    assert_eq!(inspection.refused(), None);
    let shown = inspection.json();
    assert_eq!(shown["hooks"], json!([hook.name()]));
    assert_eq!(shown["digest"], built.digest());
    assert_eq!(shown["revision"], json!(built.revision().unwrap()));
    assert!(shown["settings"].as_array().unwrap().iter().all(|setting| setting["doc"].is_string()));

    let options = conformance::ConformanceOptions { seed: 1, worlds: 20, settings: Value::Null };
    let report = conformance::run(&built, &options).unwrap();
    assert!(report.is_passed() && report.violations.is_empty(), "{report}");
    let found = Project::of_plugin(&format!("my-{}", hook.name()), &path, None).unwrap().unwrap();
    assert_eq!(found.folder, project.folder, "found beside the file");
    assert!(built.is_current(&found).unwrap());
    let report = measure(&built, &Value::Null, Some(&found)).unwrap();
    assert!(report.calls.iter().all(|call| call.instructions > 0 && call.ns.min > 0), "{report}");
    assert_eq!(report.not_native, None);
    assert!(
        report.calls.iter().all(|call| call.native_ns.is_some_and(|ns| ns.median > 0)),
        "{report}"
    );
    let rows = |call: &MeasuredCall| u64::from(call.rows);
    let (most, few) = (report.calls.iter().max_by_key(|call| rows(call)), report.calls.first());
    let native = |call: Option<&MeasuredCall>| call.and_then(|call| call.native_ns).unwrap().median;
    if rows(most.unwrap()) > 1_000 {
        assert!(native(most) > native(few) * 10, "native cost grows with rows: {report}");
    }
    assert!(report.exceeded.is_empty(), "no declared costs");
}

fn is_part(entry: &std::io::Result<fs::DirEntry>) -> bool {
    entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".part")
}

#[test]
fn new_admission_project_builds() {
    from_nothing_to_a_plugin(Hook::Admission);
}

#[test]
fn new_routing_project_builds() {
    from_nothing_to_a_plugin(Hook::Routing);
}

#[test]
fn new_degradation_project_builds() {
    from_nothing_to_a_plugin(Hook::Degradation);
}

#[test]
fn new_scenario_project_builds() {
    from_nothing_to_a_plugin(Hook::Scenario);
}

#[test]
fn coverage_has_lines_of_the_project() {
    let project = Project::at(&PROJECTS.join("my-degradation")).unwrap();
    let built = BuiltPlugin::for_coverage(&project).unwrap();
    let options = conformance::ConformanceOptions { seed: 1, worlds: 2, settings: Value::Null };
    let shown = cover(&built, &options, &[]).unwrap().json();
    let count = |name: &str| shown[name].as_u64().unwrap();
    assert!(count("reached") > 0 && count("reached") <= count("branches"), "{shown}");
    let unreached = shown["unreached"].as_object().expect("lines are known");
    let is_own = |file: &String| file.ends_with("my-degradation/src/lib.rs");
    assert!(unreached.keys().all(is_own), "{shown}");
}

#[test]
fn declared_costs_are_checked() {
    let folder = create(&PROJECTS, "promise", Hook::Degradation, Language::Rust).unwrap();
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    let shared = manifest.replace("path = \"sdk\"", "path = \"../my-admission/sdk\"");
    fs::write(folder.join("Cargo.toml"), shared).unwrap();
    let source = fs::read_to_string(folder.join("src/lib.rs")).unwrap();
    let project = Project::at(&folder).unwrap();
    let promising = |cost: &str| {
        let attribute = format!("#[degradation(cost(tick({cost})))]");
        let promising = source.replace("#[degradation]", &attribute);
        assert_ne!(promising, source);
        fs::write(folder.join("src/lib.rs"), promising).unwrap();
        BuiltPlugin::of(&project).unwrap()
    };

    let generous = promising("call = 100_000, row = 100_000");
    let shown = Inspection::of(&generous.bytes);
    assert_eq!(shown.json()["cost"], json!({"tick": {"call": 100_000, "row": 100_000}}));
    assert!(shown.to_string().contains("tick: 100,000 instructions and 100,000 a row"), "{shown}");
    let report = measure(&generous, &Value::Null, None).unwrap();
    assert!(report.exceeded.is_empty(), "{report}");
    assert_eq!(report.calls[0].promised, Some(200_000));
    assert!(report.not_native.is_some(), "no project given");

    let mean = promising("call = 1, row = 1");
    let report = measure(&mean, &Value::Null, None).unwrap();
    let sizes: Vec<u32> = report.exceeded.iter().map(|exceeded| exceeded.rows).collect();
    assert_eq!(sizes, [1, 256, 4_096], "{report}");
    assert!(!generous.is_current(&project).unwrap(), "the project has changed");
}

#[test]
fn project_errors_are_distinct() {
    let name = "broken";
    let folder = create(&PROJECTS, name, Hook::Scenario, Language::Rust).unwrap();
    let project = Project::at(&folder).unwrap();
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    let alone = manifest.split("[dependencies]").next().unwrap();
    let rlib = alone.replace("\"cdylib\", ", "") + "[workspace]\n";
    fs::write(folder.join("Cargo.toml"), rlib).unwrap();
    fs::write(folder.join("src/lib.rs"), "//! Nothing.\n").unwrap();
    fs::remove_file(folder.join("Cargo.lock")).unwrap();
    assert!(matches!(BuiltPlugin::of(&project), Err(AuthorError::NoModule)));
    fs::write(folder.join("src/lib.rs"), "this is no Rust").unwrap();
    assert!(matches!(BuiltPlugin::of(&project), Err(AuthorError::Cargo(verb)) if verb == "build"));
    assert!(matches!(project.test(true), Err(AuthorError::Cargo(verb)) if verb == "test"));
}
