//! The walls that `src/lib.rs` draws, read from the source:
//!
//! 1. a module uses only the modules above it;
//! 2. pure modules forbid `unsafe` and deny what is not pure at their root;
//! 3. `unsafe` is in `io` and nowhere else;
//! 4. no file has more than 800 lines before its tests.
//!
//! Test code may also use what is below its module, as long as that is pure.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// From the top down.
const ORDER: [&str; 13] = [
    "net", "stun", "front", "auth", "turn", "client", "nat", "tls", "config", "io", "worker",
    "daemon", "cli",
];

/// No socket, no clock, no lock, no randomness of their own.
const PURE: [&str; 8] = ["net", "stun", "front", "auth", "turn", "client", "nat", "tls"];

/// What the order alone would allow, and why it is not.
const APART: [(&str, &str, &str); 21] = [
    ("io", "net", "io knows bytes and socket addresses only"),
    ("io", "stun", "io knows no STUN"),
    ("io", "auth", "io knows no STUN"),
    ("io", "turn", "io knows no STUN"),
    ("io", "client", "io knows no STUN"),
    ("io", "config", "io is told what to do"),
    ("worker", "config", "the daemon turns the configuration into what workers take"),
    ("worker", "client", "the server does not speak through the client"),
    ("daemon", "client", "the server does not speak through the client"),
    ("worker", "nat", "the server does not ask what NAT it is behind"),
    ("daemon", "nat", "the server does not ask what NAT it is behind"),
    ("io", "nat", "io knows no STUN"),
    ("nat", "stun", "the client's side shares no codec with the server"),
    ("nat", "turn", "the client's side shares no code with the server"),
    ("front", "net", "front stands alone"),
    ("front", "stun", "front stands alone"),
    ("tls", "stun", "tls carries bytes, whatever they say"),
    ("tls", "turn", "tls carries bytes, whatever they say"),
    ("tls", "auth", "tls carries bytes, whatever they say"),
    ("config", "tls", "the configuration names files, the daemon loads them"),
    ("config", "turn", "the configuration names settings, the daemon makes them"),
];

const MOST_LINES: usize = 800;

/// A source file.
struct Source {
    /// From `src` on: `turn/request/mod.rs`.
    path: PathBuf,
    text: String,
}

#[derive(PartialEq, Eq)]
struct Violation {
    path: PathBuf,
    line: usize,
    what: String,
}

impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src/{}:{}: {}", self.path.display(), self.line, self.what)
    }
}

#[test]
fn the_walls_stand() {
    let sources = read_sources();
    assert!(sources.len() > 50, "only {} files found", sources.len());
    let violations = check(&sources);
    assert!(violations.is_empty(), "{violations:#?}");
}

/// The rules, all of them, over all files.
fn check(sources: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for source in sources {
        let code = without_comments_and_texts(&source.text);
        let tests = test_lines(&source.path, &code);
        check_uses(source, &code, &tests, &mut violations);
        check_unsafe(source, &code, &mut violations);
        check_length(source, &tests, &mut violations);
    }
    check_roots(sources, &mut violations);
    violations
}

/// Rule 1.
fn check_uses(source: &Source, code: &str, tests: &[bool], violations: &mut Vec<Violation>) {
    let Some(own) = module_of(&source.path) else { return };
    let Some(place) = ORDER.iter().position(|module| *module == own) else {
        let what = format!("module {own} has no place in the order of tests/layers.rs");
        violations.push(Violation { path: source.path.clone(), line: 1, what });
        return;
    };
    for (line, used) in uses(&source.path, code) {
        let Some(other) = ORDER.iter().position(|module| *module == used) else { continue };
        let in_test = tests[line - 1];
        let apart = APART.iter().find(|(user, what, _)| (*user, *what) == (own, &used));
        let what = match apart {
            _ if in_test && PURE.contains(&used.as_str()) => continue,
            Some((_, _, why)) => format!("{own} uses {used}: {why}"),
            None if other > place => format!("{own} uses {used}, which is below it"),
            None => continue,
        };
        violations.push(Violation { path: source.path.clone(), line, what });
    }
}

