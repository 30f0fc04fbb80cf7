//! What arrives: data, indications and the answers to requests.
//!
//! The flow of an answer (RFC 8489 sections 6.3 and 9.2.5):
//!
//! 1. It belongs to a transaction in flight, or is a late duplicate and ignored.
//! 2. 401 and 438 become a new request with new credentials, within bounds.
//! 3. Any other answer to a signed request must be signed with the same key;
//!    otherwise it is discarded and the transaction goes on.
//! 4. A success changes what the client knows and ends the transaction, an error
//!    ends it.

use std::net::SocketAddr;
use std::time::Duration;

use stun_rs::attributes::stun::{
    AlternateServer, ErrorCode, MappedAddress, UnknownAttributes, XorMappedAddress,
};
use stun_rs::attributes::turn::{
    AddressErrorCode, Data, Icmp, LifeTime, ReservationToken, XorPeerAddress,
};
use stun_rs::{AddressFamily, MessageClass, StunAttribute, StunMessage, methods};

use crate::net::{Family, Now};

use super::challenge::{Challenge, check_bid_down};
use super::codec::Message;
use super::event::{Allocated, Event, Failure, Problem};
use super::exchange::{Exchange, Intent};
use super::framing::Frame;
use super::request::Request;
use super::{CHANNEL_REFRESH, Client, Config, PERMISSION_REFRESH, Transaction};

const UNAUTHENTICATED: u16 = 401;
const ALLOCATION_MISMATCH: u16 = 437;
const STALE_NONCE: u16 = 438;
/// Answers to one request with 438 that are followed by another try: a nonce can
/// go stale twice in a row only if the server's clock or key has changed.
const MAX_STALE: u32 = 3;
const RESPONSE_ORIGIN: u16 = 0x802B;
const OTHER_ADDRESS: u16 = 0x802C;

impl Client {
    /// Takes a datagram or a frame of the stream.
    pub(super) fn handle_frame(&mut self, now: Now, bytes: &[u8]) {
        let handled = match Frame::parse(bytes) {
            Ok(Frame::ChannelData { channel, data }) => self.handle_channel_data(channel, data),
            Ok(Frame::Stun(bytes)) => {
                Message::decode(bytes).and_then(|message| self.handle_message(now, &message))
            }
            Err(why) => Err(why),
        };
        if let Err(why) = handled {
            self.events.push_back(Event::Invalid { why });
        }
    }

    fn handle_channel_data(&mut self, channel: u16, data: &[u8]) -> Result<(), Problem> {
        let peer = self.peers.peer_of(channel).ok_or(Problem::UnboundChannel(channel))?;
        self.events.push_back(Event::Data { peer, channel: Some(channel), data: data.to_vec() });
        Ok(())
    }

    fn handle_message(&mut self, now: Now, message: &Message<'_>) -> Result<(), Problem> {
        match message.stun.class() {
            MessageClass::Request => Err(Problem::UnexpectedRequest),
            MessageClass::Indication if message.stun.method() == methods::DATA => {
                self.handle_data_indication(&message.stun)
            }
            MessageClass::Indication => {
                let method = message.stun.method().as_u16();
                self.events.push_back(Event::Indication { method, attributes: message.raw() });
                Ok(())
            }
            MessageClass::SuccessResponse | MessageClass::ErrorResponse => {
                self.handle_response(now, message)
            }
        }
    }

