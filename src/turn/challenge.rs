//! The long-term credential mechanism, server side (RFC 8489 section 9.2.4).
//!
//! The checks, in the RFC's order:
//!
//! 1. no integrity attribute: 401, with a nonce;
//! 2. integrity without USERNAME or USERHASH, REALM and NONCE: 400;
//! 3. PASSWORD-ALGORITHM(S) that do not fit what was offered with the nonce: 400;
//! 4. unknown user: 401;
//! 5. wrong integrity: 401;
//! 6. old nonce: 438.
//!
//! Steps 4 and 5 look and cost the same from outside. A user who has to be looked
//! up outside makes an exception: step 6 comes first then, so that only a client
//! that owns its address can make the server remember and ask.
//!
//! A request with ACCESS-TOKEN takes the same steps, except that 3 does not apply
//! and that the key comes out of the token (RFC 7635 section 7).

use std::sync::Arc;

use super::event::{AuthFailure, Event};
use super::pending::MAX_REQUEST;
use super::reply::{Envelope, Reject, Signature};
use super::settings::ExpiryCheck;
use super::vocabulary::{AllocationId, Client, DropReason, LookupName, Output, Ticket};
use super::{Server, Timer};
use crate::auth::{Algorithm, Directory, Freshness, Identity, Key, NonceKey, StoredKeys, userhash};
use crate::net::{ClientAddr, Now};
use crate::stun::{
    Attribute, ErrorCode, Integrity, Message, UnknownAttributes, verify_sha1, verify_sha256,
};

/// The longest USERNAME in bytes (RFC 8489 section 14.3).
const MAX_USERNAME: usize = 508;

/// A request whose sender is known.
pub(super) struct Authenticated {
    pub(super) identity: Identity,
    pub(super) key: Key,
    /// The allocation that the request is about, if there is one.
    pub(super) allocation: Option<AllocationId>,
}

/// The attributes of a request that carries credentials.
struct Names<'a> {
    name: Option<LookupName>,
    realm: &'a [u8],
    nonce: &'a [u8],
}

/// Those of a request that is signed with a password.
struct Credentials<'a> {
    names: Names<'a>,
    algorithm: Algorithm,
}

/// Keys that came from outside for a request that was parked.
pub(super) type ExternalKeys = Option<(Arc<str>, StoredKeys)>;

impl Server {
    /// Finds out who sent a request. `external` is the outcome of a lookup when
    /// the request was parked for one.
    pub(super) fn authenticate(
        &mut self,
        now: Now,
        from: Client,
        request: &Message<'_>,
        envelope: &mut Envelope,
        external: Option<&ExternalKeys>,
    ) -> Result<Authenticated, Reject> {
        if self.settings.auth.directory.is_none() {
            return Err(Reject::Error(ErrorCode::FORBIDDEN, "TURN is off: STUN only"));
        }
        let has_integrity = request.has(Attribute::MessageIntegrity)
            || request.has(Attribute::MessageIntegritySha256);
        if !has_integrity {
            // The first request of every client; a reason phrase would only make
            // the answer to a stranger longer.
            return Err(Reject::Challenge(ErrorCode::UNAUTHENTICATED, ""));
        }
        let names = read_names(request)?;
        let allocation = self.subject(from, request);
        // A data connection has no allocation: that of its control connection counts.
        let known = allocation.or_else(|| self.named_allocation(request));
        let nonce = names.nonce;
        let (identity, key) = match self.identify_by_token(now, from, request, &names, known) {
            Some(found) => found?,
            None => {
                let algorithm = self.password_algorithm(request, nonce)?;
                let credentials = Credentials { names, algorithm };
                self.identify(now, from, request, &credentials, known, external)?
            }
        };
        self.check_nonce(now, from, request, nonce)?;
        envelope.signature = Some(Signature { integrity: response_integrity(request, &key), key });
        if self.unknown_in(request).as_slice().is_empty() {
            Ok(Authenticated { identity, key, allocation })
        } else {
            Err(Reject::UnknownAttributes)
        }
    }

    /// What is not understood of a request: ACCESS-TOKEN too, where clients were
    /// not told that tokens are taken (RFC 7635 section 7).
    pub(super) fn unknown_in(&self, request: &Message<'_>) -> UnknownAttributes {
        let unexpected = self.settings.auth.tokens.is_none() && request.has(Attribute::AccessToken);
        let unknown = *request.unknown();
        if unexpected { unknown.with(Attribute::AccessToken) } else { unknown }
    }

