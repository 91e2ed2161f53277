//! Counters in front of the map of rows: most drops of a host are of few flows.
//!
//! Each CPU has buckets of rows. A row is taken by the first key that comes by, for as long as the generation lasts, so a
//! count only grows, and the drops of a key are those in the buckets and those in the map together. A key whose bucket
//! is full is counted in the map.

use crate::row::{GENERATIONS, word};

/// How many rows a bucket has.
pub const WAYS: usize = 4;

/// Where the counts are, behind the tags.
pub const COUNTS: usize = WAYS;

/// Where the keys are, behind the counts: so many words as the rows' keys have, for each row.
pub const KEYS: usize = 2 * WAYS;

/// How many words a bucket consists of whose keys have so many.
#[must_use]
pub const fn words(key: usize) -> usize {
    KEYS + WAYS * key
}

/// The words of a bucket whose keys are the longest: first the tags. A tag of zero means that the row is free.
pub type Bucket = [u64; words(word::COUNT)];

/// What each word of a key is multiplied by: odd numbers without a pattern (digits of pi).
const FACTORS: [u64; word::COUNT] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7345,
    0xa409_3822_299f_31d1,
    0x082e_fa98_ec4e_6c89,
    0x4528_21e6_38d0_1377,
    0xbe54_66cf_34e9_0c6d,
    0xc0ac_29b7_c97c_50dd,
    0x3f84_d5b5_b547_0917,
    0x9216_d5d9_8979_fb1b,
    0xd131_0ba6_98df_b5ad,
    0x2ffd_72db_d01a_dfb7,
    0xb8e1_afed_6a26_7e97,
    0xba7c_9045_f12c_7f99,
    0x24a1_9947_b391_6cf7,
];

/// What a word adds to the hash of a key.
#[inline(always)]
#[must_use]
pub const fn mixed(word: usize, value: u64) -> u64 {
    value.wrapping_mul(FACTORS[word])
}

/// What marks the row of a key with this hash. Another key may have the same, though hardly ever.
#[inline(always)]
#[must_use]
pub const fn tag(hash: u64) -> u64 {
    hash | 1
}

/// The bucket of a key with this hash, of so many: a power of two. Only the highest bits depend on all of the key.
#[inline(always)]
#[must_use]
pub const fn place(hash: u64, buckets: u32) -> u32 {
    (hash >> 40) as u32 & (buckets.wrapping_sub(1))
}

/// Where the buckets of a CPU and a generation begin, of which each has so many.
#[inline(always)]
#[must_use]
pub const fn first(cpu: u32, generation: u32, buckets: u32) -> u32 {
    cpu.wrapping_mul(GENERATIONS as u32).wrapping_add(generation).wrapping_mul(buckets)
}

/// The most that buckets may take in all.
const MOST_BYTES: usize = 8 << 20;

/// The most buckets that a CPU has for a generation.
const MOST: usize = 1024;

/// How many buckets a CPU has for a generation: a power of two, or none.
///
/// They are room beside the rows that were requested, and must not exceed a small number of these.
#[must_use]
pub fn buckets(rows: u32, cpus: usize, key: usize) -> u32 {
    let by_rows = rows as usize / 4 / WAYS;
    let by_bytes = MOST_BYTES / (cpus.max(1) * GENERATIONS * words(key) * 8);
    match MOST.min(by_rows).min(by_bytes) {
        0 => 0,
        most => 1 << most.ilog2(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_fit_the_machine_and_the_rows() {
        assert_eq!(buckets(16_384, 2, 7), 1024);
        assert_eq!(buckets(16_384, 64, 7), 128);
        assert_eq!(buckets(16_384, 100_000, 7), 0);
        assert_eq!(buckets(1_000, 2, 7), 32);
        assert_eq!(buckets(16, 2, 7), 1);
        assert_eq!(buckets(15, 2, 7), 0);
        for (rows, cpus, key) in [(1 << 20, 1, 1), (1 << 20, 8, 14), (4096, 256, 14)] {
            let buckets = buckets(rows, cpus, key) as usize;
            assert!(buckets.is_power_of_two() && buckets * WAYS * 4 <= rows as usize);
            assert!(cpus * GENERATIONS * buckets * words(key) * 8 <= MOST_BYTES);
        }
    }

    /// Flows that differ in one port or in one byte of an address.
    #[test]
    fn neighbours_go_to_different_buckets() {
        for (number, shift) in [(word::PACKET, 0), (word::PACKET, 16), (word::SADDR, 24), (word::DADDR, 8)] {
            let mut rows = [0_u32; 256];
            for value in 0..256_u64 {
                let hash =
                    mixed(word::LOCATION, 0xffff_ffff_8123_4567).wrapping_add(mixed(number, value << shift));
                rows[place(hash, 256) as usize] += 1;
            }
            let in_the_map: u32 = rows.iter().map(|rows| rows.saturating_sub(WAYS as u32)).sum();
            assert!(in_the_map <= 16, "{in_the_map} of 256 by word {number} from bit {shift} on");
        }
    }
}
