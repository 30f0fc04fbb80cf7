//! What a connection is, which its first bytes decide: PROXY header first, if a proxy is
//! believed, then STUN, TLS, or something for a backend.
//!
//! Until it is decided the bytes are kept, at most what a ClientHello may have, and for as
//! long as a message, or for TLS a handshake, may take.

use std::ops::Range;
use std::time::Duration;

use super::backend::Route;
use super::connection::{Accepts, Cipher, Connection, Layer};
use super::streams::keep_partial;
use super::token::ConnectionId;
use super::{StreamLimits, Worker};
use crate::front::{self, Detect, proxy};
use crate::io::SlotId;
use crate::net::Now;

/// What the bytes at the front of a connection are.
enum Opening {
    /// Not to be told yet.
    NeedMore,
    /// What a proxy says; the connection's own bytes follow.
    Proxy(proxy::Header),
    /// STUN, as it is.
    Plain,
    /// TLS that ends here.
    Tls,
    /// For the backend of this index.
    Backend(usize),
    /// Nothing that is taken here.
    Refused,
}

impl Worker {
    /// Looks at everything that has come of a connection so far.
    pub(super) fn on_opening(&mut self, now: Now, id: ConnectionId, slot: SlotId, len: usize) {
        let mut at = 0;
        while let Some(connection) = self.connections.get_mut(id) {
            let accepts = connection.accepts;
            match self.opening(&self.arena.bytes(slot)[at..len], accepts) {
                Opening::NeedMore => return self.wait_for_more(now, id, slot, at..len),
                Opening::Proxy(header) => {
                    at += header.len;
                    let Some(connection) = self.connections.get_mut(id) else { return };
                    connection.on_behalf_of(header.addresses);
                }
                Opening::Plain => {
                    let Some(connection) = self.connections.get_mut(id) else { return };
                    connection.layer = Layer::Plain;
                    self.arena.bytes_mut(slot).copy_within(at..len, 0);
                    return self.on_bytes(now, id, slot, len - at);
                }
                Opening::Tls => {
                    let hello = self.arena.bytes(slot)[at..len].to_vec();
                    return self.begin_tls(now, id, &hello);
                }
                Opening::Backend(backend) => {
                    let start = self.arena.bytes(slot)[at..len].to_vec();
                    return self.pass(now, id, backend, &start);
                }
                Opening::Refused => break,
            }
        }
        self.egress.losses.closed_connections += 1;
        self.close_connection(now, id);
    }

    fn opening(&self, start: &[u8], accepts: Accepts) -> Opening {
        let tls = accepts.tls && self.certificates.is_some();
        let to_backend = || self.backends.of_plain().map(Opening::Backend);
        match front::detect(start) {
            Detect::NeedMore => Opening::NeedMore,
            Detect::ProxyV1 | Detect::ProxyV2 if accepts.proxy => match proxy::parse(start) {
                Ok(Some(header)) => Opening::Proxy(header),
                Ok(None) => Opening::NeedMore,
                Err(_) => Opening::Refused,
            },
            Detect::ProxyV1 | Detect::ProxyV2 => Opening::Refused,
            Detect::Tls => match self.backends.of_tls(start, self.certificates.as_deref()) {
                Route::NeedMore => Opening::NeedMore,
                Route::Backend(backend) => Opening::Backend(backend),
                Route::Ours if tls => Opening::Tls,
                Route::Ours => Opening::Refused,
            },
            Detect::Stun if accepts.plain => Opening::Plain,
            Detect::Stun => Opening::Refused,
            // Nobody has a channel before the first message of a connection.
            Detect::ChannelData if accepts.plain => to_backend().unwrap_or(Opening::Plain),
            Detect::ChannelData | Detect::Http | Detect::Other => {
                to_backend().unwrap_or(Opening::Refused)
            }
        }
    }

    fn begin_tls(&mut self, now: Now, id: ConnectionId, hello: &[u8]) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(certificates) = &self.certificates else { return };
        connection.begin_tls(certificates, now.mono);
        let since = connection.handshaking_since().unwrap_or(now.mono);
        self.watch(id, since + self.limits.handshake);
        self.decrypt(now, id, Cipher::Taken(hello));
    }

    /// Keeps the first bytes of a connection until more of them have come.
    fn wait_for_more(&mut self, now: Now, id: ConnectionId, slot: SlotId, range: Range<usize>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if keep_partial(connection, now, &self.arena.bytes(slot)[range], false) {
            let most = self.limits.of_partial(connection);
            self.watch(id, now.mono + most);
        }
    }
}

impl StreamLimits {
    /// How long what is kept of a connection may stay incomplete: a ClientHello is
    /// part of a handshake, anything else is a message.
    pub(super) fn of_partial(&self, connection: &Connection) -> Duration {
        let undecided = matches!(connection.layer, Layer::Unknown);
        if undecided && front::detect(&connection.partial) == Detect::Tls {
            self.handshake
        } else {
            self.frame
        }
    }
}