    /// Data, or the news that data met an ICMP error (RFC 8656 sections 11.4 and 11.6).
    fn handle_data_indication(&mut self, indication: &StunMessage) -> Result<(), Problem> {
        check_known(indication)?;
        let peer = indication
            .get::<XorPeerAddress>()
            .and_then(|attribute| attribute.as_xor_peer_address().ok())
            .map(|attribute| *attribute.socket_address())
            .ok_or(Problem::Missing("XOR-PEER-ADDRESS"))?;
        let icmp = indication.get::<Icmp>().and_then(|attribute| attribute.as_icmp().ok());
        let data = indication.get::<Data>().and_then(|attribute| attribute.as_data().ok());
        self.events.push_back(match (icmp, data) {
            (Some(icmp), _) => Event::Icmp {
                peer,
                icmp_type: icmp.icmp_type().get(),
                code: icmp.icmp_code().get(),
                info: *icmp.error_data().first_chunk().expect("ICMP error data has 4 bytes"),
            },
            (None, Some(data)) => {
                Event::Data { peer, channel: None, data: data.as_bytes().to_vec() }
            }
            (None, None) => return Err(Problem::Missing("DATA")),
        });
        Ok(())
    }

    fn handle_response(&mut self, now: Now, message: &Message<'_>) -> Result<(), Problem> {
        let id = message.id();
        let Some(exchange) = self.exchanges.get(&id) else { return Ok(()) };
        if exchange.intent.request.method() != Ok(message.stun.method()) {
            return Err(Problem::Malformed("the method is not that of the request".to_owned()));
        }
        let code = error_code(&message.stun)?;
        let challenged = matches!(code, Some((UNAUTHENTICATED | STALE_NONCE, _)));
        if !challenged {
            check_integrity(&self.config, exchange, message, code.as_ref())?;
            check_bid_down(&self.config, &message.stun)?;
        }
        let Some(Exchange { intent, signature, .. }) = self.exchanges.remove(&id) else {
            return Ok(());
        };
        match code {
            None => self.handle_success(now, &intent, message),
            Some((UNAUTHENTICATED, reason)) => {
                self.handle_unauthenticated(now, intent, signature.is_some(), message, reason);
            }
            Some((STALE_NONCE, reason)) if signature.is_some() && intent.stale < MAX_STALE => {
                let intent = Intent { stale: intent.stale + 1, ..intent };
                self.retry(now, intent, message, (STALE_NONCE, reason));
            }
            Some((code, reason)) => self.fail(&intent, &message.stun, code, reason),
        }
        Ok(())
    }

    /// Answers the challenge once; and once more only if the realm has changed,
    /// since the same credentials would be refused again.
    fn handle_unauthenticated(
        &mut self,
        now: Now,
        intent: Intent,
        was_signed: bool,
        message: &Message<'_>,
        reason: String,
    ) {
        let before = self.challenge.as_ref().map(|challenge| challenge.realm().to_owned());
        let asked = realm_of(&message.stun);
        let worth_it = !was_signed || (intent.unauthenticated < 2 && asked != before);
        let intent = Intent { unauthenticated: intent.unauthenticated + 1, ..intent };
        if worth_it && !self.config.username.is_empty() {
            self.retry(now, intent, message, (UNAUTHENTICATED, reason));
        } else {
            self.fail(&intent, &message.stun, UNAUTHENTICATED, reason);
        }
    }

    /// Sends the request again with what the error response asks for.
    fn retry(
        &mut self,
        now: Now,
        intent: Intent,
        message: &Message<'_>,
        (code, reason): (u16, String),
    ) {
        // A 438 renews the nonce only; a 401 starts over.
        let previous = self.challenge.as_ref().filter(|_| code == STALE_NONCE);
        match Challenge::answer(&self.config, &message.stun, previous) {
            Ok(challenge) => {
                self.challenge = Some(challenge);
                self.transmit(now, intent);
            }
            // What a server without authentication says to everybody.
            Err(Problem::Missing(_)) => self.fail(&intent, &message.stun, code, reason),
            Err(why) => self.give_up(&intent, why),
        }
    }

