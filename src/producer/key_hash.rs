//! The hash functions that clients of Kafka agree on, so that a key goes to the same partition
//! whichever client sends it: murmur2 (Java and most others), CRC-32 (librdkafka's default) and
//! FNV-1a (Sarama). Pure; called by the user's thread.

/// The partition that Java's client, and most others, choose for this key: `murmur2` without its
/// sign, modulo the count.
///
/// # Panics
/// If `partition_count` is below 1.
pub fn murmur2_partition(key: &[u8], partition_count: i32) -> i32 {
    (murmur2(key) & i32::MAX) % checked(partition_count)
}

/// The partition that librdkafka's `consistent` partitioners choose for this key: CRC-32 (the one
/// of zlib) modulo the count.
///
/// # Panics
/// If `partition_count` is below 1.
pub fn crc32_partition(key: &[u8], partition_count: i32) -> i32 {
    remainder(crc32fast::hash(key), partition_count)
}

/// The partition that Sarama's hash partitioner and librdkafka's `fnv1a` choose for this key: the
/// absolute value of FNV-1a, modulo the count.
///
/// # Panics
/// If `partition_count` is below 1.
pub fn fnv1a_partition(key: &[u8], partition_count: i32) -> i32 {
    remainder(fnv1a(key), partition_count)
}

fn remainder(hash: u32, partition_count: i32) -> i32 {
    // Below the count, so it fits.
    (hash % checked(partition_count).unsigned_abs()) as i32
}

fn checked(partition_count: i32) -> i32 {
    assert!(partition_count > 0, "a topic has at least one partition");
    partition_count
}

/// MurmurHash2 with the seed that Kafka's clients use.
pub fn murmur2(data: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;

    // The length enters modulo 2^32, as Java's int.
    let mut hash = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^= hash >> 15;
    hash as i32
}

/// FNV-1a of 32 bits; its absolute value as a signed number.
fn fnv1a(data: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let hash = data.iter().fold(0x811c_9dc5, step);
    (hash as i32).unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the clients themselves make of keys: the bytes; murmur2 of Java's kafka-clients 4.3.1
    /// (`Utils.murmur2`); the partitions out of [`COUNT`] of librdkafka 2.12.1
    /// (`rd_kafka_msg_partitioner_consistent`, `_murmur2` and `_fnv1a`, called from a C program
    /// linked to it). Sarama's `NewHashPartitioner`, asked for these keys, gives the last column.
    const CLIENTS: &[(&[u8], i32, [i32; 3])] = &[
        (b"", 275_646_681, [0, 645_856, 824_651]),
        (b"\x80", 857_690_492, [178_918, 687_921, 832_695]),
        (b"\xff", -311_467_685, [177_246, 10_455, 568_465]),
        (b"\x80\xff\x7f", -1_765_891_516, [198_460, 590_989, 330_952]),
        (b"\xfe\xff\x80\x81\xc3", -718_279_419, [642_202, 199_942, 202_968]),
        (b"schl\xc3\xbcssel", 331_429_656, [393_024, 428_663, 96_118]),
        (b"\xd0\xba\xd0\xbb\xd1\x8e\xd1\x87", 2_122_343_024, [833_182, 336_658, 251_837]),
        (&ALL_BYTES, -1_948_347_274, [227_427, 135_777, 271_959]),
        (b"foobar", -790_332_482, [922_071, 147_095, 228_336]),
        (b"12345678", 338_742_798, [419_517, 741_784, 825_655]),
    ];

    /// A prime, so that every bit of a hash counts.
    const COUNT: i32 = 1_000_003;

    /// Each byte once, in order.
    const ALL_BYTES: [u8; 256] = {
        let mut bytes = [0; 256];
        let mut i = 0;
        while i < 256 {
            bytes[i] = i as u8;
            i += 1;
        }
        bytes
    };

    /// Keys and their murmur2 hashes, as Java's client computes them.
    const MURMUR2: &[(&[u8], u32)] = &[
        (b"21", -973_932_308_i32 as u32),
        (b"foobar", -790_332_482_i32 as u32),
        (b"a-little-bit-long-string", -985_981_536_i32 as u32),
        (b"a-little-bit-longer-string", -1_486_304_829_i32 as u32),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971_i32 as u32),
        (b"abc", 479_470_107),
        (b"kafka", 0xd067_cf64),
        (b"giberish123456789", 0x8f55_2b0c),
        (b"1234", 0x9fc9_7b14),
        (b"234", 0xe7c0_09ca),
        (b"34", 0x8739_30da),
        (b"4", 0x5a4b_5ca1),
        (b"PreAmbleWillBeRemoved,ThePrePartThatIs", 0x7842_4f1c),
        (b"", 0x106e_08d9),
    ];

    /// Keys and the absolute values of their FNV-1a hashes, as Sarama computes them.
    const FNV1A: &[(&[u8], u32)] = &[
        (b"kafka", 0x0d33_c4e1),
        (b"giberish123456789", 0x77a5_8295),
        (b"1234", 0x023b_dd03),
        (b"234", 0x2dea_3cd2),
        (b"34", 0x740f_a83e),
        (b"4", 0x310c_a263),
        (b"PreAmbleWillBeRemoved,ThePrePartThatIs", 0x65cb_d69c),
        (b"", 0x7ee3_623b),
    ];

    /// PART-07: the bytes decide and the count, and nothing else.
    #[test]
    fn keys_go_where_the_clients_themselves_send_them() {
        for (key, java, partitions) in CLIENTS {
            let name = key.escape_ascii();
            assert_eq!(murmur2(key), *java, "{name}");
            let ours = [crc32_partition, murmur2_partition, fnv1a_partition].map(|f| f(key, COUNT));
            assert_eq!(ours, *partitions, "{name}");
        }
    }

    /// PART-08, PART-09, PART-10: Java's own vectors.
    #[test]
    fn murmur2_is_javas() {
        for (key, hash) in MURMUR2 {
            assert_eq!(murmur2(key) as u32, *hash, "{}", key.escape_ascii());
            let partition = murmur2_partition(key, 1000);
            assert_eq!(partition as u32, (hash & 0x7fff_ffff) % 1000);
        }
    }

    #[test]
    fn fnv1a_is_saramas() {
        for (key, hash) in FNV1A {
            assert_eq!(fnv1a(key), *hash, "{}", key.escape_ascii());
        }
    }
}
