//! A cluster: its folder, its brokers' processes, and what a test may do to them.
//!
//! Brokers are numbered from 1. Of three or more the first three are controllers too, so that any
//! one of them may die; of fewer only the first is.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use parking_lot::Mutex;

use super::installation::Installation;
use super::process::{self, Guarded};
use super::tools::{ConsumedRecord, Tools};

/// A start takes 4 s for one broker and 10 s for three on two quiet cores.
pub const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_GRACE: Duration = Duration::from_secs(20);

/// What every broker gets. Small and quick; no record is deleted for its age, so that a test may
/// give it any timestamp; topics exist only where a test made them. A dead broker is noticed after
/// 4 s (default: 9), and one that comes back sooner has to wait for that moment.
const BROKER: &str = "\
log.retention.ms=-1
log.cleaner.dedupe.buffer.size=4194304
num.network.threads=2
num.io.threads=4
auto.create.topics.enable=false
delete.topic.enable=true
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=1000
";

/// What `find` gives; `None`, and a line on stderr, where it gives nothing or tests on Kafka are to
/// be skipped, and a failure where they are required.
pub fn found_or_skip<T>(test: &str, find: impl FnOnce() -> Result<T, String>) -> Option<T> {
    let wanted = std::env::var("KAFKA_TESTS").unwrap_or_default();
    let found = match wanted.as_str() {
        "skip" => Err("KAFKA_TESTS=skip".to_owned()),
        _ => find(),
    };
    match found {
        Ok(found) => Some(found),
        Err(why) if wanted == "require" => panic!("{test} needs Kafka: {why}"),
        Err(why) => {
            // Straight to stderr: the test framework hides what a passing test prints.
            let line = format!("SKIPPED {test}: {why}\n");
            let _ = io::stderr().write_all(line.as_bytes());
            None
        }
    }
}

/// A running cluster. Dropping it kills its processes and removes its folder; so does the end of
/// the test process, except that the folder stays until the next start.
pub struct Cluster {
    kafka: &'static Installation,
    folder: PathBuf,
    brokers: Vec<Broker>,
    tools: Mutex<Tools>,
}

struct Broker {
    id: i32,
    /// For clients, and for brokers among themselves.
    port: u16,
    folder: PathBuf,
    /// `None` while it is down.
    process: Mutex<Option<Guarded>>,
}

impl Cluster {
    /// A cluster of so many brokers, with more lines for their configuration, that answers.
    ///
    /// `None`, and a line on stderr that names the test, where Java or Maven is missing; with
    /// `KAFKA_TESTS=require` that is a failure. A broker that does not start always is.
    pub fn start_or_skip(test: &str, brokers: usize, configs: &[(&str, &str)]) -> Option<Self> {
        let kafka = found_or_skip(test, Installation::find)?;
        Some(Self::start(kafka, brokers, configs))
    }

    fn start(kafka: &'static Installation, brokers: usize, configs: &[(&str, &str)]) -> Self {
        assert!(brokers > 0, "a cluster has a broker");
        // Another process may take a port between the look and the start.
        for _ in 0..2 {
            match Self::try_start(kafka, brokers, configs) {
                Err(log) if log.contains("Address already in use") => {}
                started => return started.unwrap_or_else(|log| panic!("Kafka: {log}")),
            }
        }
        Self::try_start(kafka, brokers, configs).unwrap_or_else(|log| panic!("Kafka: {log}"))
    }

    fn try_start(
        kafka: &'static Installation,
        count: usize,
        configs: &[(&str, &str)],
    ) -> Result<Self, String> {
        let folder = new_folder();
        let controllers: Vec<u16> =
            (0..if count < 3 { 1 } else { 3 }).map(|_| free_port()).collect();
        let brokers: Vec<Broker> = (1..).take(count).map(|id| Broker::new(id, &folder)).collect();
        for broker in &brokers {
            let config = broker.config(&controllers, count, configs);
            fs::create_dir_all(broker.data()).expect("a folder for the broker");
            fs::write(broker.config_file(), config).expect("a file for the broker");
        }
        format(kafka, &brokers)?;
        for broker in &brokers {
            broker.start(kafka);
        }
        let bootstrap = bootstrap(&brokers);
        let log = append_to(&folder.join("tools.log"));
        let tools = Mutex::new(Tools::start(kafka, &bootstrap, log).expect("java starts"));
        let cluster = Self { kafka, folder, brokers, tools };
        for broker in &cluster.brokers {
            broker.wait_until_it_lists(count)?;
        }
        Ok(cluster)
    }

