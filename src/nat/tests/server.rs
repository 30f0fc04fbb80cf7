//! A server of RFC 5780, or of something like it. It shares no code with the
//! client under test.

use std::net::{IpAddr, SocketAddr};

use super::addr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    Binding,
    Silent,
    Garbage,
    Echo,
    WrongTransaction,
    Error(u16),
    AnswersFrom(SocketAddr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Honoured,
    Ignored,
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponsePort {
    /// With an attribute of this length.
    Honoured(usize),
    Ignored,
    Refused,
}

#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) primary: SocketAddr,
    /// The other address and port it has.
    pub(super) alternate: SocketAddr,
    /// What it says of them.
    pub(super) other_address: Option<SocketAddr>,
    pub(super) udp: Behaviour,
    pub(super) tcp: Behaviour,
    /// TCP ports that accept besides those of the addresses.
    pub(super) https: Behaviour,
    /// A firewall drops connections to all ports but 443.
    pub(super) web_only: bool,
    pub(super) change: Change,
    pub(super) response_port: ResponsePort,
    pub(super) pads: bool,
    pub(super) alternate_is_silent: bool,
}

impl Server {
    pub(super) fn new() -> Self {
        let alternate = addr("198.51.100.2:3479");
        Self {
            primary: addr("198.51.100.1:3478"),
            alternate,
            other_address: Some(alternate),
            udp: Behaviour::Binding,
            tcp: Behaviour::Binding,
            https: Behaviour::Silent,
            web_only: false,
            change: Change::Honoured,
            response_port: ResponsePort::Honoured(2),
            pads: true,
            alternate_is_silent: false,
        }
    }

    /// The answer to a datagram: from where, to where, and what.
    pub(super) fn on_udp(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
    ) -> Option<(SocketAddr, SocketAddr, Vec<u8>)> {
        let answers = [self.primary.ip(), self.alternate.ip()].contains(&to.ip())
            && [self.primary.port(), self.alternate.port()].contains(&to.port());
        let silent = self.alternate_is_silent && to != self.primary;
        if !answers || silent {
            return None;
        }
        self.answer(self.udp, from, to, bytes)
    }

    /// The answer to a message on a connection.
    pub(super) fn on_tcp(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> Option<Vec<u8>> {
        let behaviour = if to.port() == 443 { self.https } else { self.tcp };
        self.answer(behaviour, from, to, bytes).map(|(_, _, bytes)| bytes)
    }

    pub(super) fn accepts(&self, to: SocketAddr) -> bool {
        let behaviour = if to.port() == 443 { self.https } else { self.tcp };
        behaviour != Behaviour::Silent
    }

    fn answer(
        &self,
        behaviour: Behaviour,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
    ) -> Option<(SocketAddr, SocketAddr, Vec<u8>)> {
        let mut id: [u8; 12] = bytes[8..20].try_into().unwrap();
        let mut origin = to;
        match behaviour {
            Behaviour::Silent => return None,
            Behaviour::Garbage => return Some((to, from, b"220 mail.example.org ESMTP".to_vec())),
            Behaviour::Echo => return Some((to, from, bytes.to_vec())),
            Behaviour::Error(code) => return Some((to, from, error(id, code))),
            Behaviour::AnswersFrom(elsewhere) => origin = elsewhere,
            Behaviour::WrongTransaction => id[0] ^= 1,
            Behaviour::Binding => {}
        }
        let mut destination = from;
        let mut padding = 0;
        if let Some((kind, value)) = first_attribute(bytes) {
            match kind {
                3 => match self.change {
                    Change::Honoured => origin = self.change(to, value[3]),
                    Change::Ignored => {}
                    Change::Refused => return Some((to, from, error(id, 420))),
                },
                0x26 if self.pads => padding = 1500,
                0x26 => return Some((to, from, error(id, 420))),
                0x27 => match self.response_port {
                    ResponsePort::Honoured(length) if length == value.len() => {
                        destination.set_port(u16::from_be_bytes([value[0], value[1]]));
                    }
                    ResponsePort::Honoured(_) => return Some((to, from, error(id, 400))),
                    ResponsePort::Refused => return Some((to, from, error(id, 420))),
                    ResponsePort::Ignored => {}
                },
                _ => return Some((to, from, error(id, 420))),
            }
        }
        Some((origin, destination, self.success(id, from, origin, padding)))
    }

    fn change(&self, to: SocketAddr, flags: u8) -> SocketAddr {
        let other = |mine: IpAddr| {
            if mine == self.primary.ip() { self.alternate.ip() } else { self.primary.ip() }
        };
        let other_port = |mine: u16| {
            if mine == self.primary.port() { self.alternate.port() } else { self.primary.port() }
        };
        let ip = if flags & 4 != 0 { other(to.ip()) } else { to.ip() };
        let port = if flags & 2 != 0 { other_port(to.port()) } else { to.port() };
        SocketAddr::new(ip, port)
    }

    fn success(
        &self,
        id: [u8; 12],
        from: SocketAddr,
        origin: SocketAddr,
        padding: usize,
    ) -> Vec<u8> {
        let mut body = Vec::new();
        attribute(&mut body, 0x20, &xored(id, from));
        attribute(&mut body, 0x802B, &plain(origin));
        if let Some(other) = self.other_address {
            attribute(&mut body, 0x802C, &plain(other));
        }
        if padding > 0 {
            // Not UTF-8, as the padding of a server need not be.
            attribute(&mut body, 0x26, &vec![0xFF; padding]);
        }
        message(0x0101, id, &body)
    }
}

fn first_attribute(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let kind = u16::from_be_bytes(bytes.get(20..22)?.try_into().unwrap());
    let length = usize::from(u16::from_be_bytes(bytes[22..24].try_into().unwrap()));
    Some((kind, &bytes[24..24 + length]))
}

fn error(id: [u8; 12], code: u16) -> Vec<u8> {
    let mut body = Vec::new();
    let mut value = vec![0, 0, (code / 100) as u8, (code % 100) as u8];
    value.extend(b"No");
    attribute(&mut body, 9, &value);
    message(0x0111, id, &body)
}

fn message(kind: u16, id: [u8; 12], body: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_be_bytes().to_vec();
    bytes.extend((body.len() as u16).to_be_bytes());
    bytes.extend([0x21, 0x12, 0xA4, 0x42]);
    bytes.extend(id);
    bytes.extend(body);
    bytes
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend(kind.to_be_bytes());
    body.extend((value.len() as u16).to_be_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn plain(address: SocketAddr) -> Vec<u8> {
    let mut value = vec![0, if address.is_ipv4() { 1 } else { 2 }];
    value.extend(address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => value.extend(ip.octets()),
        IpAddr::V6(ip) => value.extend(ip.octets()),
    }
    value
}

fn xored(id: [u8; 12], address: SocketAddr) -> Vec<u8> {
    let mut value = plain(address);
    let mut mask = vec![0, 0, 0x21, 0x12, 0x21, 0x12, 0xA4, 0x42];
    mask.extend(id);
    value.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    value
}
