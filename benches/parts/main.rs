//! What the parts of the producer cost. `cargo bench` runs all of it, `cargo bench -- pool` what
//! has that in its name; README.md tells how to read the figures.
//!
//! Where a broker is needed it is a process of its own, which is this program again.

#![allow(clippy::print_stdout, reason = "a program for a terminal")]

mod broker; // a test broker in another process
mod formats; // encoding and decoding
mod hand_over; // memory, partitions, callbacks, handles
mod send; // `send` as a whole

fn main() {
    if !broker::was_asked_for() {
        divan::main();
    }
}
