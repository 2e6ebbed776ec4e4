//! A test broker that discards what it gets, in a process of its own, and producers that send to
//! it. It ends when its input does, so that none is left behind.

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kafka_producer::testing::TestCluster;
use kafka_producer::{KafkaProducer, ProducerBuilder};

/// Set for the child process.
const VARIABLE: &str = "KAFKA_PRODUCER_BENCH_BROKER";

/// The topic to send to, of 4 partitions.
pub const TOPIC: &str = "bench";

/// The other process.
pub struct Broker {
    process: Child,
    address: String,
}

/// Is a broker until the input ends, if this is the child; else does nothing.
pub fn was_asked_for() -> bool {
    if env::var_os(VARIABLE).is_none() {
        return false;
    }
    let cluster = TestCluster::builder().topic(TOPIC, 4).discard(false).start();
    println!("{}", cluster.bootstrap_servers());
    // Whatever ends the input ends this process.
    let _ = io::stdout().flush().and_then(|()| io::stdin().read_to_end(&mut Vec::new()));
    true
}

impl Broker {
    pub fn start() -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .env(VARIABLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { process, address: address.trim().to_owned() }
    }

    pub fn producer(&self) -> ProducerBuilder {
        KafkaProducer::builder()
            .bootstrap_servers(&self.address)
            .linger(Duration::from_millis(5))
            .batch_size(131_072)
            .buffer_memory(8 << 20)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}
