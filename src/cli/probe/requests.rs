//! The requests of the steps, each until it is answered.

use std::net::SocketAddr;
use std::time::Duration;

use super::link::{Link, LinkError, now};
use crate::client::{Allocate, Allocated, Event, Problem};
use crate::net::Family;

/// Allocates in both families where that is to be had, else in the server's own.
pub(super) async fn allocate(link: &mut Link) -> Result<Allocated, LinkError> {
    let both = Allocate { additional_family: Some(Family::V6), ..Allocate::default() };
    let v6 = Allocate { family: Some(Family::V6), ..Allocate::default() };
    let mut last = allocate_as(link, both).await;
    for allocate in [Allocate::default(), v6] {
        match &last {
            Err(LinkError::Refused(failure)) if matches!(failure.code, 400 | 420 | 440) => {
                last = allocate_as(link, allocate).await;
            }
            _ => break,
        }
    }
    last
}

async fn allocate_as(link: &mut Link, allocate: Allocate) -> Result<Allocated, LinkError> {
    let transaction = link.client().allocate(now(), allocate);
    match link.finish(transaction).await? {
        Event::Allocated(allocated) => Ok(allocated),
        _ => Err(LinkError::Unusable(Problem::Missing("XOR-RELAYED-ADDRESS"))),
    }
}

/// CreatePermission.
pub(super) async fn permit(link: &mut Link, peer: SocketAddr) -> Result<(), LinkError> {
    let transaction = link.client().create_permission(now(), &[peer]);
    link.finish(transaction).await.map(|_| ())
}

/// What CreatePermission tells of an allocation: granted, or refused for the peer.
pub(super) fn is_still_there(permitted: Result<(), LinkError>) -> bool {
    match permitted {
        Ok(()) => true,
        Err(LinkError::Refused(failure)) => failure.code == 403,
        Err(_) => false,
    }
}

/// ChannelBind: the channel number.
pub(super) async fn bind_channel(link: &mut Link, peer: SocketAddr) -> Result<u16, LinkError> {
    let transaction = link.client().channel_bind(now(), None, peer);
    match link.finish(transaction).await? {
        Event::ChannelBound { channel, .. } => Ok(channel),
        _ => Err(LinkError::Unusable(Problem::Missing("CHANNEL-NUMBER"))),
    }
}

/// Gives an allocation back that nobody is to hear of, also one that may not be there.
pub(super) async fn release_quietly(link: &mut Link) {
    link.leave();
    let transaction = link.client().refresh(now(), Some(Duration::ZERO), None);
    let _ = link.finish(transaction).await;
}
