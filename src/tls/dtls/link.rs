//! What OpenSSL reads from and writes to: one datagram in, datagrams out.

use std::io::{self, Read, Write};

use super::RECORD_HEADER;

/// Capacity in bytes that a buffer keeps when it is empty: no session holds on to
/// what a burst needed.
const KEEP: usize = 2048;

#[derive(Default)]
pub(super) struct Link {
    incoming: Vec<u8>,
    unread: bool,
    outgoing: Vec<u8>,
    /// Where each outgoing datagram ends.
    ends: Vec<usize>,
    /// What is added to the numbers of plaintext records that go out.
    record_offset: u64,
}

impl Link {
    /// The next thing that is read. One that was not read yet is lost, as
    /// datagrams are.
    pub(super) fn put(&mut self, datagram: &[u8]) {
        if self.incoming.capacity() > KEEP {
            self.incoming = Vec::new();
        }
        self.incoming.clear();
        self.incoming.extend_from_slice(datagram);
        self.unread = !datagram.is_empty();
    }

    pub(super) fn has_output(&self) -> bool {
        !self.ends.is_empty()
    }

    pub(super) fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.outgoing[start..*end])
    }

    pub(super) fn clear(&mut self) {
        if self.outgoing.capacity() > KEEP {
            self.outgoing = Vec::new();
        }
        self.outgoing.clear();
        self.ends.clear();
    }

    pub(super) fn set_record_offset(&mut self, offset: u64) {
        self.record_offset = offset;
    }
}

impl Read for Link {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !std::mem::take(&mut self.unread) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // What does not fit is longer than any record.
        let len = self.incoming.len().min(buffer.len());
        buffer[..len].copy_from_slice(&self.incoming[..len]);
        Ok(len)
    }
}

impl Write for Link {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        let start = self.outgoing.len();
        self.outgoing.extend_from_slice(datagram);
        self.ends.push(self.outgoing.len());
        renumber(&mut self.outgoing[start..], self.record_offset);
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Adds to the 48-bit numbers of the plaintext records in a datagram: the numbers
/// of encrypted ones are part of what the client verifies.
fn renumber(mut records: &mut [u8], offset: u64) {
    while let Some((header, rest)) = records.split_at_mut_checked(RECORD_HEADER) {
        let epoch = &header[3..5];
        if epoch == [0, 0] {
            let number = header[5..11].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
            let number = number.wrapping_add(offset).to_be_bytes();
            header[5..11].copy_from_slice(&number[2..]);
        }
        let len = usize::from(u16::from_be_bytes([header[11], header[12]]));
        records = rest.get_mut(len..).unwrap_or_default();
    }
}
