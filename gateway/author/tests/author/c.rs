//! A new project in C of every hook builds and passes its cases.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;

use evenkeel_author::case::{self, Case};
use evenkeel_author::conformance::{self, ConformanceOptions};
use evenkeel_author::coverage::cover;
use evenkeel_author::measure::measure;
use evenkeel_author::{AuthorError, BuiltPlugin, Language, Project, create};
use evenkeel_model::Hook;
use evenkeel_testkit::required;
use serde_json::Value;
use tempfile::tempdir;

fn new_project(parent: &Path, hook: Hook) -> Project {
    let name = format!("my-{}", hook.name());
    Project::at(&create(parent, &name, hook, Language::C).unwrap()).unwrap()
}

#[required(Clang)]
#[test]
fn new_projects_in_c_build_and_pass_their_cases() {
    for hook in Hook::ALL {
        let parent = tempdir().unwrap();
        let project = new_project(parent.path(), hook);
        project.test(true).unwrap();
        let built = BuiltPlugin::of(&project).unwrap();
        let path = built.write(&project.folder).unwrap();
        assert_eq!(path, project.folder.join(format!("my-{}.wasm", hook.name())));
        assert!(built.bytes.len() < 20_000, "{} bytes", built.bytes.len());
        assert!(built.is_current(&project).unwrap(), "equal sources give equal bytes");

        let options = ConformanceOptions { seed: 1, worlds: 20, settings: Value::Null };
        let report = conformance::run(&built, &options).unwrap();
        assert!(report.is_passed(), "{hook:?}: {report}");
        let cases = Case::all_in(&project.folder.join("tests")).unwrap();
        assert_eq!(cases.len(), 1);
        let report = case::run(&built, &cases, &Value::Null).unwrap();
        assert!(report.is_passed(), "{hook:?}: {report}");
    }
}

#[required(Clang)]
#[test]
fn coverage_has_lines_of_c() {
    let parent = tempdir().unwrap();
    let project = new_project(parent.path(), Hook::Admission);
    let built = BuiltPlugin::for_coverage(&project).unwrap();
    let options = ConformanceOptions { seed: 1, worlds: 2, settings: Value::Null };
    let shown = cover(&built, &options, &[]).unwrap().json();
    let unreached = shown["unreached"].as_object().unwrap();
    assert!(shown["reached"].as_u64().unwrap() > 0, "{shown}");
    assert!(unreached.keys().all(|file| file.ends_with("policy.c")), "{shown}");
}

#[required(Clang)]
#[test]
fn native_figures_are_of_rust_only() {
    let parent = tempdir().unwrap();
    let project = new_project(parent.path(), Hook::Scenario);
    let built = BuiltPlugin::of(&project).unwrap();
    let report = measure(&built, &Value::Null, Some(&project)).unwrap();
    assert_eq!(report.not_native.unwrap(), AuthorError::NotRust.to_string());
}

#[required(Clang)]
#[test]
fn error_in_c_is_the_compilers() {
    let parent = tempdir().unwrap();
    let project = new_project(parent.path(), Hook::Scenario);
    fs::write(project.folder.join("policy.c"), "this is no C").unwrap();
    assert!(
        matches!(BuiltPlugin::of(&project), Err(AuthorError::Compiler(clang)) if clang == "clang")
    );
}
