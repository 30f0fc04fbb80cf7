//! From TOML to a `Config`, along the table of keys.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, Section};
use super::problem::{At, Report};
use super::{Config, Problem, Problems, suggest};

/// Reads the report's text. `None` when it is not TOML; otherwise each valid
/// key is set, the others keep their default, and the report says why.
pub(super) fn read(report: &mut Report<'_>) -> Option<Config> {
    let (document, errors) = DeTable::parse_recoverable(report.text());
    if !errors.is_empty() {
        refuse_syntax(&errors, report);
        return None;
    }
    let mut config = Config::default();
    for (name, value) in document.get_ref() {
        let at = at(name.get_ref().to_string(), value);
        let Some(section) = keys::section(name.get_ref()) else {
            let hint = suggest::section(name.get_ref(), value.get_ref());
            report.refuse_at(name.span().start, name.get_ref(), hint);
            continue;
        };
        report.saw(section.name, &name.span());
        match value.get_ref() {
            DeValue::Table(table) => read_section(section, table, &mut config, report),
            _ => report.refuse_unseen(&at, format!("expected a table: [{}]", section.name)),
        }
    }
    Some(config)
}

fn read_section(
    section: &Section,
    table: &DeTable<'_>,
    config: &mut Config,
    report: &mut Report<'_>,
) {
    for (name, value) in table {
        let path = format!("{}.{}", section.name, name.get_ref());
        report.saw(&path, &name.span());
        match section.keys.iter().find(|key| key.path == path) {
            Some(key) => (key.read)(config, &at(path, value), report),
            None => {
                let hint = suggest::key(section, name.get_ref());
                report.refuse_at(name.span().start, &path, hint);
            }
        }
    }
}

pub(super) fn at<'a>(key: String, value: &'a Spanned<DeValue<'a>>) -> At<'a> {
    At { key, value: value.get_ref(), span: value.span() }
}

/// The problem of a file whose bytes after `valid` are not UTF-8.
pub(super) fn not_utf8(file: &Path, valid: &[u8]) -> Problems {
    let line = 1 + valid.iter().filter(|&&b| b == b'\n').count();
    Problem {
        file: file.into(),
        line: Some(line),
        key: String::new(),
        value: None,
        expected: "expected UTF-8 text".into(),
    }
    .into()
}

/// One problem a line: what follows the first error of a line is mostly its echo.
fn refuse_syntax(errors: &[toml::de::Error], report: &mut Report<'_>) {
    let mut last = 0;
    for error in errors {
        let byte = error.span().map_or(0, |span| span.start);
        let line = report.line_at(byte);
        if line != last {
            report.refuse_at(byte, "", format!("not TOML: {}", error.message()));
            last = line;
        }
    }
}
