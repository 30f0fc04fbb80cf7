//! `docs/rfc-matrix.md` and the tests agree: every test named there exists, and
//! every test named after an RFC is listed.

#![allow(clippy::unwrap_used, reason = "a test may fail at any line")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Names of the test functions of the core and of the server as a process, with the file of each.
fn tests_in_the_sources() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    visit(&root().join("src"), &mut found);
    visit(&root().join("tests/serve"), &mut found);
    assert!(found.len() > 100, "the sources were found");
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn visit(folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            let file = path.strip_prefix(root()).unwrap().display().to_string();
            for name in test_functions(&fs::read_to_string(&path).unwrap()) {
                // Only names that speak of an RFC have to be unique.
                let other = found.insert(name.clone(), file.clone());
                assert!(!is_a_rule(&name) || other.is_none(), "{name} is in {file} and {other:?}");
            }
        }
    }
}

/// The functions below a `#[test]`, and those in `proptest!` have one too.
fn test_functions(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim_start) {
        if line == "#[test]" {
            is_test = true;
        } else if let Some(rest) = line.strip_prefix("fn ") {
            if is_test {
                names.extend(rest.split('(').next().map(str::to_owned));
            }
            is_test = false;
        }
    }
    names
}

fn is_a_rule(name: &str) -> bool {
    name.strip_prefix("rfc").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The rows of all tables: the cells of each.
fn rows(matrix: &str) -> Vec<Vec<&str>> {
    let cells = |line: &'_ str| line.trim_matches('|').split('|').count();
    matrix
        .lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("|---"))
        .inspect(|line| assert_eq!(cells(line), 4, "four columns: {line}"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

/// The words in backticks that look like the name of a function of ours.
fn tests_in(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|word| {
        word.contains('_') && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

#[test]
fn every_test_of_the_matrix_exists() {
    let sources = tests_in_the_sources();
    let matrix = fs::read_to_string(root().join("docs/rfc-matrix.md")).unwrap();
    let missing: BTreeSet<&str> = rows(&matrix)
        .iter()
        .flat_map(|row| row[2..].iter().flat_map(|cell| tests_in(cell)))
        .filter(|name| !sources.contains_key(*name))
        .collect();
    assert!(missing.is_empty(), "named in docs/rfc-matrix.md, but no test: {missing:#?}");
}

#[test]
fn every_test_named_after_an_rfc_is_in_the_matrix() {
    let matrix = fs::read_to_string(root().join("docs/rfc-matrix.md")).unwrap();
    let rows = rows(&matrix);
    let listed: BTreeSet<&str> = rows.iter().flat_map(|row| tests_in(row[2])).collect();
    let sources = tests_in_the_sources();
    let unlisted: Vec<_> =
        sources.iter().filter(|(name, _)| is_a_rule(name) && !listed.contains(&***name)).collect();
    assert!(unlisted.is_empty(), "tests missing in docs/rfc-matrix.md: {unlisted:#?}");
}

#[test]
fn a_rule_without_a_test_says_why() {
    let matrix = fs::read_to_string(root().join("docs/rfc-matrix.md")).unwrap();
    for row in rows(&matrix) {
        assert!(tests_in(row[2]).next().is_some() || !row[3].is_empty(), "{row:?}");
    }
}
