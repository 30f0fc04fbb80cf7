//! The first steps of a way: socket, TCP connection, TLS handshake; and, where
//! these fail, a second look at what speaks behind the port.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use super::calendar;
use super::certificate::{self, Certificate};
use super::finding::Finding;
use super::link::{self, Identity, Link, LinkError, Socket, now};
use super::tap::Speaker;
use super::tell::describe;
use super::tls::{Broken, Handshake, agreement};
use super::walk::{Stop, Walk, stream};
use crate::net::Transport;

/// How long a second look may take.
const SECOND_LOOK: Duration = Duration::from_millis(1500);

impl Walk<'_> {
    /// Opens the way as nobody in particular and tells of it.
    pub(super) async fn connect(&mut self, address: SocketAddr) -> Result<Link, Stop> {
        let started = Instant::now();
        let connected = match self.transport {
            Transport::Udp | Transport::Dtls => {
                link::udp(address, self.settings.source).await.map(|(s, l)| (Socket::Udp(s), l))
            }
            Transport::Tcp => match self.tcp(address).await {
                Ok((tcp, local)) => {
                    self.went_well("connect", started, format!("from {local}"));
                    Ok(stream(tcp, local))
                }
                Err(error) => Err(error),
            },
            Transport::Tls => match self.tcp(address).await {
                Ok((tcp, local)) => {
                    self.went_well("connect", started, format!("from {local}"));
                    let tls = self.tls(tcp, address).await?;
                    Ok(stream(tls, local))
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
            Transport::Udp | Transport::Dtls => {
                let (socket, local) = link::udp(address, self.settings.source).await?;
                (Socket::Udp(socket), local)
            }
            Transport::Tcp => {
                let (tcp, local) = self.tcp(address).await?;
                stream(tcp, local)
            }
            Transport::Tls => {
                let (tcp, local) = self.tcp(address).await?;
                // The certificate was judged the first time.
                match self.shake_hands(tcp, false, true).await.stream {
                    Ok(tls) => stream(tls, local),
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

    async fn shake_hands(&self, tcp: TcpStream, alpn: bool, insecure: bool) -> Handshake {
        let host = &self.settings.uri.host;
        self.settings.trust.handshake(tcp, host, alpn, insecure, self.patience()).await
    }

    async fn tls(
        &mut self,
        tcp: TcpStream,
        address: SocketAddr,
    ) -> Result<TlsStream<TcpStream>, Stop> {
        let started = Instant::now();
        let insecure = self.settings.insecure;
        let mut shaken = self.shake_hands(tcp, true, insecure).await;
        let mut finding = None;
        if matches!(shaken.stream, Err(Broken::Alpn)) {
            finding = Some(Finding::AlpnRefused);
            shaken = match self.tcp(address).await {
                Ok((tcp, _)) => self.shake_hands(tcp, false, insecure).await,
                Err(error) => return self.broke("tls", started, &error),
            };
        }
        let finding = shaken.problem.clone().or_else(|| shaken.expires_soon()).or(finding);
        let certificate = shaken.certificate.as_ref().map(describe_certificate);
        let stream = match (shaken.stream, finding) {
            (Ok(stream), None) => {
                self.went_well("tls", started, whole(&agreement(&stream), certificate));
                stream
            }
            (Ok(stream), Some(finding)) => {
                let detail = whole(&agreement(&stream), certificate);
                self.overlooked("tls", started, detail, finding);
                stream
            }
            (Err(_), Some(finding)) if shaken.problem.is_some() => {
                let detail = certificate.unwrap_or_default();
                return self.fails("tls", started, &detail, finding);
            }
            (Err(broken), _) => {
                let (detail, finding) = self.judge_handshake(address, broken).await;
                return self.fails("tls", started, &detail, finding);
            }
        };
        Ok(stream)
    }

    /// Why a handshake failed that did not come to a certificate.
    async fn judge_handshake(&self, address: SocketAddr, broken: Broken) -> (String, Finding) {
        let detail = match &broken {
            Broken::Alpn => "the server refuses ALPN, and without it too".to_owned(),
            Broken::Tls(why) => why.clone(),
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
        let (tcp, local) = link::tcp(address, self.settings.source, deadline).await.ok()?;
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
