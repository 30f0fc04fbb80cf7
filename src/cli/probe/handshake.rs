//! The first steps of a way: socket, TCP connection, TLS or DTLS handshake; and, where
//! these fail, a second look at what speaks behind the port.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, UdpSocket};
use tokio::time::Instant;

use super::super::identity::Identity;
use super::calendar;
use super::certificate::{self, Certificate};
use super::finding::Finding;
use super::link::{self, Link, LinkError, Socket, now};
use super::tap::Speaker;
use super::tell::describe;
use super::tls::{Broken, Handshake, Secure};
use super::walk::{Stop, Walk, stream};
use crate::net::Transport;

/// How long a second look may take.
const SECOND_LOOK: Duration = Duration::from_millis(1500);

impl Walk<'_> {
    /// Opens the way as nobody in particular and tells of it.
    pub(super) async fn connect(&mut self, address: SocketAddr) -> Result<Link, Stop> {
        let started = Instant::now();
        let connected = match self.transport {
            Transport::Udp => {
                link::udp(address, self.settings.source).await.map(|(s, l)| (Socket::Udp(s), l))
            }
            Transport::Tcp => match self.tcp(address).await {
                Ok((tcp, local)) => {
                    self.went_well("connect", started, format!("from {local}"));
                    Ok(stream(tcp, local))
                }
                Err(error) => Err(error),
            },
            Transport::Tls | Transport::Dtls => match self.carrier(address).await {
                Ok((carrier, local)) => {
                    if self.transport.is_stream() {
                        self.went_well("connect", started, format!("from {local}"));
                    }
                    Ok(self.secure((carrier, local), address).await?)
                }
                Err(error) => Err(error),
            },
        };
        match connected.and_then(|connected| self.link(connected, &Identity::default())) {
            Ok(link) => Ok(link),
            Err(error) => self.broke("connect", started, &error),
        }
    }

    /// Opens the way once more, without a word.
    pub(super) async fn open(
        &self,
        address: SocketAddr,
        identity: &Identity,
    ) -> Result<Link, LinkError> {
        let connected = match self.transport {
            Transport::Udp => {
                let (socket, local) = link::udp(address, self.settings.source).await?;
                (Socket::Udp(socket), local)
            }
            Transport::Tcp => {
                let (tcp, local) = self.tcp(address).await?;
                stream(tcp, local)
            }
            Transport::Tls | Transport::Dtls => {
                let (carrier, local) = self.carrier(address).await?;
                // The certificate was judged the first time.
                match self.shake_hands(carrier, false, true).await.stream {
                    Ok(secure) => (socket(secure), local),
                    Err(Broken::Link(error)) => return Err(error),
                    Err(_) => return Err(LinkError::Closed),
                }
            }
        };
        self.link(connected, identity)
    }

    /// Why nobody answered Binding: a stream may have been meant for TLS.
    pub(super) async fn judge_silence(&self, address: SocketAddr, error: &LinkError) -> Finding {
        let suspicious = matches!(error, LinkError::Silent | LinkError::Closed);
        if self.transport == Transport::Tcp && suspicious && self.speaks_tls(address).await {
            return Finding::TlsOnPlainPort;
        }
        self.judge(error)
    }

    async fn tcp(&self, address: SocketAddr) -> Result<(TcpStream, SocketAddr), LinkError> {
        link::tcp(address, self.settings.source, self.patience()).await
    }

    /// What TLS or DTLS is to run over.
    async fn carrier(&self, address: SocketAddr) -> Result<(Carrier, SocketAddr), LinkError> {
        if self.transport == Transport::Dtls {
            let (socket, local) = link::udp(address, self.settings.source).await?;
            return Ok((Carrier::Udp(socket), local));
        }
        let (tcp, local) = self.tcp(address).await?;
        Ok((Carrier::Tcp(tcp), local))
    }

    fn link(
        &self,
        connected: (Socket, SocketAddr),
        identity: &Identity,
    ) -> Result<Link, LinkError> {
        let settings = self.settings;
        let (patience, deadline) = (settings.patience, settings.deadline);
        let interrupted = settings.interrupted.clone();
        Link::new(connected, self.transport, identity, patience, deadline, interrupted)
    }

    /// When the step that begins now is given up.
    fn patience(&self) -> Instant {
        (Instant::now() + self.settings.patience).min(self.settings.deadline)
    }

    async fn shake_hands(&self, carrier: Carrier, alpn: bool, insecure: bool) -> Handshake {
        let (trust, host) = (&self.settings.trust, &self.settings.uri.host);
        let until = self.patience();
        match carrier {
            Carrier::Tcp(tcp) => trust.handshake(tcp, host, alpn, insecure, until).await,
            Carrier::Udp(udp) => trust.datagram_handshake(udp, host, alpn, insecure, until).await,
        }
    }

    /// The handshake, and what it has shown.
    async fn secure(
        &mut self,
        (carrier, mut local): (Carrier, SocketAddr),
        address: SocketAddr,
    ) -> Result<(Socket, SocketAddr), Stop> {
        let name = if self.transport == Transport::Dtls { "dtls" } else { "tls" };
        let started = Instant::now();
        let insecure = self.settings.insecure;
        let mut shaken = self.shake_hands(carrier, true, insecure).await;
        let mut finding = None;
        if matches!(shaken.stream, Err(Broken::Alpn)) {
            finding = Some(Finding::AlpnRefused);
            shaken = match self.carrier(address).await {
                Ok((carrier, again)) => {
                    local = again;
                    self.shake_hands(carrier, false, insecure).await
                }
                Err(error) => return self.broke(name, started, &error),
            };
        }
        let finding = shaken.problem.clone().or_else(|| shaken.expires_soon()).or(finding);
        let certificate = shaken.certificate.as_ref().map(describe_certificate);
        let secure = match (shaken.stream, finding) {
            (Ok(secure), None) => {
                self.went_well(name, started, whole(&secure.agreement(), certificate));
                secure
            }
            (Ok(secure), Some(finding)) => {
                let detail = whole(&secure.agreement(), certificate);
                self.overlooked(name, started, detail, finding);
                secure
            }
            (Err(_), Some(finding)) if shaken.problem.is_some() => {
                let detail = certificate.unwrap_or_default();
                return self.fails(name, started, &detail, finding);
            }
            (Err(broken), _) => {
                let (detail, finding) = self.judge_handshake(address, broken).await;
                return self.fails(name, started, &detail, finding);
            }
        };
        Ok((socket(secure), local))
    }

    /// Why a handshake failed that did not come to a certificate.
    async fn judge_handshake(&self, address: SocketAddr, broken: Broken) -> (String, Finding) {
        let detail = match &broken {
            Broken::Alpn => "the server refuses ALPN, and without it too".to_owned(),
            Broken::Tls(why) => why.clone(),
            Broken::NotTls if self.transport == Transport::Dtls => {
                "the answer is not DTLS".to_owned()
            }
            Broken::NotTls => "the answer is not TLS".to_owned(),
            Broken::Link(error) => describe(error),
        };
        let finding = match self.speaker(address).await {
            Some(Speaker::Stun) => Finding::PlainOnTlsPort,
            Some(Speaker::Http) => Finding::Http,
            Some(Speaker::Unknown) => Finding::NotStun,
            Some(Speaker::Tls) | None => match broken {
                Broken::Link(error) if !matches!(error, LinkError::Closed) => self.judge(&error),
                _ => Finding::HandshakeFailed,
            },
        };
        (detail, finding)
    }

    /// What speaks behind a port when it is asked in plain STUN.
    async fn speaker(&self, address: SocketAddr) -> Option<Speaker> {
        let deadline = (Instant::now() + SECOND_LOOK).min(self.settings.deadline);
        let source = self.settings.source;
        let (plain, transport) = if self.transport == Transport::Dtls {
            let (udp, local) = link::udp(address, source).await.ok()?;
            ((Socket::Udp(udp), local), Transport::Udp)
        } else {
            let (tcp, local) = link::tcp(address, source, deadline).await.ok()?;
            (stream(tcp, local), Transport::Tcp)
        };
        let nobody = Identity::default();
        let mut link = Link::new(
            plain,
            transport,
            &nobody,
            SECOND_LOOK,
            deadline,
            self.settings.interrupted.clone(),
        )
        .ok()?;
        let transaction = link.client().binding(now());
        let _ = link.finish(transaction).await;
        link.tap().speaker()
    }

    /// Whether TLS is spoken behind a port.
    async fn speaks_tls(&self, address: SocketAddr) -> bool {
        let deadline = (Instant::now() + SECOND_LOOK).min(self.settings.deadline);
        let Ok((tcp, _)) = link::tcp(address, self.settings.source, deadline).await else {
            return false;
        };
        let host = &self.settings.uri.host;
        let shaken = self.settings.trust.handshake(tcp, host, false, true, deadline).await;
        shaken.stream.is_ok() || shaken.certificate.is_some()
    }
}

