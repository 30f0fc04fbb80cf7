//! Where the records of a stream begin and end, without a look into them.

/// Length of a record header in bytes (RFC 8446 section 5.1): type, version, length.
const HEADER: usize = 5;

/// How far the records of a client have come.
#[derive(Default)]
pub(super) struct Records {
    begun: u64,
    header: [u8; HEADER],
    /// Bytes of a header that is not complete.
    have: usize,
    /// Bytes of a record that are still to come.
    left: usize,
}

impl Records {
    pub(super) fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = if self.left > 0 { self.skip(bytes) } else { self.take_header(bytes) };
            bytes = &bytes[taken..];
        }
    }

    /// The number of the record that has begun and not ended.
    pub(super) fn unfinished(&self) -> Option<u64> {
        (self.have > 0 || self.left > 0).then_some(self.begun)
    }

    fn skip(&mut self, bytes: &[u8]) -> usize {
        let taken = self.left.min(bytes.len());
        self.left -= taken;
        taken
    }

    fn take_header(&mut self, bytes: &[u8]) -> usize {
        self.begun += u64::from(self.have == 0);
        let taken = (HEADER - self.have).min(bytes.len());
        self.header[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
        self.have += taken;
        if self.have == HEADER {
            self.have = 0;
            self.left = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(len: u8) -> Vec<u8> {
        [&[23, 3, 3, 0, len][..], &vec![22; usize::from(len)]].concat()
    }

    #[test]
    fn records_end_where_they_say_however_they_are_split() {
        let stream = [record(3), record(0), record(200)].concat();
        // The first byte of each, and the one behind its last.
        let (begin, end) = ([0, 8, 13], [8, 13, 218]);
        for chunk in 1..=stream.len() {
            let (mut records, mut at) = (Records::default(), 0);
            assert_eq!(records.unfinished(), None);
            for part in stream.chunks(chunk) {
                records.take(part);
                at += part.len();
                let within = (0..3).find(|&i| begin[i] < at && at < end[i]);
                assert_eq!(records.unfinished(), within.map(|i| i as u64 + 1), "byte {at}");
            }
        }
    }
}
