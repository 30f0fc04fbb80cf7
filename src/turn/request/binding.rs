//! Binding (RFC 8489 section 12): answered without state, for anyone.

use crate::net::{Now, Transport};
use crate::stun::{
    Attribute, Class, Classic, ErrorCode, Message, Method, UnknownAttributes, Writer,
};
use crate::turn::Server;
use crate::turn::counters::RequestResult;
use crate::turn::reply::{Envelope, Reject};
use crate::turn::request::discovery::{self, Way};
use crate::turn::vocabulary::{Client, DropReason, Verdict};

impl Server {
    /// A Binding request with the magic cookie.
    pub(in crate::turn) fn on_binding(
        &mut self,
        now: Now,
        from: Client,
        request: &Message<'_>,
        reply: &mut [u8],
    ) -> Verdict {
        if !self.may_answer(now, from) {
            return Verdict::Drop(DropReason::AnswerBudget);
        }
        let discovery = self.settings.discovery.as_ref();
        let unknown = discovery::unknown(discovery, from, request);
        let envelope = Envelope::of(request);
        let way = if unknown.as_slice().is_empty() {
            Way::of(discovery, from, request)
        } else {
            Err(Reject::UnknownAttributes)
        };
        let len = match &way {
            Ok(way) => envelope.success(reply, None, |w| {
                w.put_xor_address(Attribute::XorMappedAddress, from.five_tuple.client.socket());
                if discovery.is_some() {
                    way.describe(from, w);
                }
            }),
            Err(Reject::Error(code, reason)) => envelope.error(reply, None, *code, reason, |_| {}),
            Err(_) => {
                let code = ErrorCode::UNKNOWN_ATTRIBUTE;
                envelope.error(reply, None, code, code.reason(), |w| {
                    w.put_unknown(unknown.as_slice());
                })
            }
        };
        self.conclude_binding(way, len)
    }

    /// A request without the magic cookie: Binding of RFC 3489, when that is on.
    pub(in crate::turn) fn on_classic_request(
        &mut self,
        now: Now,
        from: Client,
        request: &Message<'_>,
        reply: &mut [u8],
    ) -> Verdict {
        let udp = from.five_tuple.transport == Transport::Udp;
        if !self.settings.rfc3489 || !udp || request.method() != Method::BINDING {
            return Verdict::Drop(DropReason::NoCookie);
        }
        if !self.may_answer(now, from) {
            return Verdict::Drop(DropReason::AnswerBudget);
        }
        let discovery = self.settings.discovery.as_ref();
        let unknown = discovery::unknown(discovery, from, request);
        let way = if unknown.as_slice().is_empty() {
            Way::of_classic(discovery, from, request)
        } else {
            Err(Reject::UnknownAttributes)
        };
        let len = match &way {
            Ok(way) => write_classic(request, from, way, reply),
            Err(reject) => write_classic_error(request, reject, &unknown, reply),
        };
        self.conclude_binding(way, len)
    }

    fn conclude_binding(&mut self, way: Result<Way, Reject>, len: Option<usize>) -> Verdict {
        let result = match &way {
            Ok(_) => RequestResult::Success,
            Err(Reject::Error(code, _)) => RequestResult::Error(*code),
            Err(_) => RequestResult::Error(ErrorCode::UNKNOWN_ATTRIBUTE),
        };
        self.counters.request(Method::BINDING, result);
        let Some(len) = len else { return Verdict::Drop(DropReason::ReplyTooLong) };
        match way.ok().and_then(|way| way.detour) {
            Some((server, client)) => Verdict::ReplyFrom { len, server, client },
            None => Verdict::Reply { len },
        }
    }
}

fn classic<'a>(request: &Message<'_>, class: Class, reply: &'a mut [u8]) -> Writer<'a> {
    let mut id = [0; 16];
    id.copy_from_slice(&request.bytes()[4..20]);
    Writer::classic(reply, Method::BINDING, class, id)
}

fn write_classic(
    request: &Message<'_>,
    from: Client,
    way: &Way,
    reply: &mut [u8],
) -> Option<usize> {
    let mut writer = classic(request, Class::Success, reply);
    writer.put_address(Attribute::MappedAddress, from.five_tuple.client.socket());
    writer.put_classic(Classic::SourceAddress, way.origin);
    if let Some(other) = way.other {
        writer.put_classic(Classic::ChangedAddress, other);
    }
    writer.finish()
}

fn write_classic_error(
    request: &Message<'_>,
    reject: &Reject,
    unknown: &UnknownAttributes,
    reply: &mut [u8],
) -> Option<usize> {
    let mut writer = classic(request, Class::Error, reply);
    match reject {
        Reject::Error(code, reason) => writer.put_error(*code, reason),
        _ => {
            let code = ErrorCode::UNKNOWN_ATTRIBUTE;
            writer.put_error(code, code.reason());
            writer.put_unknown_classic(unknown.as_slice());
        }
    }
    writer.finish()
}
