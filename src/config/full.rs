//! The reference file: every key with its default and what to know about it.

use super::Config;
use super::keys::{Key, SECTIONS, Section};

/// Columns of a comment.
const WIDTH: usize = 90;

const HEAD: &str = "\
# Every key of sturn with its default. Written by `sturn check --print-full`.
#
# A line that starts with \"#\" and a key is a default: change it and remove the \"#\".
# Durations: \"90s\", \"10m\", \"1h30m\". Sizes: \"64KiB\", \"1MiB\". Networks: \"10.0.0.0/8\".
# Unknown keys and invalid values are refused: `sturn check FILE` names all of them.
";

/// The text of `conf/sturn.full.toml`: sections, and each key commented out.
pub fn full_file() -> String {
    let defaults = Config::default();
    let mut text = HEAD.to_owned();
    for section in SECTIONS {
        write_section(&mut text, section, &defaults);
    }
    text
}

fn write_section(text: &mut String, section: &Section, defaults: &Config) {
    text.push('\n');
    comment(text, section.doc);
    text.push_str(&format!("[{}]\n", section.name));
    for key in section.keys {
        text.push('\n');
        write_key(text, key, defaults);
    }
}

fn write_key(text: &mut String, key: &Key, defaults: &Config) {
    comment(text, key.doc);
    comment(text, key.more);
    if !key.example.is_empty() {
        text.push_str(&format!("# Example: {} = {}\n", key.name(), key.example));
    }
    match (key.write)(defaults) {
        Some(value) => text.push_str(&format!("#{} = {value}\n", key.name())),
        None => text.push_str(&format!("# {} is unset by default.\n", key.name())),
    }
}

/// Comment lines of at most `WIDTH` columns, broken at spaces.
fn comment(text: &mut String, words: &str) {
    let mut line = String::new();
    for word in words.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH - 2 {
            text.push_str(&format!("# {line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        text.push_str(&format!("# {line}\n"));
    }
}
