//! Control messages: what travels beside a datagram.
//!
//! The layout is that of cmsg(3): per message a header, the data, padding to the
//! alignment of the header. Written and walked as bytes with checked lengths.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{IpFamily, OptionNames};

/// A buffer for the control messages of one datagram.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct ControlBuffer([u8; ControlBuffer::LEN]);

/// Size of the structure in front of the data of each message, in bytes.
const HEADER: usize = size_of::<libc::cmsghdr>();

const fn space(data: usize) -> usize {
    HEADER + data.next_multiple_of(align_of::<libc::cmsghdr>())
}

// IPv6 needs the most: a local address, a traffic class, and the length of the
// segments, which is an `int` on its way in.
const _: () = assert!(
    space(size_of::<libc::in6_pktinfo>()) + 2 * space(size_of::<libc::c_int>())
        <= ControlBuffer::LEN
);
const _: () = assert!(HEADER.is_multiple_of(align_of::<libc::cmsghdr>()));
const _: () = assert!(align_of::<ControlBuffer>() >= align_of::<libc::cmsghdr>());

impl ControlBuffer {
    /// Capacity in bytes.
    pub(super) const LEN: usize = 96;

    pub(super) const EMPTY: Self = Self([0; Self::LEN]);

    /// The control messages of what leaves: the source address, the TOS byte, and
    /// the length of the datagrams that it is to be cut into. Returns how many
    /// bytes they take. An address of the other family is left out; the kernel
    /// then chooses.
    #[inline]
    pub(super) fn encode(
        &mut self,
        family: IpFamily,
        from: Option<IpAddr>,
        tos: u8,
        segment: Option<u16>,
    ) -> usize {
        let names = family.options();
        let mut at = 0;
        match (family, from) {
            (IpFamily::V4, Some(IpAddr::V4(ip))) => {
                // struct in_pktinfo: interface index, local address, header address.
                let mut info = [0; size_of::<libc::in_pktinfo>()];
                info[4..8].copy_from_slice(&ip.octets());
                at = self.put(at, names.level, names.packet_info_message, &info);
            }
            (IpFamily::V6, Some(IpAddr::V6(ip))) => {
                // struct in6_pktinfo: local address, interface index.
                let mut info = [0; size_of::<libc::in6_pktinfo>()];
                info[..16].copy_from_slice(&ip.octets());
                at = self.put(at, names.level, names.packet_info_message, &info);
            }
            _ => {}
        }
        if tos != 0 {
            let value = libc::c_int::from(tos).to_ne_bytes();
            at = self.put(at, names.level, names.tos_message, &value);
        }
        if let Some(segment) = segment {
            at = self.put(at, libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
        }
        at
    }

    /// What the first `len` bytes say about a received datagram.
    #[inline]
    pub(super) fn decode(&self, family: IpFamily, len: usize) -> Arrival {
        let names = family.options();
        let mut arrival = Arrival { local: None, tos: 0, segment: None };
        for message in messages(&self.0[..len.min(Self::LEN)]) {
            if message.level == names.level {
                arrival.note(family, names, &message);
            } else if message.level == libc::SOL_UDP && message.kind == libc::UDP_GRO {
                arrival.segment = message
                    .data
                    .first_chunk()
                    .and_then(|&value| usize::try_from(libc::c_int::from_ne_bytes(value)).ok());
            }
        }
        arrival
    }

    #[inline]
    fn put(&mut self, at: usize, level: libc::c_int, kind: libc::c_int, data: &[u8]) -> usize {
        // SAFETY: all-zero is a valid `cmsghdr`, a structure of integers.
        let mut header: libc::cmsghdr = unsafe { std::mem::zeroed() };
        header.cmsg_len = (HEADER + data.len()) as _;
        header.cmsg_level = level;
        header.cmsg_type = kind;
        let place = &mut self.0[at..at + space(data.len())];
        // SAFETY: `place` has room for the header and the data behind it, by the
        // slice just taken; the write asks for no alignment.
        unsafe { place.as_mut_ptr().cast::<libc::cmsghdr>().write_unaligned(header) };
        place[HEADER..HEADER + data.len()].copy_from_slice(data);
        at + space(data.len())
    }
}

/// What control messages say about a received datagram.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    pub(super) local: Option<IpAddr>,
    pub(super) tos: u8,
    /// Bytes of each datagram but the last, where the kernel has joined several.
    pub(super) segment: Option<usize>,
}