    /// `host:port` of every broker, running or not.
    pub fn bootstrap(&self) -> String {
        bootstrap(&self.brokers)
    }

    /// Returns once each partition has a leader.
    pub fn create_topic(
        &self,
        name: &str,
        partitions: usize,
        replication: usize,
        configs: &[(&str, &str)],
    ) {
        let configs: Vec<_> = configs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let (partitions, replication) = (partitions.to_string(), replication.to_string());
        let mut request = vec!["create", name, &partitions, &replication];
        request.extend(configs.iter().map(String::as_str));
        self.tools.lock().ask(&request);
    }

    /// Raises a topic's number of partitions to `partitions`; returns once each has a leader.
    pub fn grow_topic(&self, name: &str, partitions: usize) {
        self.tools.lock().ask(&["grow", name, &partitions.to_string()]);
    }

    /// Returns when the controller has deleted the topic; brokers hear of it a moment later.
    pub fn delete_topic(&self, name: &str) {
        self.tools.lock().ask(&["delete", name]);
    }

    /// Adds rules for everybody, as `allow topic NAME write` or `deny ...`; each broker hears of
    /// them a moment later. Needs an authorizer.
    pub fn add_acls(&self, acls: &[&str]) {
        assert!(!acls.is_empty(), "rules to add");
        self.tools.lock().ask(&[&["acls"], acls].concat());
    }

    /// Takes away what is denied.
    pub fn deny_nothing(&self) {
        self.tools.lock().ask(&["acls"]);
    }

    /// Limits what clients of this id may produce, in bytes a second.
    pub fn limit_client(&self, client_id: &str, rate: u32) {
        self.tools.lock().ask(&["quota", client_id, &rate.to_string()]);
    }

    /// The ids of the producers that the leader of a topic's partition 0 remembers.
    pub fn producer_ids(&self, topic: &str) -> Vec<i64> {
        let answer = self.tools.lock().ask(&["producers", topic]);
        answer.iter().map(|id| id.parse().expect("a number")).collect()
    }

