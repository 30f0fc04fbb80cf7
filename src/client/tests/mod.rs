//! The client against canned responses that `stun-rs` has built.

mod authentication;
mod data;
mod requests;
mod retransmission;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use stun_rs::attributes::stun::{
    ErrorCode, Nonce, PasswordAlgorithm, PasswordAlgorithms, Realm, XorMappedAddress,
};
use stun_rs::attributes::turn::{LifeTime, XorRelayedAddress};
use stun_rs::{
    Algorithm, AlgorithmId, HMACKey, MessageDecoderBuilder, StunAttributeType, StunMessage,
};

use super::*;
use crate::client::challenge::{Integrity, Signature};

pub(super) const USER: &str = "alice";
pub(super) const PASSWORD: &str = "wonderland";
pub(super) const REALM: &str = "example.org";
/// A nonce without cookie: the server speaks RFC 5389.
pub(super) const NONCE: &str = "f00dcafe";

pub(super) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
pub(super) fn start() -> Now {
    Now { mono: Instant::now(), unix: Duration::from_secs(1_700_000_000) }
}

pub(super) fn client(transport: Transport) -> Client {
    Client::new(Config::new(transport, USER, PASSWORD, [7; 32]))
}

/// A request that the client has just sent.
pub(super) struct Sent {
    pub(super) bytes: Vec<u8>,
    pub(super) message: StunMessage,
}

impl Sent {
    pub(super) fn has<A: StunAttributeType>(&self) -> bool {
        self.message.get::<A>().is_some()
    }

    pub(super) fn nonce(&self) -> &str {
        self.message.get::<Nonce>().unwrap().as_nonce().unwrap().as_str()
    }

    /// Whether the request is signed so that its receiver can verify it.
    pub(super) fn is_signed_with(&self, signature: &Signature) -> bool {
        codec::Message::decode(&self.bytes).unwrap().verify(signature) == Some(true)
    }

    pub(super) fn reply(
        &self,
        class: MessageClass,
        attributes: &[Attribute],
        signature: Option<&Signature>,
    ) -> Vec<u8> {
        let id = *self.message.transaction_id().as_bytes();
        codec::encode(class, self.message.method(), id, attributes, signature, true).unwrap()
    }

    pub(super) fn success(&self, attributes: &[Attribute]) -> Vec<u8> {
        self.reply(MessageClass::SuccessResponse, attributes, Some(&legacy_signature()))
    }

    pub(super) fn error(&self, code: u16, mut attributes: Vec<Attribute>) -> Vec<u8> {
        attributes.insert(0, error_code(code));
        let signed = ![401, 438].contains(&code);
        let signature = legacy_signature();
        self.reply(MessageClass::ErrorResponse, &attributes, signed.then_some(&signature))
    }
}

pub(super) fn error_code(code: u16) -> Attribute {
    ErrorCode::new(stun_rs::ErrorCode::new(code, "reason").unwrap()).into()
}

/// The next message of the client, which has to be there and to be STUN.
pub(super) fn sent(client: &mut Client) -> Sent {
    let bytes = client.poll_transmit().expect("the client has something to send");
    let (message, _) = MessageDecoderBuilder::default().build().decode(&bytes).unwrap();
    Sent { bytes, message }
}

pub(super) fn legacy_signature() -> Signature {
    let key = HMACKey::new_long_term(USER, REALM, PASSWORD, Algorithm::from(AlgorithmId::MD5));
    Signature { key: key.unwrap(), integrity: Integrity::Sha1 }
}

pub(super) fn challenge(nonce: &str) -> Vec<Attribute> {
    vec![Realm::new(REALM).unwrap().into(), Nonce::new(nonce).unwrap().into()]
}

pub(super) fn algorithms(list: &[AlgorithmId]) -> Attribute {
    let list: Vec<_> = list.iter().map(|id| PasswordAlgorithm::new(Algorithm::from(*id))).collect();
    PasswordAlgorithms::from(list).into()
}

pub(super) fn granted() -> Vec<Attribute> {
    vec![
        XorRelayedAddress::from(addr("198.51.100.1:50000")).into(),
        XorMappedAddress::from(addr("192.0.2.9:4000")).into(),
        LifeTime::new(600).into(),
    ]
}

/// A client of an RFC 5389 server, past challenge and Allocate.
pub(super) fn allocated(mut config: Config, now: Now) -> Client {
    config.security = Security::Legacy;
    let mut client = Client::new(config);
    let transaction = client.allocate(now, Allocate::default());
    let first = sent(&mut client);
    client.handle_receive(now, &first.error(401, challenge(NONCE)));
    let second = sent(&mut client);
    client.handle_receive(now, &second.success(&granted()));
    match client.poll_event() {
        Some(Event::Allocated(done)) => assert_eq!(done.transaction, transaction),
        other => panic!("not allocated: {other:?}"),
    }
    client
}