    /// Who a token is for, or who came with one before: RFC 7635 section 7. `None`
    /// when the request has nothing to do with tokens.
    fn identify_by_token(
        &mut self,
        now: Now,
        from: Client,
        request: &Message<'_>,
        names: &Names<'_>,
        allocation: Option<AllocationId>,
    ) -> Option<Result<(Identity, Key), Reject>> {
        let tokens = self.settings.auth.tokens.clone()?;
        let name = match &names.name {
            Some(LookupName::Name(name)) => Some(&**name),
            Some(LookupName::Hash(_)) | None => None,
        };
        let in_realm = self.directory_of(names).is_some();
        let Some(token) = request.get(Attribute::AccessToken) else {
            // Clients need not send their token again with every request.
            let known = self.table.get(allocation?).filter(|a| !a.is_over(now.mono))?;
            let named = Some(&*known.identity.name) == name && in_realm;
            let ended = known.identity.expires.is_some_and(|at| at < now.unix_secs());
            let is_token = matches!(known.key, Key::Token(_));
            let proven = is_token && named && !ended && verify(request, &known.key);
            return proven.then(|| Ok((known.identity.clone(), known.key)));
        };
        let opened = name.filter(|_| in_realm).and_then(|name| tokens.open(now, name, token));
        let proven = opened.and_then(|(identity, mac_key)| {
            let keys = [mac_key, mac_key.shortened()].map(Key::Token);
            keys.into_iter().find(|key| verify(request, key)).map(|key| (identity, key))
        });
        Some(proven.ok_or_else(|| {
            self.report(from, AuthFailure::BadToken);
            let code = ErrorCode::UNAUTHENTICATED;
            Reject::Challenge(code, code.reason())
        }))
    }

    /// Check 3: protects the choice of algorithm against an attacker on the path
    /// who removes the better ones (RFC 8489 section 9.2.1).
    fn password_algorithm(&self, request: &Message<'_>, nonce: &[u8]) -> Result<Algorithm, Reject> {
        let chosen = request.get(Attribute::PasswordAlgorithm);
        let offered = request.get(Attribute::PasswordAlgorithms);
        if chosen.is_none() && offered.is_none() {
            // Where MD5 is not offered, a client that knows nothing else, or that was
            // kept from seeing the offer, does not get in.
            return if self.settings.auth.algorithms.contains(&Algorithm::Md5) {
                Ok(Algorithm::Md5)
            } else {
                Err(Reject::Challenge(ErrorCode::UNAUTHENTICATED, "PASSWORD-ALGORITHM missing"))
            };
        }
        // Without the announcement the nonce is not ours and will be stale.
        if NonceKey::announces_password_algorithms(nonce) && offered != Some(&self.algorithms) {
            return Err(Reject::bad("PASSWORD-ALGORITHMS differ from the offer"));
        }
        chosen
            .and_then(|value| {
                let (number, parameters) = value.split_first_chunk::<4>()?;
                let [n0, n1, 0, 0] = *number else { return None };
                parameters.is_empty().then_some(u16::from_be_bytes([n0, n1]))
            })
            .and_then(Algorithm::from_number)
            .filter(|algorithm| self.settings.auth.algorithms.contains(algorithm))
            .ok_or_else(|| Reject::bad("PASSWORD-ALGORITHM is not one of the offer"))
    }

    /// Checks 4 and 5.
    fn identify(
        &mut self,
        now: Now,
        from: Client,
        request: &Message<'_>,
        credentials: &Credentials<'_>,
        allocation: Option<AllocationId>,
        external: Option<&ExternalKeys>,
    ) -> Result<(Identity, Key), Reject> {
        if let Some(owner) = self.owner(now, request, credentials, allocation) {
            return Ok(owner);
        }
        let mut tried = false;
        let mut proves = |key: &Key| {
            tried = true;
            verify(request, key)
        };
        let known = self.find_identity(now, credentials, external, &mut proves);
        if let Some(found) = known {
            return Ok(found);
        }
        if !tried
            && external.is_none()
            && let Some(name) = self.to_look_up(credentials)
        {
            self.check_nonce(now, from, request, credentials.names.nonce)?;
            return Err(self.park(now, from, request, name));
        }
        if !tried {
            // As much work for an unknown user as for a wrong password.
            verify(request, &dummy_key(credentials.algorithm));
        }
        self.report(
            from,
            if tried { AuthFailure::WrongPassword } else { AuthFailure::UnknownUser },
        );
        let code = ErrorCode::UNAUTHENTICATED;
        Err(Reject::Challenge(code, code.reason()))
    }

