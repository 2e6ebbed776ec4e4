//! The check of README.md's table of features: a test behind every yes of this crate.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::Source;

/// Everything that is wrong with the table in `page`, given what `tests` says holds its rows.
pub fn findings(page: &str, tests: &str, files: &[Source]) -> Vec<String> {
    let known: BTreeSet<_> = files.iter().flat_map(tests_of).collect();
    let claimed: BTreeMap<_, _> = rows(page, "| feature |").into_iter().collect();
    let held: BTreeMap<_, _> = rows(tests, "| feature |").into_iter().collect();
    let mut findings = Vec::new();
    if claimed.is_empty() {
        findings.push("there is no table of features".to_owned());
    }
    for (feature, cells) in &claimed {
        match (cells[0], held.get(feature)) {
            ("yes", None) => findings.push(format!("{feature}: no test")),
            ("no", Some(_)) => findings.push(format!("{feature}: held, and yet no")),
            ("yes", Some(_)) | ("no", None) => {}
            (other, _) => findings.push(format!("{feature}: {other}: neither yes nor no")),
        }
    }
    for (feature, cells) in &held {
        if !claimed.contains_key(feature) {
            findings.push(format!("{feature}: held, and no row"));
        }
        for test in cells[0].split(", ").filter(|test| !known.contains(test)) {
            findings.push(format!("{feature}: no test is called {test:?}"));
        }
    }
    findings
}

/// The rows of the table that begins with this head: the first cell, and the others.
fn rows<'a>(page: &'a str, head: &str) -> Vec<(&'a str, Vec<&'a str>)> {
    let table = page.lines().skip_while(|line| !line.starts_with(head)).skip(2);
    table
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| {
            let mut cells = line.trim_matches('|').split('|').map(str::trim);
            Some((cells.next()?, cells.collect()))
        })
        .collect()
}

/// The tests of a file that run without being asked for.
fn tests_of(file: &Source) -> Vec<&str> {
    let mut tests = Vec::new();
    let mut lines = file.text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if line != "#[test]" {
            continue;
        }
        let mut runs = true;
        for line in lines.by_ref() {
            runs &= !line.starts_with("#[ignore");
            if let Some((_, rest)) = line.split_once("fn ") {
                tests.extend(rest.split('(').next().filter(|_| runs));
                break;
            }
        }
    }
    tests
}

#[test]
fn each_kind_of_wrong_feature_is_found() {
    let file = Source::new(
        "tests/a.rs",
        "#[test]\nfn good() {}\n#[test]\n#[ignore]\nfn sleeps() {}\nfn other() {}\n",
    );
    let page = |rows: &str| format!("text\n\n| feature | here |\n|---|---|\n{rows}\ntext\n");
    let tests = |rows: &str| format!("| feature | tests |\n|---|---|\n{rows}");
    let find = |page: String, tests: String| findings(&page, &tests, std::slice::from_ref(&file));
    assert_eq!(find(page("| A | yes |\n| B | no |"), tests("| A | good |")), [""; 0]);
    for (rows, holders, finding) in [
        ("| A | yes |", "", "A: no test"),
        ("| A | no |", "| A | good |", "A: held, and yet no"),
        ("| A | partly |", "| A | good |", "A: partly: neither yes nor no"),
        ("| A | yes |", "| A | good |\n| B | good |", "B: held, and no row"),
        ("| A | yes |", "| A | good, sleeps |", "A: no test is called \"sleeps\""),
        ("| A | yes |", "| A | other |", "A: no test is called \"other\""),
    ] {
        assert_eq!(find(page(rows), tests(holders)), [finding]);
    }
    assert_eq!(find(String::new(), String::new()).len(), 1);
}