    fn fail(&mut self, intent: &Intent, response: &StunMessage, code: u16, reason: String) {
        self.forget_unconfirmed(&intent.request);
        if code == ALLOCATION_MISMATCH && matches!(intent.request, Request::Refresh { .. }) {
            self.forget_allocation();
        }
        self.events.push_back(Event::Failed(Failure {
            transaction: intent.transaction,
            method: response.method().as_u16(),
            code,
            reason,
            unknown_attributes: response
                .get::<UnknownAttributes>()
                .and_then(|attribute| attribute.as_unknown_attributes().ok())
                .map(|list| list.attributes().to_vec())
                .unwrap_or_default(),
            alternate_server: response
                .get::<AlternateServer>()
                .and_then(|attribute| attribute.as_alternate_server().ok())
                .map(|attribute| *attribute.socket_address()),
        }));
    }

    fn handle_success(&mut self, now: Now, intent: &Intent, message: &Message<'_>) {
        let transaction = intent.transaction;
        match self.success_event(now, transaction, &intent.request, message) {
            Ok(event) => self.events.push_back(event),
            Err(why) => self.give_up(intent, why),
        }
    }

    fn success_event(
        &mut self,
        now: Now,
        transaction: Transaction,
        request: &Request,
        message: &Message<'_>,
    ) -> Result<Event, Problem> {
        let response = &message.stun;
        if let Request::Raw { method, .. } = request {
            // Whoever asks in raw attributes reads raw attributes.
            return Ok(Event::Answered { transaction, method: *method, attributes: message.raw() });
        }
        check_known(response)?;
        Ok(match request {
            Request::Binding => Event::Bound {
                transaction,
                reflexive: reflexive(response)?,
                response_origin: message.plain_address(RESPONSE_ORIGIN),
                other_address: message.plain_address(OTHER_ADDRESS),
            },
            Request::Allocate(_) => {
                let allocated = allocated(transaction, response)?;
                self.arm_allocation_refresh(now, allocated.lifetime);
                Event::Allocated(allocated)
            }
            Request::Refresh { family, .. } => {
                let lifetime = lifetime(response)?;
                if lifetime.is_zero() && family.is_none() {
                    self.forget_allocation();
                } else if !lifetime.is_zero() {
                    self.arm_allocation_refresh(now, lifetime);
                }
                Event::Refreshed { transaction, lifetime }
            }
            Request::CreatePermission { peers } => {
                peers.iter().for_each(|peer| self.peers.permit(*peer));
                self.arm_peer_refresh(now, false);
                Event::PermissionCreated { transaction }
            }
            Request::ChannelBind { channel, peer } => {
                self.peers.confirm(*channel, *peer);
                self.arm_peer_refresh(now, true);
                Event::ChannelBound { transaction, channel: *channel, peer: *peer }
            }
            Request::Raw { .. } => unreachable!("returned above"),
        })
    }

    /// A minute before the end, or half-way through a short lifetime.
    fn arm_allocation_refresh(&mut self, now: Now, lifetime: Duration) {
        let margin = Duration::from_secs(60).min(lifetime / 2);
        self.refresh.allocation = self.config.keep_alive.then(|| now.mono + (lifetime - margin));
    }

    /// Starts the timers that keep permissions, and channels if there are any, alive.
    fn arm_peer_refresh(&mut self, now: Now, channels: bool) {
        if !self.config.keep_alive {
            return;
        }
        self.refresh.permissions.get_or_insert(now.mono + PERMISSION_REFRESH);
        if channels {
            self.refresh.channels.get_or_insert(now.mono + CHANNEL_REFRESH);
        }
    }

    fn forget_allocation(&mut self) {
        self.peers = super::Peers::default();
        self.refresh = super::RefreshTimers::default();
    }
}

/// RFC 8489 section 9.2.5: the answer to a signed request is signed the same way.
fn check_integrity(
    config: &Config,
    exchange: &Exchange,
    message: &Message<'_>,
    code: Option<&(u16, String)>,
) -> Result<(), Problem> {
    let Some(signature) = &exchange.signature else { return Ok(()) };
    match message.verify(signature) {
        Some(true) => Ok(()),
        Some(false) => Err(Problem::IntegrityMismatch),
        None if code.is_some() && config.accept_unsigned_errors => Ok(()),
        None => Err(Problem::IntegrityMissing {
            class: code.map_or_else(|| "success".to_owned(), |(code, _)| code.to_string()),
        }),
    }
}