    fn find_identity(
        &self,
        now: Now,
        credentials: &Credentials<'_>,
        external: Option<&ExternalKeys>,
        proves: &mut impl FnMut(&Key) -> bool,
    ) -> Option<(Identity, Key)> {
        let directory = self.directory_of(&credentials.names)?;
        let algorithm = credentials.algorithm;
        let name = match credentials.names.name.as_ref()? {
            LookupName::Name(name) => name,
            LookupName::Hash(hash) => match directory.name_of(hash) {
                Some(name) => name,
                None => return from_outside(external, algorithm, proves),
            },
        };
        directory
            .authenticate(now, name, algorithm, &mut *proves)
            .or_else(|| from_outside(external, algorithm, proves))
    }

    /// The owner of an allocation proves itself with the key it came with; no
    /// lookup is needed. With any other key it is looked up like everybody else.
    fn owner(
        &self,
        now: Now,
        request: &Message<'_>,
        credentials: &Credentials<'_>,
        allocation: Option<AllocationId>,
    ) -> Option<(Identity, Key)> {
        let directory = self.directory_of(&credentials.names)?;
        let allocation = self.table.get(allocation?).filter(|a| !a.is_over(now.mono))?;
        let (identity, key) = (&allocation.identity, allocation.key);
        let ended = self.settings.auth.expiry == ExpiryCheck::Refresh
            && identity.expires.is_some_and(|at| at < now.unix_secs());
        let named = match credentials.names.name.as_ref()? {
            LookupName::Name(name) => *name == identity.name,
            LookupName::Hash(hash) => *hash == userhash(&identity.name, directory.realm()),
        };
        let fits = !ended && named && key.algorithm() == Some(credentials.algorithm);
        (fits && verify(request, &key)).then(|| (identity.clone(), key))
    }

    /// The directory, when the request is for its realm.
    fn directory_of(&self, names: &Names<'_>) -> Option<&Directory> {
        let directory = self.settings.auth.directory.as_deref()?;
        (names.realm == directory.realm().as_bytes()).then_some(directory)
    }

    /// Check 6 alone, for a request that is checked elsewhere.
    pub(super) fn check_nonce_of(
        &mut self,
        now: Now,
        from: Client,
        request: &Message<'_>,
    ) -> Result<(), Reject> {
        self.check_nonce(now, from, request, read_names(request)?.nonce)
    }

    /// Check 6. The nonce is the client's own, or for ConnectionBind that of its
    /// control connection: clients exist that open a data connection with that one
    /// and take no other. A Refresh from a new five-tuple needs a nonce of its own,
    /// or whoever has overheard it could take the allocation elsewhere.
    fn check_nonce(
        &mut self,
        now: Now,
        from: Client,
        request: &Message<'_>,
        nonce: &[u8],
    ) -> Result<(), Reject> {
        let control = self.named_allocation(request).and_then(|id| self.table.get(id));
        let control = control.map(|allocation| allocation.client.five_tuple.client);
        let is_of =
            |client: ClientAddr| self.nonces.check(now, client.socket(), nonce) == Freshness::Valid;
        if is_of(from.five_tuple.client) || control.is_some_and(is_of) {
            return Ok(());
        }
        self.report(from, AuthFailure::StaleNonce);
        let code = ErrorCode::STALE_NONCE;
        Err(Reject::Challenge(code, code.reason()))
    }

    /// The name to ask the shell for, when somebody outside could know it.
    fn to_look_up(&self, credentials: &Credentials<'_>) -> Option<LookupName> {
        self.directory_of(&credentials.names).filter(|_| self.settings.auth.external)?;
        credentials.names.name.clone()
    }

    /// Parks a request until the keys of its user are known.
    fn park(&mut self, now: Now, from: Client, request: &Message<'_>, name: LookupName) -> Reject {
        if self.pending.has(from) {
            return Reject::Drop(DropReason::InProgress);
        }
        if request.bytes().len() > MAX_REQUEST {
            return Reject::bad("request too long");
        }
        if self.pending.len() >= self.settings.limits.pending {
            return Reject::Drop(DropReason::TooManyPending);
        }
        let deadline = now.mono + self.settings.lifetimes.pending;
        let ticket = self.pending.park(from, request.bytes(), name.clone(), deadline);
        self.wheel.arm(deadline, Timer::Pending(ticket));
        self.outputs.push_back(Output::LookupKey { ticket, name });
        Reject::Queued
    }

