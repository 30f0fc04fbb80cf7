//! What OpenSSL is told about DTLS, one context per certificate.

use openssl::error::ErrorStack;
use openssl::pkey::{PKeyRef, Private};
use openssl::ssl::{
    AlpnError, NameType, SniError, SslContext, SslContextBuilder, SslMethod, SslOptions,
    SslSessionCacheMode, SslVersion, select_next_proto,
};
use openssl::x509::X509;

use super::super::APPLICATION_PROTOCOLS;
use super::super::certificates::CertificateNames;

/// Forward secrecy and authenticated encryption, whichever the client prefers.
const CIPHERS: &str = "ECDHE+AESGCM:ECDHE+CHACHA20";

const GROUPS: &str = "X25519:P-256:P-384";

/// A context for a chain, the server's own certificate first, and its key.
pub(in crate::tls) fn context(
    chain: &[X509],
    key: &PKeyRef<Private>,
) -> Result<SslContextBuilder, ErrorStack> {
    let mut context = SslContext::builder(SslMethod::dtls_server())?;
    context.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
    context.set_cipher_list(CIPHERS)?;
    context.set_groups_list(GROUPS)?;
    // Nothing is kept for a client that may come back, and nothing is asked of
    // the network: what the path takes is for the owner to know.
    context.set_session_cache_mode(SslSessionCacheMode::OFF);
    context.set_options(
        SslOptions::COOKIE_EXCHANGE
            | SslOptions::NO_QUERY_MTU
            | SslOptions::NO_RENEGOTIATION
            | SslOptions::NO_TICKET,
    );
    // The front has verified the real cookie before OpenSSL gets to see it.
    context.set_cookie_generate_cb(|_, cookie| {
        cookie[0] = 0;
        Ok(1)
    });
    context.set_cookie_verify_cb(|_, _| true);
    let ours = protocol_list();
    context.set_alpn_select_callback(move |_, offered| {
        // The name has to live as long as the offer, which it is found in.
        select_next_proto(&ours, offered)
            .and_then(|name| protocols(offered).find(|offer| *offer == name))
            .ok_or(AlpnError::NOACK)
    });
    let mut chain = chain.iter();
    if let Some(own) = chain.next() {
        context.set_certificate(own)?;
    }
    for issuer in chain {
        context.add_extra_chain_cert(issuer.clone())?;
    }
    context.set_private_key(key)?;
    context.check_private_key()?;
    Ok(context)
}

/// Lets a context hand over to another one, by the name that the client asks for.
/// There is none for a certificate that cannot serve.
pub(in crate::tls) fn choose_by_name(
    leading: &mut SslContextBuilder,
    names: CertificateNames,
    contexts: Vec<Option<SslContext>>,
) {
    leading.set_servername_callback(move |session, _| {
        let wanted = session.servername(NameType::HOST_NAME);
        let index = names.choose(wanted, |index| contexts[index].is_some());
        match contexts.get(index) {
            Some(Some(context)) => {
                session.set_ssl_context(context).map_err(|_| SniError::ALERT_FATAL)
            }
            _ => Ok(()),
        }
    });
}

/// Our protocols, each behind its length in one byte.
fn protocol_list() -> Vec<u8> {
    let entry = |name: &[u8]| [&[name.len() as u8], name].concat();
    APPLICATION_PROTOCOLS.iter().flat_map(|name| entry(name)).collect()
}

/// The names in such a list.
fn protocols(mut list: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = list.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*len))?;
        list = rest;
        Some(name)
    })
}
