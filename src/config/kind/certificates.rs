//! Where certificates and their keys lie.

use std::path::PathBuf;

use toml::de::DeValue;

use super::{Kind, quoted, read_items, write_items};
use crate::config::problem::{At, Report};
use crate::config::{document, suggest};

/// Files in PEM: a certificate chain and its private key. Both may be the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, the server's own certificate first.
    pub chain: PathBuf,
    /// The private key, unencrypted.
    pub key: PathBuf,
}

/// A list of certificates.
pub(crate) struct CertificateList;

const SHAPE: &str = "{ chain = \"fullchain.pem\", key = \"privkey.pem\" }";

impl Kind for CertificateList {
    type Value = Vec<CertificateFiles>;

    fn expected(&self) -> String {
        format!("a list, each entry {SHAPE}")
    }

    fn read(&self, at: &At<'_>, report: &mut Report<'_>) -> Option<Self::Value> {
        read_items(self, at, report, read_entry)
    }

    fn write(&self, value: &Self::Value) -> Option<String> {
        Some(write_items(value.iter().map(|files| {
            let path = |path: &PathBuf| quoted(&path.display().to_string());
            format!("{{ chain = {}, key = {} }}", path(&files.chain), path(&files.key))
        })))
    }
}

fn read_entry(at: &At<'_>, report: &mut Report<'_>) -> Option<CertificateFiles> {
    let DeValue::Table(table) = at.value else {
        report.refuse(at, format!("expected {SHAPE}"));
        return None;
    };
    let (mut chain, mut key, mut sound) = (None, None, true);
    for (name, value) in table {
        let member = document::at(format!("{}.{}", at.key, name.get_ref()), value);
        let slot = match name.get_ref().as_ref() {
            "chain" => &mut chain,
            "key" => &mut key,
            other => {
                let hint = suggest::member(other, &["chain", "key"]);
                report.refuse_at(name.span().start, &member.key, hint);
                sound = false;
                continue;
            }
        };
        let path = member.value.as_str().filter(|path| !path.is_empty());
        *slot = path.map(|path| report.directory().join(path));
        if slot.is_none() {
            report.refuse(&member, "expected the path of a file");
            sound = false;
        }
    }
    match (chain, key) {
        (Some(chain), Some(key)) if sound => Some(CertificateFiles { chain, key }),
        _ => {
            if sound {
                report.refuse(at, format!("expected {SHAPE}"));
            }
            None
        }
    }
}
