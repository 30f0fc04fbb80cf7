//! Hash maps whose seed is an input: safe against chosen keys, repeatable in tests.

use std::hash::BuildHasher;

use foldhash::SharedSeed;

/// The hasher state of every map in the core. Copied, 16 bytes.
#[derive(Clone, Copy)]
pub struct HashSeed {
    per_map: u64,
    shared: &'static SharedSeed,
}

impl HashSeed {
    /// Makes the hasher of a process from a random seed. The 64 bits are mixed
    /// into foldhash's shared seed, which lives as long as the process.
    pub fn new(seed: u64) -> Self {
        // One small leak per shard, at start: the hasher wants 'static.
        let shared = Box::leak(Box::new(SharedSeed::from_u64(seed)));
        Self { per_map: seed.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15, shared }
    }
}

impl std::fmt::Debug for HashSeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashSeed(masked)")
    }
}

impl BuildHasher for HashSeed {
    type Hasher = foldhash::fast::FoldHasher<'static>;

    #[inline]
    fn build_hasher(&self) -> Self::Hasher {
        foldhash::fast::FoldHasher::with_seed(self.per_map, self.shared)
    }
}

/// The map of the core.
pub type Map<K, V> = hashbrown::HashMap<K, V, HashSeed>;

/// An empty map that allocates nothing until its first entry.
pub fn map<K, V>(seed: HashSeed) -> Map<K, V> {
    Map::with_hasher(seed)
}
