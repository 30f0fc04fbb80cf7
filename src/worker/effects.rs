//! Carries out what the core asks for.

use super::Worker;
use super::mailbox::Mail;
use super::token::Token;
use crate::io::{Body, Outgoing};
use crate::net::Now;
use crate::turn::{
    Client, Event, Input, Output, PortRequest, RelayId, RelayTransport, ShardMessage, Traffic,
};

impl Worker {
    /// Does everything that the core has asked for since the last time.
    pub(super) fn carry_out(&mut self, now: Now) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Send { client, message } => self.send_message(now, client, &message),
                Output::OpenRelay { relay, port, transport: RelayTransport::Udp } => {
                    self.open_relay(now, relay, port);
                }
                Output::OpenRelay { relay, transport: RelayTransport::Tcp, .. } => {
                    self.open_tcp_relay(now, relay);
                }
                Output::CloseRelay { relay } => {
                    self.relays.close(relay);
                    self.close_tcp_relay(relay);
                }
                Output::ReleasePort { reserved } => self.relays.release(reserved),
                Output::ToShard { shard, message } => {
                    let held = match &message {
                        ShardMessage::ReservationAnswer { reserved: Some(reserved), .. } => {
                            self.relays.hand_over(*reserved)
                        }
                        _ => None,
                    };
                    self.mail.send(shard, message, held);
                }
                // There are no user stores outside the configuration.
                Output::LookupKey { ticket, .. } => {
                    self.core.handle_input(now, Input::Key { ticket, user: None });
                }
                Output::ConnectPeer { relay, connection, peer, relays_only } => {
                    self.connect_peer(now, relay, connection, peer, relays_only);
                }
                Output::CancelConnect { connection } => self.cancel_connect(connection),
                Output::Splice { client, peer } => self.splice(now, client, peer),
                Output::ClosePeer { link } => self.close_peer(link),
                // For accelerators below the core; there is none to tell.
                Output::Route(_) => {}
                Output::Event(event) => log(event),
            }
        }
    }

    pub(super) fn on_mail(&mut self, now: Now) {
        let mut taken = 0;
        while let Some(mail) = self.mail.receive(&mut taken) {
            match mail {
                Mail::Shard { from, message, held } => {
                    if let Some(held) = held {
                        self.relays.take_over(held);
                    }
                    self.core.handle_input(now, Input::FromShard { shard: from, message });
                }
                Mail::Connection(moving) => self.on_moved_here(now, moving),
                Mail::Certificates(certificates) => self.certificates = Some(certificates),
                Mail::Stop => {
                    self.stopping = true;
                    return;
                }
            }
        }
    }

    fn open_relay(&mut self, now: Now, relay: RelayId, port: PortRequest) {
        let input = match self.relays.open(relay, port, &self.poll) {
            Ok(opened) => Input::RelayOpened {
                relay,
                local: opened.local,
                advertised: opened.advertised,
                reserved: opened.reserved,
            },
            Err(error) => {
                tracing::debug!(%error, family = %relay.family, "cannot open a relay socket");
                Input::RelayFailed { relay }
            }
        };
        self.core.handle_input(now, input);
    }

    /// Sends a message that the core made out of turn.
    fn send_message(&mut self, now: Now, client: Client, message: &[u8]) {
        if self.arena.free_slots() == 0 {
            self.flush(now);
        }
        let Some(slot) = self.arena.take() else { return };
        self.arena.bytes_mut(slot)[..message.len()].copy_from_slice(message);
        let body = Body { slot, start: 0, end: message.len() as u32 };
        let mut outgoing = Outgoing::new(client.five_tuple.client.socket(), body);
        match Token::decode(client.link.0) {
            Token::Udp(index) => {
                outgoing.from = self.udp[index as usize].source(client.five_tuple.server);
                self.egress.add_for_listener(index as usize, outgoing);
            }
            Token::Connection(id) => {
                self.egress.add_for_connection(&mut self.connections, id, outgoing);
            }
            Token::Dtls(id) => self.send_to_dtls(id, &outgoing),
            Token::Relay(_)
            | Token::Tcp(_)
            | Token::TcpRelay(_)
            | Token::Peer(_)
            | Token::Mailbox => {}
        }
    }
}

/// One line per allocation begin and end; what strangers cause is for `debug`.
fn log(event: Event) {
    match event {
        Event::AllocationCreated { allocation, five_tuple, username, relayed, lifetime } => {
            tracing::info!(
                %allocation,
                user = %username,
                client = %five_tuple.client,
                server = %five_tuple.server,
                transport = %five_tuple.transport,
                relayed = %Addresses(relayed),
                lifetime = lifetime.as_secs(),
                "allocation created"
            );
        }
        Event::AllocationEnded {
            allocation,
            five_tuple,
            username,
            relayed,
            age,
            traffic,
            reason,
        } => {
            let Traffic { packets_to_peers, bytes_to_peers, packets_to_client, bytes_to_client } =
                traffic;
            tracing::info!(
                %allocation,
                user = %username,
                client = %five_tuple.client,
                transport = %five_tuple.transport,
                relayed = %Addresses(relayed),
                seconds = age.as_secs_f64(),
                packets_to_peers,
                bytes_to_peers,
                packets_to_client,
                bytes_to_client,
                reason = %reason,
                "allocation ended"
            );
        }
        Event::PeerDenied { five_tuple, username, peer, rule } => {
            tracing::debug!(user = %username, client = %five_tuple.client, %peer, rule, "peer denied");
        }
        Event::PeerConnectionBound { allocation, five_tuple, username, peer } => {
            tracing::debug!(%allocation, user = %username, client = %five_tuple.client, %peer, "peer connection bound");
        }
        Event::PeerConnectionEnded { allocation, peer, age, reason } => {
            tracing::debug!(%allocation, %peer, seconds = age.as_secs_f64(), %reason, "peer connection ended");
        }
        Event::AuthenticationFailed { five_tuple, reason } => {
            tracing::debug!(client = %five_tuple.client, transport = %five_tuple.transport, %reason, "not authenticated");
        }
    }
}

/// Relayed transport addresses of an allocation, one or two.
struct Addresses([Option<std::net::SocketAddr>; 2]);

impl std::fmt::Display for Addresses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut separator = "";
        for address in self.0.iter().flatten() {
            write!(f, "{separator}{address}")?;
            separator = ",";
        }
        Ok(())
    }
}
