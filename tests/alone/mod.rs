//! Tests of a whole process: each runs in one of its own, the test binary once more with the test's
//! name and a role, so that nothing beside it is measured. The broker has another.

#![allow(dead_code)] // each test binary uses a part of it

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use kafka_producer::testing::TestCluster;

/// The environment variable that tells a process of the test binary what it is for.
const ROLE: &str = "KAFKA_PRODUCER_TEST_ROLE";
const BODY: &str = "body";
const BROKER: &str = "broker";

/// A test, named `test`, of a process of its own: there `body` runs. The broker that it may start
/// is `cluster`, in a third process.
#[track_caller]
pub fn alone(test: &str, cluster: fn() -> TestCluster, body: fn(&Alone<'_>)) {
    match std::env::var(ROLE).as_deref() {
        Ok(BODY) => body(&Alone(test)),
        Ok(BROKER) => serve(&cluster()),
        _ => pass(test),
    }
}

/// A test's own process.
pub struct Alone<'a>(&'a str);

impl Alone<'_> {
    pub fn start_broker(&self) -> Broker {
        let mut process = Process::start(self.0, BROKER);
        let address = process.hear(LISTENS);
        Broker { process, address }
    }
}

/// A process that runs one test in a role. It ends, at the latest, when its input does.
struct Process {
    child: Child,
    /// Kept open, for the process to write to until its end.
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(test: &str, role: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "--test-threads=1", test])
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// What comes after `sign` on the next line that has it.
    #[track_caller]
    fn hear(&mut self, sign: &str) -> String {
        let mut lines = self.output.by_ref().lines().map_while(Result::ok);
        let told = lines.find_map(|line| Some(line.split_once(sign)?.1.to_owned()));
        told.unwrap_or_else(|| panic!("the process ends without {sign:?}"))
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.output.read_to_end(&mut Vec::new());
        let _ = self.child.wait();
    }
}

/// Runs a test's body in a process of its own, which has to pass; what it prints is printed.
#[track_caller]
fn pass(test: &str) {
    let mut process = Process::start(test, BODY);
    let mut printed = String::new();
    process.output.read_to_string(&mut printed).unwrap();
    print!("{printed}");
    let status = process.child.wait().unwrap();
    assert!(status.success() && printed.contains("1 passed"), "{test}: {status}");
}

/// A broker in another process.
pub struct Broker {
    process: Process,
    pub address: String,
}

const LISTENS: &str = "the broker listens at ";
const FREEZE: &str = "freeze";
const THAW: &str = "thaw";
const STOP: &str = "stop";
const DONE: &str = "done: ";

impl Broker {
    /// From now on it answers nothing.
    pub fn freeze(&mut self) {
        self.order(FREEZE);
    }

    /// It answers what it was asked meanwhile.
    pub fn thaw(&mut self) {
        self.order(THAW);
    }

    /// It breaks its connections and refuses new ones.
    pub fn stop(&mut self) {
        self.order(STOP);
    }

    fn order(&mut self, what: &str) {
        self.process.tell(what);
        assert_eq!(self.process.hear(DONE), what);
    }
}

/// The process of a [`Broker`]: serves until the input ends.
fn serve(cluster: &TestCluster) {
    let mut out = std::io::stdout();
    let mut say = |line: String| {
        writeln!(out, "\n{line}").unwrap();
        out.flush().unwrap();
    };
    say(format!("{LISTENS}{}", cluster.bootstrap_servers()));
    for line in std::io::stdin().lines().map_while(Result::ok) {
        match line.as_str() {
            FREEZE => cluster.freeze_broker(1),
            THAW => cluster.thaw_broker(1),
            STOP => cluster.stop_broker(1),
            _ => continue,
        }
        say(format!("{DONE}{line}"));
    }
}