/// What a handshake goes over.
enum Carrier {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

fn socket(secure: Secure) -> Socket {
    match secure {
        Secure::Tls(stream) => Socket::Stream(stream),
        Secure::Dtls(dtls) => Socket::Dtls(dtls),
    }
}

fn whole(agreement: &str, certificate: Option<String>) -> String {
    match certificate {
        Some(certificate) => format!("{agreement}; {certificate}"),
        None => agreement.to_owned(),
    }
}

fn describe_certificate(certificate: &Certificate) -> String {
    let now = now().unix_secs();
    let (begin, end) = (certificate.not_before, certificate.not_after);
    let validity = if now < begin {
        format!("begins in {}", calendar::span(begin - now))
    } else if now < end {
        format!("ends in {}", calendar::span(end - now))
    } else {
        format!("ended {} ago", calendar::span(now - end))
    };
    let subject = match certificate.subject.as_str() {
        "" => "without a subject",
        subject => subject,
    };
    let names = match certificate.names.as_slice() {
        [] => "no names".to_owned(),
        names => certificate::list(names),
    };
    let issuer = if certificate.self_issued { "itself" } else { &certificate.issuer };
    format!(
        "certificate {subject} ({names}), issued by {issuer}, {validity} ({})",
        calendar::text(end)
    )
}
