//! Binding (RFC 8489 section 12): answered without state, for anyone.

use std::net::SocketAddr;

use crate::net::{Now, Transport};
use crate::stun::{Attribute, Class, ErrorCode, Message, Method, Writer};
use crate::turn::Server;
use crate::turn::counters::RequestResult;
use crate::turn::reply::Envelope;
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
        let envelope = Envelope::of(request);
        let unknown = request.unknown().as_slice();
        let len = if unknown.is_empty() {
            self.counters.request(Method::BINDING, RequestResult::Success);
            let reflexive = from.five_tuple.client.socket();
            envelope.success(reply, None, |w| {
                w.put_xor_address(Attribute::XorMappedAddress, reflexive);
            })
        } else {
            let code = ErrorCode::UNKNOWN_ATTRIBUTE;
            self.counters.request(Method::BINDING, RequestResult::Error(code));
            envelope.error(reply, None, code, code.reason(), |w| w.put_unknown(unknown))
        };
        len.map_or(Verdict::Drop(DropReason::ReplyTooLong), |len| Verdict::Reply { len })
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
        self.counters.request(Method::BINDING, RequestResult::Success);
        let reflexive = from.five_tuple.client.socket();
        write_classic(request, reflexive, reply)
            .map_or(Verdict::Drop(DropReason::ReplyTooLong), |len| Verdict::Reply { len })
    }
}

fn write_classic(request: &Message<'_>, reflexive: SocketAddr, reply: &mut [u8]) -> Option<usize> {
    let mut id = [0; 16];
    id.copy_from_slice(&request.bytes()[4..20]);
    let mut writer = Writer::classic(reply, Method::BINDING, Class::Success, id);
    writer.put_address(Attribute::MappedAddress, reflexive);
    writer.finish()
}
