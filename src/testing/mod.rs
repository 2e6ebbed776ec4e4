//! A Kafka cluster inside the process, for the tests of programs that use this crate (feature
//! `testing`).
//!
//! [`TestCluster`] is all there is to know at first; [`Fault`] makes it misbehave. Where a test
//! wants no cluster at all, [`MockProducer`] takes the producer's place.

mod cluster; // the public face
pub(crate) mod faults; // what is done to which requests
#[cfg(feature = "__internal")]
pub(crate) mod fed; // a broker fed any bytes
mod incoming; // a connection's bytes to requests
mod mock; // a stand-in for the producer itself
pub(crate) mod model; // what a cluster answers, without any I/O
mod server; // sockets and threads

pub use self::cluster::{Api, TestCluster, TestClusterBuilder};
pub use self::faults::{Fault, FaultBuilder, FaultId};
pub use self::mock::{MockProducer, MockProducerBuilder};
pub use self::model::{Release, StoredRecord, TopicConfig};
pub use self::server::Counters;