/// RFC 8489 section 6.3: what must be understood and is not makes a message useless.
fn check_known(message: &StunMessage) -> Result<(), Problem> {
    let unknown = message.attributes().iter().find_map(|attribute| match attribute {
        StunAttribute::Unknown(unknown) => Some(unknown.attribute_type())
            .filter(|kind| kind.is_comprehension_required())
            .map(|kind| kind.as_u16()),
        _ => None,
    });
    unknown.map_or(Ok(()), |kind| Err(Problem::UnknownRequired(kind)))
}

/// Code and reason of an error response, `None` for a success response.
fn error_code(response: &StunMessage) -> Result<Option<(u16, String)>, Problem> {
    if response.class() != MessageClass::ErrorResponse {
        return Ok(None);
    }
    let attribute = response
        .get::<ErrorCode>()
        .and_then(|attribute| attribute.as_error_code().ok())
        .ok_or(Problem::Missing("ERROR-CODE"))?
        .error_code();
    // Some servers count the padding as part of the phrase.
    let reason = attribute.reason().trim_end_matches('\0').to_owned();
    Ok(Some((attribute.error_code(), reason)))
}

fn realm_of(response: &StunMessage) -> Option<String> {
    response
        .get::<stun_rs::attributes::stun::Realm>()
        .and_then(|attribute| attribute.as_realm().ok())
        .map(|realm| realm.as_str().to_owned())
}

/// XOR-MAPPED-ADDRESS, or MAPPED-ADDRESS of an older server.
fn reflexive(response: &StunMessage) -> Result<SocketAddr, Problem> {
    let xored = response
        .get::<XorMappedAddress>()
        .and_then(|attribute| attribute.as_xor_mapped_address().ok())
        .map(|attribute| *attribute.socket_address());
    let plain = || {
        response
            .get::<MappedAddress>()
            .and_then(|attribute| attribute.as_mapped_address().ok())
            .map(|attribute| *attribute.socket_address())
    };
    xored.or_else(plain).ok_or(Problem::Missing("XOR-MAPPED-ADDRESS"))
}

fn lifetime(response: &StunMessage) -> Result<Duration, Problem> {
    response
        .get::<LifeTime>()
        .and_then(|attribute| attribute.as_life_time().ok())
        .map(|attribute| Duration::from_secs(u64::from(attribute.as_u32())))
        .ok_or(Problem::Missing("LIFETIME"))
}

fn allocated(transaction: Transaction, response: &StunMessage) -> Result<Allocated, Problem> {
    let relayed: Vec<SocketAddr> = response
        .attributes()
        .iter()
        .filter_map(|attribute| attribute.as_xor_relayed_address().ok())
        .map(|attribute| *attribute.socket_address())
        .collect();
    if relayed.is_empty() {
        return Err(Problem::Missing("XOR-RELAYED-ADDRESS"));
    }
    Ok(Allocated {
        transaction,
        relayed,
        reflexive: reflexive(response)?,
        lifetime: lifetime(response)?,
        reservation_token: response
            .get::<ReservationToken>()
            .and_then(|attribute| attribute.as_reservation_token().ok())
            .and_then(|attribute| attribute.token().first_chunk().copied()),
        address_error: response
            .get::<AddressErrorCode>()
            .and_then(|attribute| attribute.as_address_error_code().ok())
            .map(|attribute| {
                let family = match attribute.family() {
                    AddressFamily::IPv4 => Family::V4,
                    AddressFamily::IPv6 => Family::V6,
                };
                (family, attribute.error_code().error_code())
            }),
    })
}