    /// The answer to a lookup: the parked request goes on.
    pub(super) fn on_key(&mut self, now: Now, ticket: Ticket, user: ExternalKeys) {
        let Some(parked) = self.pending.take(ticket) else { return };
        let Ok(request) = Message::parse(&parked.request) else { return };
        // An answer for another name than was asked is no answer.
        let user = user.filter(|(name, _)| match &parked.name {
            LookupName::Name(asked) => asked == name,
            LookupName::Hash(_) => true,
        });
        let mut reply = [0; super::MAX_REPLY];
        let mut envelope = Envelope::of(&request);
        let granted = self.dispatch_with(
            now,
            parked.client,
            &request,
            &mut envelope,
            Some(&user),
            &mut reply,
        );
        let verdict = self.conclude(now, parked.client, &request, &envelope, granted, &mut reply);
        match verdict {
            super::Verdict::Reply { len } => {
                let message = reply[..len].into();
                self.outputs.push_back(Output::Send { client: parked.client, message });
            }
            super::Verdict::Drop(reason) => self.counters.dropped(reason),
            super::Verdict::Queued
            | super::Verdict::HandOver { .. }
            | super::Verdict::ReplyFrom { .. }
            | super::Verdict::Forward(_) => {}
        }
    }

    pub(super) fn report(&mut self, from: Client, reason: AuthFailure) {
        let event = Event::AuthenticationFailed { five_tuple: from.five_tuple, reason };
        self.outputs.push_back(Output::Event(event));
    }
}

/// Check 2.
fn read_names<'a>(request: &Message<'a>) -> Result<Names<'a>, Reject> {
    let (Some(realm), Some(nonce)) = (request.get(Attribute::Realm), request.get(Attribute::Nonce))
    else {
        return Err(Reject::bad("REALM or NONCE missing"));
    };
    let name = match (request.get(Attribute::Username), request.get(Attribute::Userhash)) {
        (Some(name), _) if name.len() > MAX_USERNAME => {
            return Err(Reject::bad("USERNAME longer than 508 bytes"));
        }
        (Some(name), _) => str::from_utf8(name).ok().map(|name| LookupName::Name(name.into())),
        (None, Some(hash)) => hash.try_into().ok().map(LookupName::Hash),
        (None, None) => return Err(Reject::bad("USERNAME or USERHASH missing")),
    };
    Ok(Names { name, realm, nonce })
}

fn from_outside(
    external: Option<&ExternalKeys>,
    algorithm: Algorithm,
    proves: &mut impl FnMut(&Key) -> bool,
) -> Option<(Identity, Key)> {
    let (name, keys) = external?.as_ref()?;
    let key = keys.get(algorithm).filter(|key| proves(key))?;
    Some((Identity { name: name.clone(), user: name.clone(), expires: None }, key))
}

/// MESSAGE-INTEGRITY-SHA256 counts when it is there, else MESSAGE-INTEGRITY.
fn verify(request: &Message<'_>, key: &Key) -> bool {
    if request.has(Attribute::MessageIntegritySha256) {
        verify_sha256(request, key.bytes())
    } else {
        verify_sha1(request, key.bytes())
    }
}

/// Clients that took part in the choice of algorithm get SHA-256 (RFC 8489
/// section 9.2.4, last paragraph), all others what they know.
fn response_integrity(request: &Message<'_>, key: &Key) -> Integrity {
    // With a token there is no algorithm to choose: the client gets what it sent.
    let only_sha256 =
        request.has(Attribute::MessageIntegritySha256) && !request.has(Attribute::MessageIntegrity);
    let modern = request.has(Attribute::PasswordAlgorithm)
        || request.has(Attribute::PasswordAlgorithms)
        || matches!(key, Key::Token(_)) && only_sha256;
    if modern { Integrity::Sha256 } else { Integrity::Sha1 }
}

fn dummy_key(algorithm: Algorithm) -> Key {
    match algorithm {
        Algorithm::Md5 => Key::Md5([0; 16]),
        Algorithm::Sha256 => Key::Sha256([0; 32]),
    }
}
