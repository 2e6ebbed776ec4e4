//! Seeded randomness for the sender's side: same seed, same choices.
//!
//! SplitMix64 (Steele, Lea, Flood 2014): for jitter and tie-breaking, not for secrets.

use std::time::Duration;

/// A generator of pseudo-random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: u64,
    /// Says the middle of its range each time, so that a backoff has no jitter.
    #[cfg(test)]
    is_steady: bool,
}

/// How much less or more a backoff takes: so that clients that failed together don't come back
/// together (KIP-144, KIP-580).
const JITTER: f64 = 0.2;

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            state: seed,
            #[cfg(test)]
            is_steady: false,
        }
    }

    /// For exact times in tests.
    #[cfg(test)]
    pub(crate) fn steady() -> Self {
        Self { state: 0, is_steady: true }
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        #[cfg(test)]
        if self.is_steady {
            return 1 << 63;
        }
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Evenly one of `0..bound`; 0 if `bound` is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // The high half of the product: even to within bound / 2^64.
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// How long to wait after `earlier` waits for the same: `base` doubled with each of them, less
    /// or more by a fifth, and never longer than `max`. With a `base` as long as that it is
    /// constant.
    pub(crate) fn backoff(&mut self, base: Duration, max: Duration, earlier: u32) -> Duration {
        if max <= base {
            return max;
        }
        let factor = 1_u32.checked_shl(earlier).unwrap_or(u32::MAX);
        self.jitter(base.saturating_mul(factor).min(max), JITTER).min(max)
    }

    /// `base`, less or more by up to the fraction `spread` of it.
    fn jitter(&mut self, base: Duration, spread: f64) -> Duration {
        let unit = (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        base.mul_f64(1.0 + spread * (2.0 * unit - 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides_and_the_sequence_is_splitmix64s() {
        // The generator's published test vector for the seed 1234567.
        let mut random = Random::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| random.next_u64()).collect();
        assert_eq!(first, [6457827717110365317, 3203168211198807973, 9817491932198370423]);
    }

    #[test]
    fn choices_stay_below_the_bound_and_reach_all_of_it() {
        let mut random = Random::new(1);
        let mut seen = [0; 7];
        for _ in 0..7000 {
            seen[random.below(7)] += 1;
        }
        assert!(seen.iter().all(|n| (800..1200).contains(n)), "{seen:?}");
        assert_eq!(random.below(0), 0);
    }

    /// NC-20, UTIL-01.
    #[test]
    fn backoffs_double_with_jitter_up_to_their_bound() {
        let (base, max) = (Duration::from_millis(50), Duration::from_millis(1000));
        let mut random = Random::new(3);
        let mut at_most = Vec::new();
        for earlier in 0..80 {
            let nominal = (50.0 * 2_f64.powi(earlier.min(30))).min(1000.0);
            let got = random.backoff(base, max, earlier as u32).as_secs_f64() * 1000.0;
            assert!(got >= 0.8 * nominal, "{earlier}: {got}");
            assert!(got <= (1.2 * nominal).min(1000.0), "{earlier}: {got}");
            at_most.push(got / nominal);
        }
        assert!(at_most.iter().any(|share| *share < 0.9), "there is no jitter: {at_most:?}");
        assert!(at_most[..4].iter().any(|share| *share > 1.0), "it is one-sided: {at_most:?}");
        assert_eq!(random.backoff(max, max, 7), max, "a constant backoff has no jitter");
        assert_eq!(Random::steady().backoff(base, max, 2), base * 4);
    }

    #[test]
    fn jitter_spreads_both_ways_within_its_fraction() {
        let mut random = Random::new(2);
        let base = Duration::from_millis(100);
        let all: Vec<_> = (0..1000).map(|_| random.jitter(base, 0.2)).collect();
        let (min, max) = (all.iter().min().unwrap(), all.iter().max().unwrap());
        assert!(*min >= Duration::from_millis(80) && *min < Duration::from_millis(82), "{min:?}");
        assert!(*max <= Duration::from_millis(120) && *max > Duration::from_millis(118), "{max:?}");
        assert_eq!(random.jitter(base, 0.0), base);
    }
}
