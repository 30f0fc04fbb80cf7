//! TLS as servers in the field have it: a terminator in front of a real server,
//! with certificates made for each test.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::fake;
use crate::run::{Run, probe, probe_as_alice};
use crate::setup::{Server, Setup};

#[test]
fn a_certificate_of_a_trusted_authority() {
    let site = Site::new(|_| ());
    let run = site.probe(&["--packets", "5"]);
    run.ends_with(0).found_nothing();
    let report = run.json();
    let steps = report["transports"][0]["steps"].as_array().unwrap();
    let tls = steps.iter().find(|step| step["name"] == "tls").unwrap()["detail"].as_str().unwrap();
    for part in ["TLS 1.3", "ALPN stun.turn", "localhost", "issued by Test Authority", "ends in"] {
        assert!(tls.contains(part), "{part}: {tls}");
    }
    let candidate = report["browser"]["candidates"][0].as_str().unwrap();
    assert!(candidate.ends_with("reached over TLS"), "{candidate}");
}

#[test]
fn without_alpn_on_the_server() {
    let site = Site::with(|_| (), |config| config.alpn_protocols.clear());
    site.probe(&["--packets", "3"]).ends_with(0);
}

#[test]
fn a_server_that_hangs_up_on_alpn() {
    let site = Site::with(|_| (), |config| config.alpn_protocols = vec![b"http/1.1".to_vec()]);
    site.probe(&["--packets", "3"]).ends_with(1).found("tls", "alpn-refused", "RFC 7443");
}

#[test]
fn expired() {
    let site = Site::new(|leaf| {
        leaf.not_before = date_time_ymd(2020, 1, 1);
        leaf.not_after = date_time_ymd(2020, 4, 1);
    });
    let run = site.probe(&[]);
    run.ends_with(4).found("tls", "certificate-expired", "days ago");
    assert!(run.json()["browser"]["notes"][0].as_str().unwrap().starts_with("refused"));
    let run = site.probe(&["--insecure", "--packets", "3"]);
    run.ends_with(1).found("tls", "certificate-expired", "renew");
    assert_eq!(run.step_names(0).last().unwrap(), "release");
}

#[test]
fn about_to_expire() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let site = Site::new(|leaf| {
        leaf.not_after = date_time_ymd(1970, 1, 1) + now + Duration::from_secs(3 * 86_400 + 60);
    });
    let run = site.probe(&["--packets", "3"]);
    run.ends_with(1).found("tls", "certificate-expires-soon", "3 days");
}

#[test]
fn not_yet_valid() {
    let site = Site::new(|leaf| {
        leaf.not_before = date_time_ymd(2090, 1, 1);
        leaf.not_after = date_time_ymd(2091, 1, 1);
    });
    site.probe(&[]).ends_with(4).found("tls", "certificate-not-yet-valid", "clock");
}

#[test]
fn for_another_name() {
    let site = Site::new(|leaf| {
        let names = CertificateParams::new(vec!["turn.example.org".to_owned()]).unwrap();
        leaf.subject_alt_names = names.subject_alt_names;
    });
    let hint = "for turn.example.org, not for localhost";
    site.probe(&[]).ends_with(4).found("tls", "certificate-wrong-name", hint);
}

#[test]
fn an_address_in_the_uri_that_is_not_in_the_certificate() {
    let site = Site::new(|_| ());
    let ca = site.ca();
    let run = probe_as_alice(&format!("turns:{}", site.address), &["--ca", &ca]);
    run.ends_with(4).found("tls", "certificate-wrong-name", "instead of the address");
    assert!(run.json()["browser"]["notes"][1].as_str().unwrap().contains("127.0.0.1"));
}

#[test]
fn of_an_authority_that_is_not_known() {
    let site = Site::new(|_| ());
    let run = probe(&site.uri(), &["-4"]);
    run.ends_with(4).found("tls", "certificate-unknown-issuer", "fullchain.pem");
}

