//! The requests that make a relay ready: Allocate, ChannelBind, CreatePermission.
//!
//! Encoded by stun-rs, which shares no code with the server under test.

use std::net::{SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use stun_rs::attributes::stun::{ErrorCode, MessageIntegrity, Nonce, Realm, UserName};
use stun_rs::attributes::turn::{
    ChannelNumber, RequestedTrasport, XorPeerAddress, XorRelayedAddress,
};
use stun_rs::methods::{ALLOCATE, BINDING, CHANNEL_BIND, CREATE_PERMMISSION};
use stun_rs::{
    Algorithm, AlgorithmId, HMACKey, MessageClass, MessageDecoderBuilder, MessageEncoderBuilder,
    MessageMethod, StunMessage, StunMessageBuilder, protocols,
};

use crate::Outcome;
use crate::clients::Clients;
use crate::fleet::channel;
use crate::packet::By;
use crate::sys::{Batch, SLOT};

/// The account that every allocation uses.
pub(crate) const USER: &str = "u";
pub(crate) const PASSWORD: &str = "p";
pub(crate) const REALM: &str = "bench";

/// A request unanswered for so long is sent again (RFC 8489 section 6.2.1).
const RETRANSMIT: Duration = Duration::from_millis(500);
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// The control connection of all clients to one server.
pub(crate) struct Control<'a> {
    server: SocketAddrV4,
    clients: &'a Clients,
    batch: Batch,
}

impl<'a> Control<'a> {
    pub(crate) fn new(server: SocketAddrV4, clients: &'a Clients) -> Self {
        Self { server, clients, batch: Batch::new(1) }
    }

    /// Whether the server answers a Binding request within `patience`.
    pub(crate) fn answers(&mut self, patience: Duration) -> bool {
        let request = StunMessageBuilder::new(BINDING, MessageClass::Request).build();
        self.exchange(0, &request, patience).is_ok()
    }

    /// Allocates for client `flow`.
    pub(crate) fn allocate(&mut self, flow: usize) -> Outcome<Allocation> {
        let transport = RequestedTrasport::new(protocols::UDP);
        let request = StunMessageBuilder::new(ALLOCATE, MessageClass::Request)
            .with_attribute(transport.clone())
            .build();
        let challenge = self.exchange(flow, &request, ANSWER_DEADLINE)?;
        let credentials = Credentials::answer_to(&challenge)?;

        let request = credentials.request(ALLOCATE).with_attribute(transport);
        let answer = self.succeed(flow, &credentials.seal(request))?;
        let relayed = answer.get::<XorRelayedAddress>().ok_or("no XOR-RELAYED-ADDRESS")?;
        match relayed.as_xor_relayed_address()?.socket_address() {
            SocketAddr::V4(relayed) => Ok(Allocation { relayed: *relayed, credentials }),
            SocketAddr::V6(relayed) => Err(format!("relayed address {relayed}").into()),
        }
    }

    /// Opens the way between the `allocation` of client `flow` and `peer`.
    pub(crate) fn open(
        &mut self,
        flow: usize,
        allocation: &Allocation,
        by: By,
        peer: SocketAddrV4,
    ) -> Outcome<()> {
        let credentials = &allocation.credentials;
        let peer = XorPeerAddress::from(SocketAddr::V4(peer));
        let request = match by {
            By::Channel => credentials
                .request(CHANNEL_BIND)
                .with_attribute(ChannelNumber::new(channel(flow)))
                .with_attribute(peer),
            By::Send => credentials.request(CREATE_PERMMISSION).with_attribute(peer),
        };
        self.succeed(flow, &credentials.seal(request)).map(drop)
    }

    fn succeed(&mut self, flow: usize, request: &StunMessage) -> Outcome<StunMessage> {
        let answer = self.exchange(flow, request, ANSWER_DEADLINE)?;
        if answer.class() != MessageClass::SuccessResponse {
            let error = answer.get::<ErrorCode>().map(|code| format!("{code:?}"));
            return Err(format!("{:?}: {}", request.method(), error.unwrap_or_default()).into());
        }
        Ok(answer)
    }

    /// Sends `request` from client `flow` until its answer comes.
    fn exchange(
        &mut self,
        flow: usize,
        request: &StunMessage,
        patience: Duration,
    ) -> Outcome<StunMessage> {
        let encoder = MessageEncoderBuilder::default().build();
        let mut bytes = [0; SLOT];
        let length = encoder
            .encode(&mut bytes, request)
            .map_err(|error| format!("cannot encode: {error:?}"))?;
        let start = Instant::now();
        let mut sent: Option<Instant> = None;
        while start.elapsed() < patience {
            // A stream delivers by itself.
            let again = matches!(self.clients, Clients::Datagrams(_));
            if sent.is_none_or(|sent| again && sent.elapsed() > RETRANSMIT) {
                self.clients.send(&mut self.batch, flow, &bytes[..length], self.server)?;
                sent = Some(Instant::now());
            }
            let mut answer = None;
            let arrived = self.clients.receive(&mut self.batch, |bytes| {
                let decoded = MessageDecoderBuilder::default().build().decode(bytes);
                let message = decoded.ok().map(|(message, _)| message);
                answer = message
                    .filter(|message| message.transaction_id() == request.transaction_id())
                    .or(answer.take());
            })?;
            if let Some(answer) = answer {
                return Ok(answer);
            }
            if !arrived {
                std::thread::yield_now();
            }
        }
        Err(format!("{:?}: no answer within {patience:?}", request.method()).into())
    }
}

/// What a client holds after Allocate.
pub(crate) struct Allocation {
    /// The relayed transport address.
    pub(crate) relayed: SocketAddrV4,
    credentials: Credentials,
}

/// Long-term credentials (RFC 8489 section 9.2) for the server's challenge.
struct Credentials {
    user: UserName,
    realm: Realm,
    nonce: Nonce,
    key: HMACKey,
}

impl Credentials {
    fn answer_to(challenge: &StunMessage) -> Outcome<Self> {
        let user = UserName::new(USER)?;
        let realm = challenge.get::<Realm>().ok_or("401 without REALM")?.as_realm()?.clone();
        let nonce = challenge.get::<Nonce>().ok_or("401 without NONCE")?.as_nonce()?.clone();
        let algorithm = Algorithm::from(AlgorithmId::MD5);
        let key = HMACKey::new_long_term(&user, &realm, PASSWORD, algorithm)?;
        Ok(Self { user, realm, nonce, key })
    }

    fn request(&self, method: MessageMethod) -> StunMessageBuilder {
        StunMessageBuilder::new(method, MessageClass::Request)
            .with_attribute(self.user.clone())
            .with_attribute(self.realm.clone())
            .with_attribute(self.nonce.clone())
    }

    fn seal(&self, request: StunMessageBuilder) -> StunMessage {
        request.with_attribute(MessageIntegrity::new(self.key.clone())).build()
    }
}
