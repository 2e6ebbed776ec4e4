//! The producer in a simulated world: faulty networks and clusters, many thousand of them, each
//! replayable from its seed.
//!
//! The code that runs is the real one, from `KafkaProducer::send` down to [`Net`](crate::network):
//! users, sender, resolver and callback threads are threads of the operating system, of which one
//! at a time is let run, and which wait in the simulator's scheduler in place of condition
//! variables and sockets. Time is virtual. What is not seen here is races between threads that run
//! at the same time: the loom models and stress tests are for those.

mod checks; // what must hold, during and after a run
mod cluster; // brokers around the pure model
pub(crate) mod condvar; // `sync::Condvar`, on simulated threads and on others
mod demands; // what must be delivered when all is well
mod effects; // what faults did
mod ends; // producers that end at any moment
mod faults; // what goes wrong
mod leaders; // what the client has heard of who leads
mod ledger; // what was sent and what became of it
mod net; // `Net`: connections that behave like TCP
mod offers; // what a world's brokers are, and which versions they offer
mod plan; // what a seed chooses
mod run; // one seed, from its plan to its report
mod strikes; // how faults strike
#[cfg(test)]
mod tests;
mod trace; // a digest of all that happens, and a log of it when asked for
mod users; // logical users
mod watch; // what must hold on the wire
mod world; // the scheduler and the virtual clock

pub(crate) use self::world::{adopt, clock, cover, is_planted, on_decided, on_nonsense};