impl Arrival {
    #[inline]
    fn note(&mut self, family: IpFamily, names: &OptionNames, message: &ControlMessage<'_>) {
        if message.kind == names.packet_info_message {
            self.local = local_address(family, message.data);
        } else if message.kind == names.tos_message {
            // One byte in IPv4, an `int` in IPv6.
            self.tos = match *message.data {
                [tos] => tos,
                [a, b, c, d] => libc::c_int::from_ne_bytes([a, b, c, d]) as u8,
                _ => 0,
            };
        }
    }
}

/// The address to answer from. For IPv4 the kernel gives one even for datagrams
/// to a broadcast address; for IPv6 a multicast destination gives none.
#[inline]
fn local_address(family: IpFamily, info: &[u8]) -> Option<IpAddr> {
    match family {
        IpFamily::V4 => {
            let octets: [u8; 4] = *info.get(4..)?.first_chunk()?;
            Some(IpAddr::V4(Ipv4Addr::from(octets)))
        }
        IpFamily::V6 => {
            let octets: [u8; 16] = *info.first_chunk()?;
            let ip = Ipv6Addr::from(octets);
            (!ip.is_multicast()).then_some(IpAddr::V6(ip))
        }
    }
}

/// One control message.
pub(super) struct ControlMessage<'a> {
    pub(super) level: libc::c_int,
    pub(super) kind: libc::c_int,
    pub(super) data: &'a [u8],
}

/// Walks over the control messages in `bytes`; ends at the first that is cut off.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = ControlMessage<'_>> {
    std::iter::from_fn(move || {
        if bytes.len() < HEADER {
            return None;
        }
        // SAFETY: at least HEADER bytes are there, any bytes make a valid
        // `cmsghdr`, and the read asks for no alignment.
        let header = unsafe { bytes.as_ptr().cast::<libc::cmsghdr>().read_unaligned() };
        #[allow(clippy::unnecessary_cast, reason = "not a usize in every C library")]
        let len = header.cmsg_len as usize;
        let data = bytes.get(HEADER..len)?;
        bytes = bytes.get(space(data.len())..).unwrap_or_default();
        Some(ControlMessage { level: header.cmsg_level, kind: header.cmsg_type, data })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_reads_as_what_is_received() {
        let cases = [
            (IpFamily::V4, "127.0.0.2".parse().unwrap()),
            (IpFamily::V6, "2001:db8::2".parse().unwrap()),
        ];
        for (family, ip) in cases {
            let mut buffer = ControlBuffer::EMPTY;
            let len = buffer.encode(family, Some(ip), 0xb8, Some(1200));
            let arrival = buffer.decode(family, len);
            assert_eq!((arrival.local, arrival.tos), (Some(ip), 0xb8));
        }
    }

    #[test]
    fn nothing_asked_takes_no_space() {
        let mut buffer = ControlBuffer::EMPTY;
        assert_eq!(buffer.encode(IpFamily::V4, None, 0, None), 0);
        let other_family = "2001:db8::2".parse().unwrap();
        assert_eq!(buffer.encode(IpFamily::V4, Some(other_family), 0, None), 0);
    }

    #[test]
    fn cut_off_messages_are_left_alone() {
        let mut buffer = ControlBuffer::EMPTY;
        let ip = "2001:db8::2".parse().unwrap();
        let len = buffer.encode(IpFamily::V6, Some(ip), 1, Some(1));
        for len in 0..len {
            let arrival = buffer.decode(IpFamily::V6, len);
            assert!(arrival.local.is_none() || arrival.local == Some(ip));
        }
        assert_eq!(messages(&[0; HEADER]).count(), 0, "a length below its own header");
        assert_eq!(messages(&[0xff; HEADER + 8]).count(), 0, "a length beyond the buffer");
    }
}
