//! Seeds, run: by `cargo test`, or as many as one likes by hand (see the module's head).

use super::run::run;

#[test]
fn a_quiet_world_is_served() {
    for seed in 0..50 {
        let report = run(seed, false);
        assert_eq!(report.failure, None, "seed {seed}");
        assert!(report.records >= 500);
    }
}

#[test]
fn two_runs_of_a_seed_agree() {
    for seed in 0..20 {
        let (first, second) = (run(seed, false), run(seed, false));
        assert_eq!(first.digest, second.digest, "seed {seed}");
    }
}
