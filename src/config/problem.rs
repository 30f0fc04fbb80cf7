//! What is wrong with a configuration, and where.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::DeValue;

/// One thing wrong with a configuration file. Never contains a secret.
///
/// Prints as one line: `sturn.toml:12: relay.ports: "4915-": expected a range such as …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1; `None` for something that is missing from the file.
    pub line: Option<usize>,
    /// The dotted path of the key, such as `relay.ports` or `auth.users[2].name`;
    /// empty when the text is not TOML.
    pub key: String,
    /// The value as written, cut when long; `None` where it may be a secret.
    pub value: Option<String>,
    /// What was expected instead.
    pub expected: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        if let Some(value) = &self.value {
            write!(f, ": {value}")?;
        }
        write!(f, ": {}", self.expected)
    }
}

/// Every problem of one file, in the order of its lines; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// One after the other.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A value and the place it was found at.
#[derive(Clone)]
pub(super) struct At<'a> {
    /// Dotted path, with the index of a list's element.
    pub(super) key: String,
    /// The value.
    pub(super) value: &'a DeValue<'a>,
    /// Where it is in the text, in bytes.
    pub(super) span: Range<usize>,
}

/// Collects problems while a text is read, and remembers where each key was.
pub(super) struct Report<'t> {
    text: &'t str,
    file: &'t Path,
    seen: HashMap<String, usize>,
    problems: Vec<Problem>,
}

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str, file: &'t Path) -> Self {
        Self { text, file, seen: HashMap::new(), problems: Vec::new() }
    }

    pub(super) fn text(&self) -> &'t str {
        self.text
    }

    /// The directory that relative paths in the file start at.
    pub(super) fn directory(&self) -> &'t Path {
        self.file.parent().unwrap_or(Path::new(""))
    }

    /// Remembers the line of a key or section, for problems found after reading.
    pub(super) fn saw(&mut self, key: &str, span: &Range<usize>) {
        self.seen.entry(key.to_owned()).or_insert(line_of(self.text, span.start));
    }

    /// The line of a key or section, if the file has it.
    pub(super) fn line(&self, key: &str) -> Option<usize> {
        self.seen.get(key).copied()
    }

    /// The value at `at` is not what it should be. The value is shown.
    pub(super) fn refuse(&mut self, at: &At<'_>, expected: impl Into<String>) {
        let shown = shorten(&self.text[at.span.clone()]);
        self.push(Some(at.span.start), &at.key, Some(shown), expected.into());
    }

    /// The same, for a value that is or may hold a secret: the value is not shown.
    pub(super) fn refuse_unseen(&mut self, at: &At<'_>, expected: impl Into<String>) {
        self.push(Some(at.span.start), &at.key, None, expected.into());
    }

    /// Something is wrong at a byte of the text, with no value to show.
    pub(super) fn refuse_at(&mut self, byte: usize, key: &str, expected: impl Into<String>) {
        self.push(Some(byte), key, None, expected.into());
    }

    /// Something is wrong with a key as such, or with its absence. `value` is
    /// shown as given.
    pub(super) fn refuse_key(
        &mut self,
        key: &str,
        value: Option<String>,
        expected: impl Into<String>,
    ) {
        let line = self.line(key);
        let problem = Problem {
            file: self.file.into(),
            line,
            key: key.into(),
            value,
            expected: expected.into(),
        };
        self.problems.push(problem);
    }

    /// Whether `key` or an element of it was refused.
    pub(super) fn is_refused(&self, key: &str) -> bool {
        self.problems.iter().any(|p| {
            p.key.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('['))
        })
    }

    /// The line of a byte, counted from 1.
    pub(super) fn line_at(&self, byte: usize) -> usize {
        line_of(self.text, byte)
    }

    /// All problems in the order of their lines, those without one last.
    pub(super) fn finish(mut self) -> Option<Problems> {
        self.problems.sort_by_key(|p| p.line.unwrap_or(usize::MAX));
        (!self.problems.is_empty()).then_some(Problems(self.problems))
    }

    fn push(&mut self, byte: Option<usize>, key: &str, value: Option<String>, expected: String) {
        let line = byte.map(|b| line_of(self.text, b));
        self.problems.push(Problem {
            file: self.file.into(),
            line,
            key: key.into(),
            value,
            expected,
        });
    }
}

fn line_of(text: &str, byte: usize) -> usize {
    1 + text.as_bytes()[..byte.min(text.len())].iter().filter(|&&b| b == b'\n').count()
}

/// The first line of a value, at most 60 characters of it.
fn shorten(value: &str) -> String {
    let line = value.lines().next().unwrap_or_default();
    let cut = line.char_indices().nth(60).map_or(line.len(), |(i, _)| i);
    if cut < value.len() { format!("{}…", &line[..cut]) } else { line.to_owned() }
}
