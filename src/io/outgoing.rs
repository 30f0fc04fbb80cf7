//! One message to send, as pieces: nothing is copied together before the kernel
//! reads it.

use std::net::{IpAddr, SocketAddr};

use super::arena::{Arena, SlotId};

/// A message to send: a header made up on the spot, a body that already lies in
/// the arena, and padding, gathered by the kernel.
///
/// On a stream only `header`, `body` and `pad` count.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing {
    /// The destination.
    pub to: SocketAddr,
    /// The local address to send from. Only for sockets bound to the wildcard
    /// address; elsewhere the kernel knows, and `None` is cheaper.
    pub from: Option<IpAddr>,
    /// The TOS or traffic-class byte: DSCP and ECN. Zero is the socket's own.
    pub tos: u8,
    /// Bytes in front of the body.
    pub header: Header,
    /// The body.
    pub body: Body,
    /// Zero bytes behind the body, 0 to 3.
    pub pad: u8,
    /// Send this one with the DF bit set (IPv4) or unfragmented (IPv6), and
    /// rather not at all when it is too large. Two system calls dearer.
    pub dont_fragment: bool,
}

impl Outgoing {
    /// A bare datagram: a body to a destination.
    pub fn new(to: SocketAddr, body: Body) -> Self {
        Self { to, from: None, tos: 0, header: Header::EMPTY, body, pad: 0, dont_fragment: false }
    }

    /// Header, body and padding as they lie on the wire; absent ones are empty.
    #[inline]
    pub fn pieces<'a>(&'a self, arena: &'a Arena) -> [&'a [u8]; PIECES] {
        [self.header.as_slice(), self.body.of(arena), &PADDING[..usize::from(self.pad)]]
    }

    /// Bytes on the wire above UDP or TCP.
    #[inline]
    pub fn wire_len(&self) -> usize {
        self.header.as_slice().len() + self.body.len() + usize::from(self.pad)
    }
}

/// Up to [`Header::CAPACITY`] bytes in front of a body.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    len: u8,
    bytes: [u8; Self::CAPACITY],
}

impl Header {
    /// The most bytes a header can have.
    pub const CAPACITY: usize = 48;

    /// No header.
    pub const EMPTY: Self = Self { len: 0, bytes: [0; Self::CAPACITY] };

    /// A header of these bytes; `None` when they are more than [`Self::CAPACITY`].
    #[inline]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut header = Self::EMPTY;
        header.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        header.len = u8::try_from(bytes.len()).ok()?;
        Some(header)
    }

    /// A header of the first `len` bytes.
    ///
    /// # Panics
    /// When `len` is larger than [`CAPACITY`](Self::CAPACITY).
    #[inline]
    pub fn from_parts(len: u8, bytes: &[u8; Self::CAPACITY]) -> Self {
        assert!(usize::from(len) <= Self::CAPACITY, "a header of at most 48 bytes");
        Self { len, bytes: *bytes }
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// A byte range of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body {
    /// The slot.
    pub slot: SlotId,
    /// First byte, counted from the start of the slot.
    pub start: u32,
    /// First byte not in the body.
    pub end: u32,
}

impl Body {
    /// Bytes in the body; an inverted range has none.
    #[inline]
    pub fn len(&self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    /// Whether the body has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of the body. A range that does not lie in a slot is a bug of
    /// the caller and panics.
    #[inline]
    pub(super) fn of<'a>(&self, arena: &'a Arena) -> &'a [u8] {
        &arena.bytes(self.slot)[self.start as usize..self.end as usize]
    }
}

/// The most pieces one message can have: header, body, padding.
pub(super) const PIECES: usize = 3;

/// Describes the pieces of `message` in `pieces` for a gathering write and
/// returns how many there are. Absent pieces take no entry; the body is always
/// there, so that an empty datagram is still a datagram.
///
/// The descriptions are good as long as `message` and `arena` are borrowed.
#[inline]
pub(super) fn gather(
    message: &Outgoing,
    arena: &Arena,
    pieces: &mut [libc::iovec; PIECES],
) -> usize {
    let mut count = 0;
    let header = message.header.as_slice();
    if !header.is_empty() {
        pieces[count] = piece(header);
        count += 1;
    }
    pieces[count] = piece(message.body.of(arena));
    count += 1;
    if message.pad > 0 {
        pieces[count] = piece(&PADDING[..usize::from(message.pad)]);
        count += 1;
    }
    count
}

/// Where padding comes from. More than three bytes are a bug of the caller.
static PADDING: [u8; 3] = [0; 3];

/// The kernel only reads what a sending `iovec` points at; the field is `*mut`
/// because receiving uses the same structure.
#[inline]
fn piece(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

/// An `iovec` that points nowhere.
pub(super) const NO_PIECE: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces_of(message: &Outgoing, arena: &Arena) -> Vec<usize> {
        let mut pieces = [NO_PIECE; PIECES];
        let count = gather(message, arena, &mut pieces);
        pieces[..count].iter().map(|piece| piece.iov_len).collect()
    }

    #[test]
    fn only_present_pieces_are_described() {
        let mut arena = Arena::new(1).unwrap();
        let body = Body { slot: arena.take().unwrap(), start: 4, end: 9 };
        let to = "192.0.2.1:1".parse().unwrap();
        let mut message = Outgoing::new(to, body);
        assert_eq!(pieces_of(&message, &arena), [5]);
        message.header = Header::new(&[1; 4]).unwrap();
        message.pad = 3;
        assert_eq!(pieces_of(&message, &arena), [4, 5, 3]);
        assert_eq!(message.wire_len(), 12);
        message.body.end = 4;
        message.header = Header::EMPTY;
        message.pad = 0;
        assert_eq!(pieces_of(&message, &arena), [0], "an empty datagram has one empty piece");
    }

    #[test]
    fn a_header_has_a_limit() {
        assert_eq!(Header::new(&[7; Header::CAPACITY]).unwrap().as_slice(), [7; 48]);
        assert!(Header::new(&[0; Header::CAPACITY + 1]).is_none());
    }
}
