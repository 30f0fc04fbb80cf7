//! Responses: what they need to know of their request, and how they are written.

use super::alternate::Alternate;
use crate::auth::Key;
use crate::stun::{Attribute, Class, ErrorCode, Integrity, Message, Method, TransactionId, Writer};

/// What a response needs to know of its request. Kept while a request waits.
#[derive(Clone, Copy)]
pub(super) struct Envelope {
    pub(super) method: Method,
    pub(super) id: TransactionId,
    /// The request had FINGERPRINT, so the response has it too.
    pub(super) fingerprint: bool,
    /// How the response is protected; `None` before the client has proven itself.
    pub(super) signature: Option<Signature>,
}

/// The key and the attribute that protect a response (RFC 8489 section 9.2.4).
#[derive(Clone, Copy)]
pub(super) struct Signature {
    pub(super) integrity: Integrity,
    pub(super) key: Key,
}

impl Envelope {
    pub(super) fn of(request: &Message<'_>) -> Self {
        Self {
            method: request.method(),
            id: request.transaction_id(),
            fingerprint: request.has(Attribute::Fingerprint),
            signature: None,
        }
    }

    /// Writes a success response; returns its length.
    pub(super) fn success(
        &self,
        out: &mut [u8],
        software: Option<&str>,
        fill: impl FnOnce(&mut Writer<'_>),
    ) -> Option<usize> {
        let mut writer = Writer::new(out, self.method, Class::Success, self.id);
        fill(&mut writer);
        self.seal(writer, software)
    }

    /// Writes an error response; returns its length.
    pub(super) fn error(
        &self,
        out: &mut [u8],
        software: Option<&str>,
        code: ErrorCode,
        reason: &str,
        fill: impl FnOnce(&mut Writer<'_>),
    ) -> Option<usize> {
        let mut writer = Writer::new(out, self.method, Class::Error, self.id);
        writer.put_error(code, reason);
        fill(&mut writer);
        self.seal(writer, software)
    }

    /// SOFTWARE goes only to clients that have proven themselves: to strangers an
    /// answer stays short.
    fn seal(&self, mut writer: Writer<'_>, software: Option<&str>) -> Option<usize> {
        if let Some(signature) = self.signature {
            if let Some(software) = software {
                writer.put(Attribute::Software, software.as_bytes());
            }
            match signature.integrity {
                Integrity::Sha1 => writer.put_integrity_sha1(signature.key.bytes()),
                Integrity::Sha256 => writer.put_integrity_sha256(signature.key.bytes()),
            }
        }
        if self.fingerprint {
            writer.put_fingerprint();
        }
        writer.finish()
    }
}

/// Why a request is not granted; turned into a response in one place.
pub(super) enum Reject {
    /// An error response with this code and reason phrase.
    Error(ErrorCode, &'static str),
    /// An error response with REALM, NONCE and PASSWORD-ALGORITHMS.
    Challenge(ErrorCode, &'static str),
    /// 300 with the addresses of another server.
    Alternate(Alternate),
    /// 420 with the list of attributes.
    UnknownAttributes,
    /// No response.
    Drop(super::vocabulary::DropReason),
    /// No response yet.
    Queued,
}

impl Reject {
    /// An error with the standard reason phrase.
    pub(super) fn code(code: ErrorCode) -> Self {
        Self::Error(code, code.reason())
    }

    /// 400 with a hint for whoever debugs the client.
    pub(super) fn bad(reason: &'static str) -> Self {
        Self::Error(ErrorCode::BAD_REQUEST, reason)
    }
}
