//! A client's credentials, in every style that RFC 8489 section 9.2 knows.

use super::wire::{Reply, Request};
use crate::auth::{Algorithm, Key, userhash};
use crate::stun::{Attribute, verify_sha1, verify_sha256};
use crate::turn::Client;

/// How a client proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// As of RFC 5389: no PASSWORD-ALGORITHM, MESSAGE-INTEGRITY.
    Legacy,
    /// PASSWORD-ALGORITHM and PASSWORD-ALGORITHMS, MESSAGE-INTEGRITY-SHA256.
    Modern(Algorithm),
    /// The same with USERHASH for USERNAME.
    Anonymous(Algorithm),
}

/// A client with credentials and a nonce.
#[derive(Clone, Debug)]
pub(super) struct Login {
    pub(super) client: Client,
    pub(super) name: String,
    pub(super) password: String,
    pub(super) realm: String,
    pub(super) nonce: Vec<u8>,
    /// PASSWORD-ALGORITHMS as offered.
    pub(super) offer: Vec<u8>,
    pub(super) style: Style,
}

impl Login {
    pub(super) fn styled(&self, style: Style) -> Self {
        Self { style, ..self.clone() }
    }

    fn algorithm(&self) -> Algorithm {
        match self.style {
            Style::Legacy => Algorithm::Md5,
            Style::Modern(algorithm) | Style::Anonymous(algorithm) => algorithm,
        }
    }

    pub(super) fn key(&self) -> Key {
        Key::derive(self.algorithm(), &self.name, &self.realm, &self.password)
    }

    /// USERNAME or USERHASH, REALM, NONCE and what belongs to the style.
    pub(super) fn credentials(&self, request: Request) -> Request {
        let named = match self.style {
            Style::Anonymous(_) => {
                request.with(Attribute::Userhash, &userhash(&self.name, &self.realm))
            }
            _ => request.with(Attribute::Username, self.name.as_bytes()),
        };
        let request =
            named.with(Attribute::Realm, self.realm.as_bytes()).with(Attribute::Nonce, &self.nonce);
        match self.style {
            Style::Legacy => request,
            Style::Modern(algorithm) | Style::Anonymous(algorithm) => {
                let [hi, lo] = algorithm.number().to_be_bytes();
                request
                    .with(Attribute::PasswordAlgorithms, &self.offer)
                    .with(Attribute::PasswordAlgorithm, &[hi, lo, 0, 0])
            }
        }
    }

    /// Credentials and integrity.
    pub(super) fn sign(&self, request: Request) -> Request {
        let request = self.credentials(request);
        match self.style {
            Style::Legacy => request.sha1(self.key().bytes()),
            _ => request.sha256(self.key().bytes()),
        }
    }

    /// Whether a response carries the integrity that belongs to the style, and no other.
    pub(super) fn proves(&self, reply: &Reply) -> bool {
        let message = reply.message();
        let (sha1, sha256) = (
            message.has(Attribute::MessageIntegrity),
            message.has(Attribute::MessageIntegritySha256),
        );
        match self.style {
            Style::Legacy => sha1 && !sha256 && verify_sha1(&message, self.key().bytes()),
            _ => sha256 && !sha1 && verify_sha256(&message, self.key().bytes()),
        }
    }
}
