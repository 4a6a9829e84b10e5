//! The whole system in virtual time: the real controller core, real engines and real data paths,
//! over seeded links, through random actions, with the product's promises checked at every step.
//!
//! The promises, as numbered in the checks:
//! 1. no packet is delivered that the model forbids at the generation that the receiver enforces;
//! 2. so once a revocation has reached a device, no flow of it passes, established or not;
//! 3. without the controller each rule ends with its lease, not later;
//! 4. a device's map names only devices that a rule connects it with;
//! 5. every record is chained to the one before and carries its audit entry;
//! 6. the journal's replay gives the same state;
//! 7. after quiescence every device has the newest generation that concerns it, and what is allowed
//!    passes.
//!
//! `GATEREEVE_SIM_SEEDS` says how many seeds to play; a failure prints `GATEREEVE_SIM_SEED`, with
//! which the same run comes back.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a simulation that finds something has to stop"
)]

mod actions;
mod checks;
mod control;
mod device;
mod model;
mod packets;
mod timers;
mod world;

use gatereeve_tests::random::Random;

use world::World;

/// Seeds played by default, and actions in each run.
const SEEDS: u64 = 60;
const ACTIONS: usize = 120;

#[test]
fn the_promises_hold_at_every_step() {
    if let Ok(seed) = std::env::var("GATEREEVE_SIM_SEED") {
        play(seed.parse().unwrap());
        return;
    }
    let seeds = std::env::var("GATEREEVE_SIM_SEEDS").map_or(SEEDS, |text| text.parse().unwrap());
    let start = Random::from_environment("GATEREEVE_SIM_START")
        .unwrap()
        .seed();
    println!("GATEREEVE_SIM_START={start}");
    let mut delivered = 0;
    for number in 0..seeds {
        let seed = start.wrapping_add(number);
        let played = std::panic::catch_unwind(|| play(seed));
        match played {
            Ok(count) => delivered += count,
            Err(_) => panic!("GATEREEVE_SIM_SEED={seed} brings this run back"),
        }
    }
    println!("{seeds} runs, {delivered} packets delivered, each as the model allows");
    // Positive control: much is delivered, so the checks have looked at something.
    assert!(
        delivered > seeds * 20,
        "only {delivered} packets in {seeds} runs"
    );
}

/// Plays one seed and returns how many packets were delivered.
fn play(seed: u64) -> u64 {
    let mut world = World::new(seed);
    for _ in 0..ACTIONS {
        world.act();
        world.check_all();
    }
    world.settle();
    world.delivered
}