/// Rule 2.
fn check_roots(sources: &[Source], violations: &mut Vec<Violation>) {
    const FORBID: &str = "#![forbid(unsafe_code)]";
    const DENY: &str = "#![deny(clippy::disallowed_methods, clippy::disallowed_types)]";
    for module in PURE {
        let path = Path::new(module).join("mod.rs");
        let root = sources.iter().find(|source| source.path == path);
        for wanted in [FORBID, DENY] {
            let has = root.is_some_and(|root| root.text.lines().any(|line| line == wanted));
            if !has {
                let what = format!("pure module without {wanted}");
                violations.push(Violation { path: path.clone(), line: 1, what });
            }
        }
    }
}

/// Rule 3.
fn check_unsafe(source: &Source, code: &str, violations: &mut Vec<Violation>) {
    if module_of(&source.path) == Some("io") {
        return;
    }
    for (index, line) in code.lines().enumerate() {
        if words(line).any(|word| word == "unsafe") {
            let what = "unsafe outside io".to_owned();
            violations.push(Violation { path: source.path.clone(), line: index + 1, what });
        }
    }
}

/// Rule 4. Test code is anywhere near the end.
fn check_length(source: &Source, tests: &[bool], violations: &mut Vec<Violation>) {
    let lines = tests.iter().filter(|in_test| !**in_test).count();
    if lines > MOST_LINES {
        let what = format!("{lines} lines before tests, at most {MOST_LINES}");
        violations.push(Violation { path: source.path.clone(), line: MOST_LINES + 1, what });
    }
}

/// The top module that a file belongs to; `lib.rs` and `main.rs` are of none.
fn module_of(path: &Path) -> Option<&str> {
    let first = path.components().next()?.as_os_str().to_str()?;
    match first.strip_suffix(".rs") {
        Some("lib" | "main") => None,
        Some(file) => Some(file),
        None => Some(first),
    }
}

/// Top modules that the code names, with the line: behind `crate::`, alone or in
/// braces, and behind as many `super::` as lead to the crate's root.
fn uses(path: &Path, code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let to_root = "super::".repeat(depth(path));
    for start in ["crate::", &to_root] {
        for (at, _) in code.match_indices(start) {
            let before = &code[..at];
            let continues = before.ends_with(|c: char| c.is_alphanumeric() || "_$:".contains(c));
            if start.is_empty() || continues {
                continue;
            }
            let line = before.matches('\n').count() + 1;
            let rest = &code[at + start.len()..];
            found.extend(first_names(rest).into_iter().map(|(more, name)| (line + more, name)));
        }
    }
    found
}

/// How many modules a file is below the crate's root.
fn depth(path: &Path) -> usize {
    let is_root_of_folder = path.file_name().is_some_and(|name| name == "mod.rs");
    path.components().count() - usize::from(is_root_of_folder)
}

