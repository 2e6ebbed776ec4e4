//! The house rules, as tests: who imports whom, how long files and functions are, which calls are
//! made in one place only. A rule takes a file and gives findings; each is shown to catch a bad
//! sample and to pass a good one. A finding names the place and what to do instead.

mod behaviours;
mod features;
mod rules;
mod source;
mod state;

use std::fs;
use std::path::Path;

use source::Source;

/// Every text file of the project that the rules are about.
fn project() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests", "examples", "benches"] {
        read(root, folder, &mut files);
    }
    for page in ["README.md", "CHANGELOG.md", "ARCHITECTURE.md"] {
        let text = fs::read_to_string(root.join(page)).unwrap_or_else(|e| panic!("{page}: {e}"));
        files.push(Source::new(page, &text));
    }
    let test_only: Vec<_> = files.iter().flat_map(|f| f.test_children.clone()).collect();
    for file in &mut files {
        let of_src = file.path.starts_with("src/");
        let below = |child: &String| {
            file.path
                .strip_prefix(child)
                .is_some_and(|rest| matches!(rest, "" | ".rs") || rest.starts_with('/'))
        };
        if !of_src || test_only.iter().any(below) {
            file.mark_as_test();
        }
    }
    files
}

fn read(root: &Path, folder: &str, files: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(root.join(folder)) else { return };
    let mut entries: Vec<_> = entries.map(|entry| entry.unwrap()).collect();
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            read(root, &path, files);
        } else if path.ends_with(".rs") {
            files.push(Source::new(&path, &fs::read_to_string(entry.path()).unwrap()));
        }
    }
}

fn check(rule: fn(&Source) -> Vec<String>) {
    let findings: Vec<_> = project().iter().flat_map(rule).collect();
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn the_project_is_read_as_a_whole() {
    let files = project();
    let file =
        |path: &str| files.iter().find(|f| f.path == path).unwrap_or_else(|| panic!("{path}"));
    assert!(files.len() > 150, "only {} files", files.len());
    assert!(!file("src/sender/mod.rs").is_test(0));
    for path in
        ["src/client/tests/nodes.rs", "src/network/selector_tests.rs", "src/record/tests.rs"]
    {
        assert!(file(path).is_test(0), "{path} is compiled for tests only");
    }
}

/// What no `mod` names is not compiled, and its tests don't run.
#[test]
fn every_file_is_part_of_the_build() {
    let files = project();
    let findings: Vec<_> = files.iter().filter(|file| !is_declared(file, &files)).collect();
    assert!(findings.is_empty(), "{:?}", findings.iter().map(|f| &f.path).collect::<Vec<_>>());
    let stray = Source::new("src/sender/stray.rs", "");
    assert!(!is_declared(&stray, &files));
}

/// Whether Cargo finds it as a target, or a `mod` beside or above it declares it.
fn is_declared(file: &Source, files: &[Source]) -> bool {
    let parts: Vec<_> = file.path.trim_end_matches(".rs").split('/').collect();
    let is_target = match parts[..] {
        ["tests" | "examples" | "benches", _] | [.., "lib" | "main"] => true,
        _ => !file.path.ends_with(".rs"),
    };
    let parts = parts.strip_suffix(&["mod"]).unwrap_or(&parts);
    let Some((name, folder)) = parts.split_last() else { return false };
    let folder = folder.join("/");
    let declares = |other: &Source| {
        let beside = other.path.rsplit_once('/').is_some_and(|(its, _)| its == folder);
        let above = other.path.strip_suffix(".rs") == Some(&folder);
        let by_path = ["/mod.rs", ".rs"].map(|end| format!("{name}{end}\"]"));
        by_path.iter().any(|path| other.text.contains(path))
            || ((beside || above) && !other.find(&format!("mod {name};")).is_empty())
    };
    is_target || files.iter().any(declares)
}

#[test]
fn stations_import_only_what_lies_below_them() {
    check(rules::imports);
}

#[test]
fn what_has_one_door_is_called_nowhere_else() {
    check(rules::banned);
}

#[test]
fn files_and_functions_are_short_and_lines_fit_the_page() {
    check(rules::sizes);
}

#[test]
fn each_file_opens_by_saying_what_it_is() {
    check(rules::opening);
}

#[test]
fn nothing_points_to_the_machine_it_was_written_on() {
    check(rules::workplace);
}

#[test]
fn every_struct_that_keeps_state_says_what_must_hold() {
    let findings = state::findings(&project(), state::WITHOUT);
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn every_behaviour_is_held_by_a_test_or_excused() {
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/behaviours.md");
    let table = fs::read_to_string(table).unwrap();
    let findings = behaviours::findings(&table, &project(), behaviours::OPEN);
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn every_feature_that_the_readme_claims_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let [page, tests] =
        ["README.md", "tests/features.md"].map(|path| fs::read_to_string(root.join(path)).unwrap());
    let findings = features::findings(&page, &tests, &project());
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}
