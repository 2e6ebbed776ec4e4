//! One broker of any version from 0.8.2 on, with a ZooKeeper of its own before 3.3, and its own
//! dump of what it stored.
//!
//! It creates the topics that it is asked for, with two partitions. Dropping it kills its
//! processes.

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::cluster::{
    START_LIMIT, append_to, brokers_listed_at, found_or_skip, free_port, new_folder, tail,
};
use super::installation::{Installation, number};
use super::process::Guarded;

/// Small and quick.
const COMMON: &str = "\
log.retention.hours=1000000
num.network.threads=2
num.io.threads=2
num.partitions=2
auto.create.topics.enable=true
log.cleaner.dedupe.buffer.size=4194304
group.initial.rebalance.delay.ms=0
offsets.topic.replication.factor=1
offsets.topic.num.partitions=2
transaction.state.log.replication.factor=1
transaction.state.log.num.partitions=2
transaction.state.log.min.isr=1
";

const LOG4J: &str = "\
log4j.rootLogger=warn, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.target=System.err
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=[%d] %p %c: %m%n
";

/// Those of `known` that are to be run: `few`, unless `KAFKA_VERSIONS` names others, or `all`.
pub fn chosen_versions(known: &[&'static str], few: &[&str]) -> Vec<&'static str> {
    let asked = std::env::var("KAFKA_VERSIONS").unwrap_or_default();
    let is_chosen = |version: &&str| match asked.as_str() {
        "" => few.contains(version),
        "all" => true,
        asked => asked.split(',').any(|one| one == *version),
    };
    known.iter().copied().filter(is_chosen).collect()
}

/// A running broker of some version.
pub struct OldBroker {
    version: Vec<u32>,
    kafka: Installation,
    folder: PathBuf,
    port: u16,
    /// Killed in this order.
    _broker: Guarded,
    _zookeeper: Option<Guarded>,
}

impl OldBroker {
    /// A broker that answers, or `None` as with [`Cluster::start_or_skip`](super::Cluster).
    pub fn start_or_skip(test: &str, version: &str) -> Option<Self> {
        let kafka = found_or_skip(test, || Installation::of(version))?;
        Some(Self::start(kafka, number(version)).unwrap_or_else(|log| panic!("{version}: {log}")))
    }

    fn start(kafka: Installation, version: Vec<u32>) -> Result<Self, String> {
        let folder = new_folder();
        let (port, second) = (free_port(), free_port());
        let has_zookeeper = version < number("3.3");
        let data = folder.join("data");
        fs::create_dir_all(&data).expect("a folder for the broker");
        fs::write(folder.join("log4j.properties"), LOG4J).expect("a file for the logger");
        let own = if version < number("0.9") {
            format!(
                "broker.id=1\nzookeeper.connect=127.0.0.1:{second}\nhost.name=127.0.0.1\n\
                 advertised.host.name=127.0.0.1\nport={port}\n"
            )
        } else if has_zookeeper {
            format!(
                "broker.id=1\nzookeeper.connect=127.0.0.1:{second}\n\
                 listeners=PLAINTEXT://127.0.0.1:{port}\n"
            )
        } else {
            format!(
                "node.id=1\nprocess.roles=broker,controller\n\
                 listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{second}\n\
                 controller.quorum.voters=1@127.0.0.1:{second}\n\
                 controller.listener.names=CONTROLLER\n\
                 listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n"
            )
        };
        let config = folder.join("server.properties");
        fs::write(&config, format!("{own}log.dirs={}\n{COMMON}", data.display()))
            .expect("a file for the broker");
        let start = |class: &str, argument: &PathBuf, log: &str| {
            let mut command = java(&kafka, &folder, 256);
            command.arg(class).arg(argument);
            Guarded::spawn(&command, &append_to(&folder.join(log))).expect("sh and java start")
        };
        let zookeeper = has_zookeeper.then(|| {
            let config = folder.join("zoo.cfg");
            let own = folder.join("zookeeper");
            fs::create_dir_all(&own).expect("a folder for ZooKeeper");
            let lines = format!(
                "dataDir={}\nclientPort={second}\nclientPortAddress=127.0.0.1\ntickTime=1000\n\
                 maxClientCnxns=0\nadmin.enableServer=false\n",
                own.display()
            );
            fs::write(&config, lines).expect("a file for ZooKeeper");
            let class = "org.apache.zookeeper.server.quorum.QuorumPeerMain";
            start(class, &config, "zookeeper.log")
        });
        if has_zookeeper {
            wait_until_open(second);
        } else {
            let mut command = java(&kafka, &folder, 256);
            command.args(["kafka.tools.StorageTool", "format", "-t", "a2Fma2EtcHJvZHVjZXItMA"]);
            let log = append_to(&folder.join("log"));
            let status = command.arg("-c").arg(&config).stdin(Stdio::null());
            let status = status.stdout(log.try_clone().expect("a log")).stderr(log).status();
            assert!(status.expect("java starts").success(), "{}", tail(&folder.join("log")));
        }
        let broker = start("kafka.Kafka", &config, "log");
        let mut started =
            Self { version, kafka, folder, port, _broker: broker, _zookeeper: zookeeper };
        started.wait_until_it_answers()?;
        Ok(started)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Until its metadata names itself. Version 0.8 names no broker before there is a topic.
    fn wait_until_it_answers(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + START_LIMIT;
        let least = if self.version < number("0.9") { 0 } else { 1 };
        while brokers_listed_at(self.port).ok().is_none_or(|listed| listed < least) {
            if !self._broker.is_running() || Instant::now() > deadline {
                return Err(tail(&self.folder.join("log")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The records of a partition as the broker's own DumpLogSegments prints them: offset and
    /// value, in their order in the log. Panics if a checksum is wrong.
    pub fn dump(&self, topic: &str, partition: i32) -> Vec<(i64, String)> {
        let log = self.folder.join(format!("data/{topic}-{partition}/00000000000000000000.log"));
        if !log.exists() {
            return Vec::new();
        }
        let class = match self.version >= number("4.1") {
            true => "org.apache.kafka.tools.DumpLogSegments",
            false => "kafka.tools.DumpLogSegments",
        };
        let mut command = java(&self.kafka, &self.folder, 128);
        command.args([class, "--deep-iteration", "--print-data-log", "--files"]).arg(&log);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(append_to(&self.folder.join("tools.log")))
            .spawn()
            .expect("java starts");
        let mut text = String::new();
        let mut stdout = child.stdout.take().expect("its stdout was just piped");
        stdout.read_to_string(&mut text).expect("its output is UTF-8");
        assert!(
            child.wait().expect("it ends").success(),
            "{}",
            tail(&self.folder.join("tools.log"))
        );
        assert!(!text.contains("isvalid: false"), "a checksum is wrong:\n{text}");
        text.lines().filter_map(record).collect()
    }
}

impl Drop for OldBroker {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// A record's line; others are about batches and files.
fn record(line: &str) -> Option<(i64, String)> {
    let (facts, value) = line.split_once(" payload: ")?;
    let offset = facts.split_once("offset: ")?.1.split_whitespace().next()?;
    Some((offset.parse().ok()?, value.to_owned()))
}

fn java(kafka: &Installation, folder: &std::path::Path, heap: u32) -> std::process::Command {
    let mut command = kafka.java(heap, "warn");
    let file = folder.join("log4j.properties");
    command.arg(format!("-Dlog4j.configuration=file:{}", file.display()));
    command
}

fn wait_until_open(port: u16) {
    let deadline = Instant::now() + START_LIMIT;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(Instant::now() < deadline, "ZooKeeper does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
}
