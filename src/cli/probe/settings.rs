//! What all ways to a server have in common: who to be, and how long it may take.

use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::super::identity::Identity;
use super::tls::Trust;
use crate::client::Uri;

/// What all ways have in common.
pub(super) struct Settings {
    pub(super) uri: Uri,
    pub(super) source: Option<IpAddr>,
    pub(super) credentials: Option<Credentials>,
    pub(super) packets: usize,
    pub(super) insecure: bool,
    pub(super) trust: Trust,
    /// How long one answer may take.
    pub(super) patience: Duration,
    /// When everything has to be over.
    pub(super) deadline: Instant,
    /// Whether the person has had enough: then only what was allocated is given back.
    pub(super) interrupted: watch::Receiver<bool>,
}

impl Settings {
    pub(super) fn is_interrupted(&self) -> bool {
        *self.interrupted.borrow()
    }

    /// Does something, or `otherwise` when the person has had enough.
    pub(super) async fn unless_interrupted<T, E>(
        &self,
        work: impl Future<Output = Result<T, E>>,
        otherwise: E,
    ) -> Result<T, E> {
        let mut interrupted = self.interrupted.clone();
        tokio::select! {
            biased;
            Ok(_) = interrupted.wait_for(|now| *now) => Err(otherwise),
            done = work => done,
        }
    }
}

/// Who to be, and what is known of it.
pub(super) struct Credentials {
    pub(super) identity: Identity,
    /// The end that the user name tells, in seconds since the Unix epoch.
    pub(super) expires: Option<u64>,
    /// Whether the password was made of a shared secret.
    pub(super) from_secret: bool,
}
