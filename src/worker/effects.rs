//! Carries out what the core asks for.

use super::Worker;
use super::mailbox::Mail;
use super::relay_sockets::Held;
use super::token::Token;
use crate::io::Outgoing;
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
                    let held = self.hand_over_with(&message);
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

    /// The sockets that change hands with a message.
    fn hand_over_with(&mut self, message: &ShardMessage) -> Vec<Held> {
        if let ShardMessage::ReservationAnswer { reserved: Some(reserved), .. } = message {
            return self.relays.hand_over(*reserved).into_iter().collect();
        }
        let moved = message.moved_relays();
        moved.filter_map(|(id, _)| self.relays.detach(id, &self.poll)).collect()
    }

    /// Takes over the sockets that came with a message, then tells the core.
    fn on_shard_message(&mut self, now: Now, from: u16, message: ShardMessage, held: Vec<Held>) {
        let moved: Vec<RelayId> = message.moved_relays().map(|(_, id)| id).collect();
        let mut lost = moved.clone();
        for held in held {
            let Some(&id) = moved.iter().find(|id| id.family == held.family()) else {
                self.relays.take_over(held);
                continue;
            };
            // Without room for its events the socket is closed already.
            if self.relays.attach(id, held, &self.poll).is_ok() {
                lost.retain(|lost| *lost != id);
            }
        }
        self.core.handle_input(now, Input::FromShard { shard: from, message });
        for relay in lost {
            self.core.handle_input(now, Input::RelayFailed { relay });
        }
    }

    pub(super) fn on_mail(&mut self, now: Now) {
        let mut taken = 0;
        while let Some(mail) = self.mail.receive(&mut taken) {
            match mail {
                Mail::Shard { from, message, held } => {
                    self.on_shard_message(now, from, message, held);
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
        let Some(body) = self.arena.store(message) else { return };
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
            | Token::Backend(_)
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
        Event::AllocationMoved { allocation, five_tuple, previous, username, relayed } => {
            tracing::info!(
                %allocation,
                user = %username,
                client = %five_tuple.client,
                transport = %five_tuple.transport,
                previous = %previous.client,
                relayed = %Addresses(relayed),
                "allocation moved"
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
