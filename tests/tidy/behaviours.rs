//! The check of `tests/behaviours.md`: every row is held by a test or says why not.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::Source;

/// Groups whose rows are not all there yet. What they do have is checked; gaps are not.
pub const OPEN: &[&str] = &[];

/// One section of the table.
struct Group<'a> {
    name: &'a str,
    /// As its heading says.
    count: usize,
    /// Row by row: the id, and whether an excuse stands beside it.
    rows: Vec<(&'a str, bool)>,
}

/// Everything that is wrong with `table`, given the sources that hold its tests.
pub fn findings(table: &str, files: &[Source], open: &[&str]) -> Vec<String> {
    let mut findings = Vec::new();
    let groups = groups(table, &mut findings);
    let names: Vec<_> = groups.iter().map(|group| group.name).collect();
    let mut held = BTreeMap::<&str, String>::new();
    for file in files {
        for (line, id, test) in mentions(file, &names) {
            let place = format!("{}:{line}", file.path);
            match test {
                Test::Runs => drop(held.insert(id, place)),
                Test::DoesNotRun => {
                    findings.push(format!("{place}: {id} at a test that never runs"))
                }
                Test::Missing => findings.push(format!("{place}: {id} stands at no test")),
            }
        }
    }
    let known: BTreeSet<_> = groups.iter().flat_map(|g| &g.rows).map(|(id, _)| *id).collect();
    for (id, place) in held.iter().filter(|(id, _)| !known.contains(*id)) {
        findings.push(format!("{place}: {id} is not in the table"));
    }
    for group in &groups {
        let is_open = open.contains(&group.name);
        for (id, excused) in &group.rows {
            match (held.get(id), excused) {
                (None, false) if !is_open => findings.push(format!("{id}: no test, no excuse")),
                (Some(place), true) => findings.push(format!("{id}: excused, yet held by {place}")),
                _ => {}
            }
        }
        let numbers: Vec<_> = group.rows.iter().map(|(id, _)| number(id)).collect();
        if !is_open && numbers != (1..=group.count).map(Some).collect::<Vec<_>>() {
            findings.push(format!("{}: the rows are not 1 to {}", group.name, group.count));
        } else if numbers.windows(2).any(|pair| pair[0] >= pair[1]) {
            findings.push(format!("{}: the rows are out of order", group.name));
        }
    }
    let unheard_of = open.iter().filter(|name| !names.contains(name));
    findings.extend(unheard_of.map(|name| format!("{name}: open, but no group")));
    findings
}

/// Reads the table: `## NAME: title (count)`, and below it `| id | behaviour | excuse |`.
fn groups<'a>(table: &'a str, findings: &mut Vec<String>) -> Vec<Group<'a>> {
    let mut groups: Vec<Group> = Vec::new();
    for (index, line) in table.lines().enumerate() {
        if let Some(heading) = line.strip_prefix("## ") {
            let count =
                heading.rsplit_once('(').and_then(|(_, n)| n.strip_suffix(')')?.parse().ok());
            match (heading.split_once(": "), count) {
                (Some((name, _)), Some(count)) => {
                    groups.push(Group { name, count, rows: Vec::new() });
                }
                _ => findings.push(format!("line {}: not `## NAME: title (count)`", index + 1)),
            }
        }
        let is_head = line.starts_with("| id ") || line.starts_with("|---");
        if !line.starts_with('|') || is_head {
            continue;
        }
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        match (&cells[..], groups.last_mut()) {
            (["", id, behaviour, excuse, ""], Some(group))
                if number(id).is_some() && !behaviour.is_empty() && is_of(id, group.name) =>
            {
                group.rows.push((id, !excuse.is_empty()));
            }
            _ => findings.push(format!("line {}: not `| id | behaviour | excuse |`", index + 1)),
        }
    }
    groups
}

fn number(id: &str) -> Option<usize> {
    let (_, digits) = id.split_once('-')?;
    let is_number = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten()
}

fn is_of(id: &str, group: &str) -> bool {
    id.split_once('-').is_some_and(|(name, _)| name == group)
}

/// What an id in a doc comment stands at.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Test {
    Runs,
    DoesNotRun,
    Missing,
}

/// The ids in a file's doc comments: their lines, and what they stand at.
fn mentions<'a>(file: &'a Source, groups: &[&str]) -> Vec<(usize, &'a str, Test)> {
    // Only the models have them, and those are explored by a run of their own.
    let is_model = file.path.contains("loom");
    let code: Vec<_> = file.code.lines().map(str::trim).collect();
    let mut found = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let line = line.trim_start();
        if !line.starts_with("///") && !line.starts_with("//!") {
            continue;
        }
        let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        let ids: Vec<_> = words
            .filter(|word| number(word).is_some() && groups.iter().any(|g| is_of(word, g)))
            .collect();
        if ids.is_empty() {
            continue;
        }
        let test = if is_model { Test::DoesNotRun } else { test_below(&code, index) };
        found.extend(ids.into_iter().map(|id| (index + 1, id, test)));
    }
    found
}

