//! Sending clients to another server (RFC 8489 section 10).
//!
//! Only an Allocate is ever redirected, and only after its sender has proven who
//! it is: the 300 is signed then, so nobody on the path can redirect it elsewhere.
//! Binding is answered here always, since the answer depends on no server.

use std::net::SocketAddr;

use super::Server;
use super::reply::Reject;
use super::vocabulary::Client;
use crate::net::Transport;
use crate::stun::{Attribute, ErrorCode, Writer};

/// Other servers that take clients over from this one.
#[derive(Clone, Debug)]
pub struct Alternates {
    /// For clients over UDP and TCP, which keep their transport.
    pub servers: Vec<SocketAddr>,
    /// For clients over TLS and DTLS.
    pub tls_servers: Vec<SocketAddr>,
    /// The name in the certificate of `tls_servers`, when it is not this server's
    /// own: ALTERNATE-DOMAIN (RFC 8489 section 14.16).
    pub domain: Option<Box<str>>,
    /// When clients are sent there.
    pub redirect: Redirect,
}

/// When new allocations are made elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// While this server drains.
    Draining,
    /// Always: this server only tells where to go.
    Always,
}

/// Where one client is sent.
#[derive(Clone, Copy)]
pub(super) struct Alternate {
    /// Of the client's own family.
    first: SocketAddr,
    /// Of the other family.
    second: Option<SocketAddr>,
    /// The client checks a certificate.
    secure: bool,
}

impl Server {
    /// Starts or stops draining: new allocations are sent to an alternate server,
    /// or refused with 508 where there is none for the client. Those that exist
    /// are not touched.
    pub fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
    }

    /// Whether a new allocation is to be made elsewhere: 300, or 508 when this
    /// server drains and has nowhere to send the client.
    pub(super) fn check_redirect(&mut self, from: Client) -> Result<(), Reject> {
        let always = self.settings.alternates.as_ref().map(|a| a.redirect);
        if !self.draining && always != Some(Redirect::Always) {
            return Ok(());
        }
        match self.alternate_for(from) {
            Some(alternate) => {
                self.redirected = self.redirected.wrapping_add(1);
                Err(Reject::Alternate(alternate))
            }
            None if self.draining => {
                Err(Reject::Error(ErrorCode::INSUFFICIENT_CAPACITY, "Server is draining"))
            }
            // Nobody else serves such a client, so it is served here.
            None => Ok(()),
        }
    }

    fn alternate_for(&self, from: Client) -> Option<Alternate> {
        let alternates = self.settings.alternates.as_ref()?;
        let secure = matches!(from.five_tuple.transport, Transport::Tls | Transport::Dtls);
        let servers = if secure { &alternates.tls_servers } else { &alternates.servers };
        let v4 = from.five_tuple.client.socket().is_ipv4();
        let in_turn = |v4: bool| {
            let of_family = || servers.iter().filter(|server| server.is_ipv4() == v4);
            of_family().nth(self.redirected.checked_rem(of_family().count())?).copied()
        };
        Some(Alternate { first: in_turn(v4)?, second: in_turn(!v4), secure })
    }

    /// The attributes of a 300 (RFC 8489 section 10): the client's family first.
    pub(super) fn write_alternate(&self, alternate: &Alternate, writer: &mut Writer<'_>) {
        for address in [Some(alternate.first), alternate.second].into_iter().flatten() {
            writer.put_address(Attribute::AlternateServer, address);
        }
        let domain = self.settings.alternates.as_ref().and_then(|a| a.domain.as_deref());
        if let Some(domain) = domain.filter(|_| alternate.secure) {
            writer.put(Attribute::AlternateDomain, domain.as_bytes());
        }
    }
}