/// The name a path starts with, or each of those in a list in braces; with the
/// number of lines before it.
fn first_names(rest: &str) -> Vec<(usize, String)> {
    let name = |text: &str| words(text).next().unwrap_or_default().to_owned();
    let Some(list) = rest.strip_prefix('{') else { return vec![(0, name(rest))] };
    let mut names = Vec::new();
    let (mut nested, mut fresh) = (0, true);
    for (at, c) in list.char_indices() {
        match c {
            '{' => nested += 1,
            '}' if nested == 0 => break,
            '}' => nested -= 1,
            ',' if nested == 0 => fresh = true,
            _ if fresh && !c.is_whitespace() => {
                fresh = false;
                names.push((list[..at].matches('\n').count(), name(&list[at..])));
            }
            _ => {}
        }
    }
    names
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Of each line, whether it is test code: all of a file named `tests`, else the
/// items behind `#[cfg(test)]`.
fn test_lines(path: &Path, code: &str) -> Vec<bool> {
    let count = code.lines().count();
    if path.iter().any(|part| part == "tests" || part == "tests.rs") {
        return vec![true; count];
    }
    let mut tests = vec![false; count];
    for (at, attribute) in code.match_indices("#[cfg(test)]") {
        let from = code[..at].matches('\n').count();
        let item = &code[at + attribute.len()..];
        let to = from + item[..end_of_item(item)].matches('\n').count();
        tests[from..=to].fill(true);
    }
    tests
}

/// Where the item that begins here ends: at a semicolon or behind its braces.
fn end_of_item(code: &str) -> usize {
    let mut nested = 0;
    for (at, c) in code.char_indices() {
        match c {
            ';' if nested == 0 => return at,
            '{' => nested += 1,
            '}' if nested <= 1 => return at,
            '}' => nested -= 1,
            _ => {}
        }
    }
    code.len()
}

/// The code with comments and the insides of string and character literals blanked,
/// lines kept.
fn without_comments_and_texts(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let previous = out.chars().next_back();
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => quoted(rest),
            'r' if !previous.is_some_and(|c| c.is_alphanumeric() && c != 'b') => raw_text(rest),
            '\'' => character(rest),
            _ => 0,
        };
        if length == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            let (blank, tail) = rest.split_at(length);
            out.extend(blank.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = tail;
        }
    }
    out
}

fn block_comment(text: &str) -> usize {
    let mut nested = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            nested += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            nested -= 1;
            at += 2;
            if nested == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn quoted(text: &str) -> usize {
    let mut escaped = true; // the opening quote
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of `r"..."` or `r#"..."#`, 0 where it is neither.
fn raw_text(text: &str) -> usize {
    let hashes = text[1..].chars().take_while(|c| *c == '#').count();
    let Some(inside) = text[1 + hashes..].strip_prefix('"') else { return 0 };
    let end = format!("\"{}", "#".repeat(hashes));
    let Some(at) = inside.find(&end) else { return text.len() };
    1 + hashes + 1 + at + end.len()
}

/// The length of a character literal, 0 for the tick of a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            // `'\''` and `'\u{7f}'`: the tick that follows the escaped character.
            chars.next();
            chars.find(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1)
        }
        Some(_) => chars.next().filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}

fn read_sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                sources.push(Source { path: path.strip_prefix(&root).unwrap().into(), text });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

/// The checker finds what is planted, and only that.
mod checker {
    use super::*;

    const ROOT: &str = "#![forbid(unsafe_code)]\n\
                        #![deny(clippy::disallowed_methods, clippy::disallowed_types)]\n";

    /// What is found in pure roots that are as they should be and in one more file.
    fn found(path: &str, text: &str) -> Vec<String> {
        let roots = PURE.map(|module| (format!("{module}/mod.rs"), ROOT.to_owned()));
        let sources: Vec<Source> = roots
            .into_iter()
            .filter(|(root, _)| root != path)
            .chain([(path.to_owned(), text.to_owned())])
            .map(|(path, text)| Source { path: path.into(), text })
            .collect();
        check(&sources).iter().map(|violation| format!("{violation:?}")).collect()
    }

    #[test]
    fn a_use_from_below() {
        let below = ["src/stun/reader.rs:2: stun uses turn, which is below it".to_owned()];
        assert_eq!(found("stun/reader.rs", "\nuse crate::turn::Server;\n"), below);
        assert_eq!(found("stun/reader.rs", "\nfn f() { crate::turn::f() }\n"), below);
        assert_eq!(found("stun/reader.rs", "\nuse super::super::turn::Server;\n"), below);
        assert_eq!(found("stun/reader.rs", "\nuse crate::{net::Now, turn};\n"), below);
        assert_eq!(found("stun/reader.rs", "use crate::{\n    turn::{a, b}, net};\n"), below);
        assert_eq!(found("stun/reader.rs", "use crate::net::Now;\nuse super::turn;\n"), [""; 0]);
    }