/// What the item is that stands below a comment at `index`.
fn test_below(code: &[&str], index: usize) -> Test {
    let attributes: Vec<_> = code[index..]
        .iter()
        .filter(|line| !line.is_empty())
        .take_while(|line| line.starts_with("#["))
        .collect();
    let has = |start: &str| attributes.iter().any(|line| line.starts_with(start));
    match has("#[test]") {
        false => Test::Missing,
        true if has("#[ignore") || attributes.iter().any(|line| line.contains("loom")) => {
            Test::DoesNotRun
        }
        true => Test::Runs,
    }
}

mod samples {
    use super::*;

    const TABLE: &str = "## AB: x (2)\n\n| id | behaviour | why |\n|---|---|---|\n\
        | AB-01 | it works | |\n| AB-02 | it bends | can't |\n\n## CD: y (1)\n";

    const TEST: &str = "/// AB-01, CD: it works\n/// (also E-7).\n#[test]\nfn f() {}\n";

    fn found(table: &str, path: &str, text: &str, open: &[&str]) -> Vec<String> {
        findings(table, &[Source::new(path, text)], open)
    }

    #[test]
    fn a_table_whose_rows_are_held_or_excused_passes() {
        assert_eq!(found(TABLE, "src/x.rs", TEST, &["CD"]), [""; 0]);
        let late = "/// AB-01: x\n#[cfg(unix)]\n#[test]\n#[should_panic]\nfn f() {}";
        assert_eq!(found(TABLE, "src/x.rs", late, &["CD"]), [""; 0]);
    }

    #[test]
    fn a_row_that_nobody_holds_is_found() {
        let no_test = ["", "// AB-01\n#[test]\nfn f() {}", "const S: &str = \"/// AB-01\";"];
        for text in no_test {
            let findings = found(TABLE, "src/x.rs", text, &["CD"]);
            assert_eq!(findings, ["AB-01: no test, no excuse"], "{text}");
            assert_eq!(found(TABLE, "src/x.rs", text, &["AB", "CD"]), [""; 0], "open");
        }
    }

    #[test]
    fn an_id_at_anything_but_a_test_that_runs_is_found() {
        let bad = [
            ("src/x.rs", "/// AB-01\nfn f() {}"),
            ("src/x.rs", "//! AB-01\n\nuse x;\n#[test]\nfn f() {}"),
            ("src/x.rs", "/// AB-01\n#[test]\n#[ignore = \"slow\"]\nfn f() {}"),
            ("src/x.rs", "/// AB-01\n#[cfg(loom)]\n#[test]\nfn f() {}"),
            ("src/loom_models.rs", TEST),
        ];
        for (path, text) in bad {
            let findings = found(TABLE, path, text, &["AB", "CD"]);
            assert_eq!(findings.len(), 1, "{path} {text}: {findings:?}");
            assert!(findings[0].contains("AB-01"), "{findings:?}");
        }
    }

    #[test]
    fn an_id_that_the_table_lacks_or_excuses_is_found() {
        let unknown = TEST.replace("CD", "CD-01");
        let findings = found(TABLE, "src/x.rs", &unknown, &["CD"]);
        assert_eq!(findings, ["src/x.rs:1: CD-01 is not in the table"]);
        let excused = TEST.replace("CD", "AB-02");
        let findings = found(TABLE, "src/x.rs", &excused, &["CD"]);
        assert_eq!(findings, ["AB-02: excused, yet held by src/x.rs:1"]);
    }

    #[test]
    fn a_row_that_is_missing_or_malformed_is_found() {
        assert_eq!(found(TABLE, "src/x.rs", TEST, &[]), ["CD: the rows are not 1 to 1"]);
        let twice = TABLE.replace("AB-02", "AB-01");
        assert_eq!(found(&twice, "src/x.rs", "", &["AB", "CD"]), ["AB: the rows are out of order"]);
        let bad = ["| AB-3 | x | |", "| AB-03 | | |", "| AB-03 | x |", "| AB-03 | x | y | z |"];
        for row in bad.into_iter().chain(["## EF: no count", "## EF (3)"]) {
            let table = TABLE.replace("\n\n## CD", &format!("\n{row}\n\n## CD"));
            let findings = found(&table, "src/x.rs", TEST, &["CD"]);
            assert_eq!(findings.len(), 1, "{row}: {findings:?}");
            assert!(findings[0].starts_with("line 7"), "{findings:?}");
        }
        assert_eq!(found(TABLE, "x", TEST, &["CD", "EF"]), ["EF: open, but no group"]);
    }
}
