//! A TURN server around the `turn` crate of webrtc-rs, as its example has it, on one
//! thread.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use turn::Error;
use turn::auth::{AuthHandler, generate_auth_key};
use turn::relay::relay_static::RelayAddressGeneratorStatic;
use turn::server::Server;
use turn::server::config::{ConnConfig, ServerConfig};
use webrtc_util::vnet::net::Net;

use crate::Outcome;
use crate::control::{PASSWORD, REALM, USER};

/// Serves UDP clients at `address` for ever.
pub(crate) fn serve(address: SocketAddrV4) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let ip = IpAddr::V4(*address.ip());
        let conn = ConnConfig {
            conn: Arc::new(UdpSocket::bind(address).await?),
            relay_addr_generator: Box::new(RelayAddressGeneratorStatic {
                relay_address: ip,
                address: ip.to_string(),
                net: Arc::new(Net::new(None)),
            }),
        };
        let _server = Server::new(ServerConfig {
            conn_configs: vec![conn],
            realm: REALM.to_owned(),
            auth_handler: Arc::new(OneUser(generate_auth_key(USER, REALM, PASSWORD))),
            // Zero is its default of ten minutes.
            channel_bind_timeout: Duration::ZERO,
            alloc_close_notify: None,
        })
        .await?;
        std::future::pending().await
    })
}

/// The key of the one account.
struct OneUser(Vec<u8>);

impl AuthHandler for OneUser {
    fn auth_handle(&self, user: &str, _: &str, _: SocketAddr) -> Result<Vec<u8>, Error> {
        if user == USER { Ok(self.0.clone()) } else { Err(Error::ErrNoSuchUser) }
    }
}