#[test]
fn signed_by_itself() {
    let key = KeyPair::generate().unwrap();
    let leaf = leaf().self_signed(&key).unwrap();
    let server = Setup::new().start();
    let address = terminate(server.addr(), vec![leaf.der().clone()], &key, |_| ());
    let uri = format!("turns:localhost:{}", address.port());
    probe(&uri, &["-4"]).ends_with(4).found("tls", "certificate-self-signed", "browsers refuse");
    let run = probe_as_alice(&uri, &["-4", "--insecure", "--packets", "3"]);
    run.ends_with(1).found("tls", "certificate-self-signed", "browsers refuse");
    assert_eq!(run.step_names(0).last().unwrap(), "release");
}

#[test]
fn plain_tcp_to_a_port_of_tls() {
    let site = Site::new(|_| ());
    let run = probe_as_alice(&format!("turn:{}?transport=tcp", site.address), &[]);
    run.ends_with(4).found("binding", "tls-on-plain-port", "use turns:");
}

#[test]
fn a_web_server_behind_tls() {
    let web = fake::tcp(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let site = Site::in_front_of(web, |_| (), |_| ());
    site.probe(&[]).ends_with(76).found("binding", "http", "web server");
}

#[test]
fn a_file_that_holds_no_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("empty.pem");
    fs::write(&file, "nothing\n").unwrap();
    let run = crate::run::run(&["probe", "turns:127.0.0.1", "--ca", file.to_str().unwrap()], &[]);
    assert_eq!(run.code, 66, "{run}");
    assert!(run.stderr.contains("no certificate"), "{run}");
}

/// A TLS terminator whose certificate comes from an authority of its own.
struct Site {
    address: SocketAddr,
    directory: TempDir,
    _server: Option<Server>,
}

impl Site {
    /// In front of a real server.
    fn new(edit: impl FnOnce(&mut CertificateParams)) -> Self {
        Self::with(edit, |_| ())
    }

    fn with(
        edit: impl FnOnce(&mut CertificateParams),
        configure: impl FnOnce(&mut ServerConfig),
    ) -> Self {
        let server = Setup::new().start();
        let site = Self::in_front_of(server.addr(), edit, configure);
        Self { _server: Some(server), ..site }
    }

    fn in_front_of(
        server: SocketAddr,
        edit: impl FnOnce(&mut CertificateParams),
        configure: impl FnOnce(&mut ServerConfig),
    ) -> Self {
        let authority = authority();
        let key = KeyPair::generate().unwrap();
        let mut leaf = leaf();
        edit(&mut leaf);
        let leaf = leaf.signed_by(&key, &authority).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
        let address = terminate(server, vec![leaf.der().clone()], &key, configure);
        Self { address, directory, _server: None }
    }

    fn uri(&self) -> String {
        format!("turns:localhost:{}?transport=tcp", self.address.port())
    }

    fn ca(&self) -> String {
        self.directory.path().join("ca.pem").to_str().unwrap().to_owned()
    }

    /// As alice, trusting the authority.
    #[track_caller]
    fn probe(&self, arguments: &[&str]) -> Run {
        let ca = self.ca();
        probe_as_alice(&self.uri(), &[&["-4", "--ca", &ca], arguments].concat())
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Test Authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn leaf() -> CertificateParams {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "Test Server");
    params
}

/// TLS on a port of 127.0.0.1, plain TCP behind it. Its thread ends with the test
/// process.
fn terminate(
    server: SocketAddr,
    chain: Vec<CertificateDer<'static>>,
    key: &KeyPair,
    configure: impl FnOnce(&mut ServerConfig),
) -> SocketAddr {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"stun.turn".to_vec()];
    configure(&mut config);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap().block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut front) = acceptor.accept(stream).await else { return };
                    let Ok(mut back) = TcpStream::connect(server).await else { return };
                    let _ = copy_bidirectional(&mut front, &mut back).await;
                });
            }
        });
    });
    address
}