    #[test]
    fn depth_decides_where_super_leads() {
        assert_eq!(found("turn/mod.rs", &format!("{ROOT}use super::io::Poll;\n")).len(), 1);
        assert_eq!(found("turn/request/mod.rs", "use super::super::io::Poll;\n").len(), 1);
        assert_eq!(found("turn/request/a.rs", "use super::super::io::Poll;\n"), [""; 0]);
        assert_eq!(found("turn/request/a.rs", "use super::super::super::io;\n").len(), 1);
    }

    #[test]
    fn modules_that_are_apart() {
        for (user, used, why) in APART {
            let path = format!("{user}/planted.rs");
            let expected = format!("src/{path}:1: {user} uses {used}: {why}");
            assert_eq!(found(&path, &format!("use crate::{used}::X;\n")), [expected]);
        }
        assert_eq!(found("daemon/run.rs", "use crate::cli::main;\n").len(), 1);
    }

    #[test]
    fn a_module_without_a_place() {
        assert_eq!(found("helpers/mod.rs", "").len(), 1);
        assert_eq!(found("helpers.rs", "").len(), 1);
        assert_eq!(found("lib.rs", "pub use crate::cli::main;\n"), [""; 0]);
    }

    #[test]
    fn test_code_may_use_what_is_pure() {
        let inside = "fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::turn::X;\n}\n";
        assert_eq!(found("stun/reader.rs", inside), [""; 0]);
        assert_eq!(found("stun/tests.rs", "use crate::client::Client;\n"), [""; 0]);
        assert_eq!(found("stun/tests/a.rs", "use crate::client::Client;\n"), [""; 0]);
        assert_eq!(found("stun/tests.rs", "use crate::io::Poll;\n").len(), 1);
        let behind = "#[cfg(test)]\nmod tests {\n    fn f() {}\n}\nuse crate::turn::X;\n";
        assert_eq!(found("stun/reader.rs", behind).len(), 1);
        let elsewhere = "#[cfg(test)]\nmod tests;\nuse crate::turn::X;\n";
        assert_eq!(found("stun/reader.rs", elsewhere).len(), 1);
    }

    #[test]
    fn a_pure_root_without_its_lints() {
        assert_eq!(found("net/mod.rs", "").len(), 2);
        assert_eq!(found("net/mod.rs", ROOT.lines().next().unwrap()).len(), 1);
        assert_eq!(found("net/mod.rs", &format!("// {}", ROOT.replace('\n', " "))).len(), 2);
    }

    #[test]
    fn unsafe_outside_io() {
        let planted = "fn f() {\n    unsafe { g() }\n}\n";
        assert_eq!(found("worker/a.rs", planted), ["src/worker/a.rs:2: unsafe outside io"]);
        assert_eq!(found("lib.rs", planted).len(), 1);
        assert_eq!(found("io/a.rs", planted), [""; 0]);
        assert_eq!(found("worker/a.rs", "#![forbid(unsafe_code)]\n"), [""; 0]);
    }

    #[test]
    fn too_many_lines() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    // t\n".repeat(500));
        let long = "fn f() {}\n".repeat(MOST_LINES);
        assert_eq!(found("net/a.rs", &format!("{long}{tests}")), [""; 0]);
        assert_eq!(found("net/a.rs", &format!("{long}\n{tests}")).len(), 1);
    }

    #[test]
    fn comments_and_texts_are_not_code() {
        for harmless in [
            "// unsafe crate::cli::X\n",
            "/* unsafe /* nested */ crate::cli::X */\n",
            "const A: &str = \"unsafe \\\" crate::cli::X\";\n",
            "const A: &str = r#\"unsafe \" crate::cli::X\"#;\n",
            "const A: &[u8] = br\"unsafe\";\n",
            "const A: char = '\"'; // unsafe\nconst B: char = '\\''; // unsafe\n",
            "fn f<'a>(x: &'a str) {} // unsafe\n",
        ] {
            assert_eq!(found("net/a.rs", harmless), [""; 0], "{harmless}");
        }
        let real = "const A: char = '\"';\nfn f<'a>() { unsafe {} }\nconst B: char = '\"';\n";
        assert_eq!(found("net/a.rs", real).len(), 1);
    }
}