    /// The broker that leads a partition; `None` while there is none.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        let partitions = self.tools.lock().partitions(topic);
        partitions.iter().find(|p| p.partition == partition).and_then(|p| p.leader)
    }

    /// The brokers that are to hold a partition, in sync or not.
    pub fn replicas(&self, topic: &str, partition: i32) -> Vec<i32> {
        let partitions = self.tools.lock().partitions(topic);
        let of = partitions.into_iter().find(|p| p.partition == partition);
        of.unwrap_or_else(|| panic!("{topic} has no partition {partition}")).replicas
    }

    /// Waits until just so many replicas of a partition are in sync, as when others have died.
    pub fn wait_shrunk(&self, topic: &str, partition: i32, replicas: usize) {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let partitions = self.tools.lock().partitions(topic);
            let of = partitions.iter().find(|p| p.partition == partition);
            if of.is_some_and(|p| p.in_sync_replicas == replicas) {
                return;
            }
            assert!(Instant::now() < deadline, "{topic} never had {replicas} replicas in sync");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until each partition of a topic has a leader and so many replicas in sync.
    pub fn wait_in_sync(&self, topic: &str, replicas: usize) {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let partitions = self.tools.lock().partitions(topic);
            if partitions.iter().all(|p| p.leader.is_some() && p.in_sync_replicas >= replicas) {
                return;
            }
            assert!(Instant::now() < deadline, "{topic} never had {replicas} replicas in sync");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What a topic holds at this moment, by Kafka's own consumer, sorted by partition and offset;
    /// only the first `max` records to arrive. Open and aborted transactions are included.
    pub fn consume(&self, topic: &str, max: usize) -> Vec<ConsumedRecord> {
        self.tools.lock().consume(topic, max, "read_uncommitted")
    }

    /// The lines that Kafka's DumpLogSegments prints of one replica: a line a batch (`baseOffset:`
    /// up to `crc: N isvalid: true`), each followed by its records' lines.
    pub fn dump_log(&self, broker: i32, topic: &str, partition: i32) -> Vec<String> {
        let folder = self.broker(broker).data().join(format!("{topic}-{partition}"));
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut segments: Vec<String> = entries
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|e| e == "log"))
            .map(|path| path.display().to_string())
            .collect();
        segments.sort();
        let files = segments.join(",");
        let arguments = ["--deep-iteration", "--print-data-log", "--files", &files];
        let dump = self.run("org.apache.kafka.tools.DumpLogSegments", &arguments, "");
        dump.lines().map(str::to_owned).collect()
    }

    /// Runs a class of Kafka's jars to its end, gives what it printed, panics if it fails.
    pub fn run(&self, class: &str, arguments: &[&str], input: &str) -> String {
        let mut command = self.kafka.java(256, "error");
        command.arg(class).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("java starts");
        let mut stdin = child.stdin.take().expect("its stdin was just piped");
        let output = std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(input.as_bytes()));
            child.wait_with_output().expect("its output can be read")
        });
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{class}: {}: {complaint}", output.status);
        String::from_utf8(output.stdout).expect("its output is UTF-8")
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill(&self, broker: i32) {
        drop(self.broker(broker).process.lock().take());
    }

    /// SIGSTOP: connections stay open, and nothing is answered.
    pub fn pause(&self, broker: i32) {
        self.broker(broker).signal(Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn resume(&self, broker: i32) {
        self.broker(broker).signal(Signal::SIGCONT);
    }

    /// Starts a broker again, on the same ports and data, after a clean stop if it runs; returns
    /// when it lists all brokers that run.
    pub fn restart(&self, id: i32) {
        let broker = self.broker(id);
        let running = broker.process.lock().take();
        if let Some(process) = running {
            process.stop(STOP_GRACE);
        }
        broker.start(self.kafka);
        let live = self.brokers.iter().filter(|b| b.is_running()).count();
        broker.wait_until_it_lists(live).unwrap_or_else(|log| panic!("Kafka: {log}"));
    }

    /// Resumes brokers that are paused and starts those that are down.
    pub fn mend(&self) {
        for broker in &self.brokers {
            if broker.is_running() {
                broker.signal(Signal::SIGCONT);
            } else {
                broker.start(self.kafka);
            }
        }
        for broker in &self.brokers {
            let up = broker.wait_until_it_lists(self.brokers.len());
            up.unwrap_or_else(|log| panic!("Kafka: {log}"));
        }
    }

    fn broker(&self, id: i32) -> &Broker {
        self.brokers.iter().find(|b| b.id == id).unwrap_or_else(|| panic!("no broker {id}"))
    }
}

impl Drop for Cluster {
    /// Kills at once: combined brokers that stop together lose their quorum, and would wait for it.
    fn drop(&mut self) {
        for broker in &self.brokers {
            self.kill(broker.id);
        }
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

impl Broker {
    fn new(id: i32, cluster: &Path) -> Self {
        let folder = cluster.join(format!("broker-{id}"));
        Self { id, port: free_port(), folder, process: Mutex::new(None) }
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn config_file(&self) -> PathBuf {
        self.folder.join("server.properties")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// The file that it is started with; `configs` come last, and so have the last word.
    fn config(&self, controllers: &[u16], brokers: usize, configs: &[(&str, &str)]) -> String {
        let mut roles = "broker".to_owned();
        let mut listeners = format!("PLAINTEXT://127.0.0.1:{}", self.port);
        let mut voters = Vec::new();
        for (id, port) in (1..).zip(controllers) {
            voters.push(format!("{id}@127.0.0.1:{port}"));
            if id == self.id {
                roles.push_str(",controller");
                listeners.push_str(&format!(",CONTROLLER://127.0.0.1:{port}"));
            }
        }
        let replication = brokers.min(3);
        let mut config = format!(
            "node.id={}\nprocess.roles={roles}\nlisteners={listeners}\n\
             controller.quorum.voters={}\ncontroller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             log.dirs={}\noffsets.topic.replication.factor={replication}\n\
             transaction.state.log.replication.factor={replication}\n\
             transaction.state.log.min.isr={}\n{BROKER}",
            self.id,
            voters.join(","),
            self.data().display(),
            if replication < 3 { 1 } else { 2 },
        );
        for (key, value) in configs {
            config.push_str(&format!("{key}={value}\n"));
        }
        config
    }

    fn start(&self, kafka: &Installation) {
        let mut command = kafka.java(512, "info");
        command.arg("kafka.Kafka").arg(self.config_file());
        let log = append_to(&self.log_file());
        *self.process.lock() = Some(Guarded::spawn(&command, &log).expect("sh and java start"));
    }

    fn is_running(&self) -> bool {
        self.process.lock().as_mut().is_some_and(Guarded::is_running)
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.lock();
        process.as_ref().unwrap_or_else(|| panic!("broker {} is down", self.id)).signal(signal);
    }

    /// Until its metadata names so many brokers. The error is the end of its log.
    fn wait_until_it_lists(&self, brokers: usize) -> Result<(), String> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let listed = brokers_listed_at(self.port).unwrap_or(0);
            if listed >= brokers {
                return Ok(());
            }
            if !self.is_running() || Instant::now() > deadline {
                let tail = tail(&self.log_file());
                let id = self.id;
                return Err(format!("broker {id} lists {listed} of {brokers} brokers\n{tail}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Makes the brokers' metadata folders, all at once: each is a JVM's start.
fn format(kafka: &Installation, brokers: &[Broker]) -> Result<(), String> {
    let format_one = |broker: &Broker| {
        let log = append_to(&broker.log_file());
        let mut command = kafka.java(256, "error");
        // Any 16 bytes in base64 are a cluster's id.
        command.args(["kafka.tools.StorageTool", "format", "-t", "a2Fma2EtcHJvZHVjZXItMA"]);
        command.arg("-c").arg(broker.config_file()).stdin(Stdio::null());
        let out = log.try_clone().expect("a log");
        let status = command.stdout(out).stderr(log).status().expect("java starts");
        if status.success() { Ok(()) } else { Err(tail(&broker.log_file())) }
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = brokers.iter().map(|b| scope.spawn(move || format_one(b))).collect();
        all.into_iter().try_for_each(|one| one.join().expect("it does not panic"))
    })
}

fn bootstrap(brokers: &[Broker]) -> String {
    let all: Vec<_> = brokers.iter().map(|b| format!("127.0.0.1:{}", b.port)).collect();
    all.join(",")
}

/// How many brokers the Metadata response (v0) of the broker at this port names.
pub fn brokers_listed_at(port: u16) -> io::Result<usize> {
    let limit = Duration::from_secs(5);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    // Size 14; key 3, version 0, correlation id 1, no client id; an array of no topics.
    stream.write_all(b"\0\0\0\x0e\0\x03\0\0\0\0\0\x01\xff\xff\0\0\0\0")?;
    let mut answer = [0; 12]; // size, correlation id, number of brokers
    stream.read_exact(&mut answer)?;
    let [.., a, b, c, d] = answer;
    Ok(usize::try_from(i32::from_be_bytes([a, b, c, d])).unwrap_or(0))
}

/// Below the range from which the kernel serves outgoing connections: one of those must not sit
/// on a broker's port while it is down.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() as u16;
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + start.wrapping_mul(16).wrapping_add(step) % 12_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A folder for a cluster, named after this process. Those of processes that are gone are removed:
/// until then their logs can be read.
pub fn new_folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kafka-clusters");
    fs::create_dir_all(&all).expect("a folder for clusters");
    for entry in fs::read_dir(&all).expect("the folder can be read").flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|n| n.split('-').next()).and_then(|n| n.parse().ok());
        if owner.is_some_and(|pid: u32| !process::exists(pid)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = all.join(format!("{}-{number}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder for the cluster");
    folder
}

pub fn append_to(path: &Path) -> File {
    let opened = File::options().create(true).append(true).open(path);
    opened.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(25)..].join("\n");
    format!("{}:\n{last}", log.display())
}
