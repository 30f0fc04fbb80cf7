//! Which relay ports are in use, over all workers.
//!
//! A bit per port and relay address, changed by compare-and-swap: no lock, and a
//! free port is found without trial and error however full the range is. The
//! search starts at a random place, so that ports cannot be predicted (RFC 8656
//! section 21.1.4 asks for that).

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};

const WORDS: usize = 65_536 / 64;
/// The even ports of a word.
const EVEN: u64 = 0x5555_5555_5555_5555;

/// The relay ports of every relay address; shared by all workers.
pub struct PortTable {
    addresses: Vec<(IpAddr, Vec<AtomicU64>)>,
    /// The words that the range lies in.
    first_word: usize,
    words: usize,
    range: RangeInclusive<u16>,
}

impl PortTable {
    /// Every port of `ports` is free at each address.
    pub fn new(addresses: impl IntoIterator<Item = IpAddr>, ports: &RangeInclusive<u16>) -> Self {
        let bits = || {
            let mut words = vec![!0u64; WORDS];
            for port in ports.clone() {
                words[usize::from(port) / 64] &= !(1 << (port % 64));
            }
            words.into_iter().map(AtomicU64::new).collect()
        };
        let first_word = usize::from(*ports.start()) / 64;
        Self {
            addresses: addresses.into_iter().map(|ip| (ip, bits())).collect(),
            first_word,
            words: usize::from(*ports.end()) / 64 - first_word + 1,
            range: ports.clone(),
        }
    }

    /// Whether a port is in use as a relay port, or set aside.
    pub(super) fn is_taken(&self, ip: IpAddr, port: u16) -> bool {
        self.range.contains(&port)
            && self.words(ip).is_some_and(|words| {
                words[usize::from(port) / 64].load(Ordering::Acquire) & 1 << (port % 64) != 0
            })
    }

    /// Takes a free port; only an even one with `even`.
    pub(super) fn take(&self, ip: IpAddr, even: bool, random: u32) -> Option<u16> {
        let among = if even { EVEN } else { !0 };
        self.search(ip, random, |used| !used & among, 0b1)
    }

    /// Takes an even port and the odd one above it; returns the even one.
    pub(super) fn take_pair(&self, ip: IpAddr, random: u32) -> Option<u16> {
        self.search(ip, random, |used| !used & !(used >> 1) & EVEN, 0b11)
    }

    /// Gives a port back.
    pub(super) fn free(&self, ip: IpAddr, port: u16) {
        if let Some(words) = self.words(ip) {
            words[usize::from(port) / 64].fetch_and(!(1 << (port % 64)), Ordering::AcqRel);
        }
    }

    /// Takes `pattern` at a random one of the places that `free` leaves.
    fn search(
        &self,
        ip: IpAddr,
        random: u32,
        free: impl Fn(u64) -> u64,
        pattern: u64,
    ) -> Option<u16> {
        let words = self.words(ip)?;
        let (start, turn) = (random as usize % self.words, random >> 26);
        for index in (start..self.words).chain(0..start).map(|i| self.first_word + i) {
            let mut used = words[index].load(Ordering::Acquire);
            loop {
                let places = free(used);
                if places == 0 {
                    break;
                }
                // A random place within the word, too.
                let bit = (places.rotate_right(turn).trailing_zeros() + turn) % 64;
                let taken = used | pattern << bit;
                match words[index].compare_exchange_weak(
                    used,
                    taken,
                    Ordering::AcqRel,
                    Ordering::Acquire,
                ) {
                    Ok(_) => return Some((index * 64) as u16 + bit as u16),
                    Err(now) => used = now,
                }
            }
        }
        None
    }

    fn words(&self, ip: IpAddr) -> Option<&[AtomicU64]> {
        self.addresses.iter().find(|(a, _)| *a == ip).map(|(_, words)| &words[..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn every_port_is_given_once_and_only_from_the_range() {
        let table = PortTable::new([IP], &(50_001..=50_100));
        let mut seen: Vec<u16> = (0..100u32)
            .map(|i| table.take(IP, false, i.wrapping_mul(0x9e37_79b9)).unwrap())
            .collect();
        assert_eq!(table.take(IP, false, 7), None);
        seen.sort_unstable();
        assert_eq!(seen, (50_001..=50_100).collect::<Vec<_>>());
        table.free(IP, 50_050);
        assert_eq!(table.take(IP, true, 3), Some(50_050));
    }

    #[test]
    fn pairs_are_even_then_odd_and_within_the_range() {
        let table = PortTable::new([IP], &(50_001..=50_006));
        let mut pairs =
            [table.take_pair(IP, 1).unwrap(), table.take_pair(IP, 0xdead_beef).unwrap()];
        pairs.sort_unstable();
        assert_eq!(pairs, [50_002, 50_004]);
        assert_eq!(table.take_pair(IP, 9), None, "50006 has no neighbour in the range");
        assert_eq!(table.take(IP, true, 9), Some(50_006));
        assert_eq!(table.take(IP, false, 9), Some(50_001));
        assert_eq!(table.take(IP, false, 9), None);
    }

    #[test]
    fn ports_are_spread_over_the_range() {
        let table = PortTable::new([IP], &(49_152..=65_535));
        let mut quarters = [0; 4];
        for i in 0..1000u32 {
            let port = table.take(IP, false, i.wrapping_mul(0x9e37_79b9)).unwrap();
            quarters[usize::from(port - 49_152) / 4096] += 1;
            assert!(table.is_taken(IP, port));
        }
        assert!(quarters.iter().all(|n| (150..350).contains(n)), "{quarters:?}");
        assert!(!table.is_taken(IP, 1024));
    }

    #[test]
    fn threads_never_share_a_port() {
        let table = PortTable::new([IP], &(49_152..=65_535));
        let taken = |seed: u32| -> Vec<u16> {
            (0..8192u32)
                .filter_map(|i| table.take(IP, false, seed ^ i.wrapping_mul(0x85eb_ca6b)))
                .collect()
        };
        let mut all = std::thread::scope(|s| {
            let other = s.spawn(|| taken(1));
            let mut mine = taken(2);
            mine.extend(other.join().unwrap());
            mine
        });
        assert_eq!(all.len(), 16_384);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 16_384);
    }
}
