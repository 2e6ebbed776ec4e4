//! The example programs, with Kafka's consumer looking at what they wrote.
//!
//! They lie beside this binary: `cargo test` builds them, `cargo test --test real_kafka` does not
//! (`cargo build --examples` does).

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::kafka_harness::Cluster;
use crate::support::one_broker;

/// Runs an example to its end with `input` on its standard input.
fn run(cluster: &Cluster, name: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(path_of(name))
        .args(["--bootstrap-server", &cluster.bootstrap()])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the example starts");
    let mut stdin = child.stdin.take().expect("its stdin was just piped");
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input.as_bytes()));
        child.wait_with_output().expect("its output can be read")
    })
}

fn path_of(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("a path");
    let profile = this.ancestors().nth(2).expect("profile/deps/test");
    let path = profile.join("examples").join(name);
    assert!(path.exists(), "{} is built by `cargo build --examples`", path.display());
    path
}

/// What it wrote to standard output, once it is known to have succeeded.
fn output_of(output: Output) -> String {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {complaint}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The number after `name=` in the last line.
fn last_line_tells(output: &str, name: &str) -> u64 {
    let last = output.lines().last().expect("a line");
    let value = last.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    value.and_then(|v| v.parse().ok()).unwrap_or_else(|| panic!("no number {name} in: {last}"))
}

#[test]
fn the_console_producer_writes_what_kafkas_own_would() {
    let test = "the_console_producer_writes_what_kafkas_own_would";
    let Some(cluster) = one_broker(test) else { return };
    cluster.create_topic("console", 1, 1, &[]);
    let arguments = [
        ["--topic", "console"],
        ["--reader-property", "parse.headers=true"],
        ["--reader-property", "parse.key=true"],
        ["--reader-property", "null.marker=<null>"],
    ];
    let lines = "a:1,b:2,a:<null>,c:\tkey\tvalue\n<null>\t<null>\tgrößer\nd:4\t\t<null>\n";
    output_of(run(cluster, "console_producer", arguments.as_flattened(), lines));

    let some = |text: &str| Some(text.as_bytes().to_vec());
    let header = |name: &str, value| (name.to_owned(), value);
    let log = cluster.consume("console", usize::MAX);
    let seen: Vec<_> = log.iter().map(|r| (r.key.clone(), r.value.clone())).collect();
    assert_eq!(seen, [(some("key"), some("value")), (None, some("größer")), (some(""), None)]);
    assert_eq!(
        log[0].headers,
        [header("a", some("1")), header("b", some("2")), header("a", None), header("c", some(""))]
    );
    assert_eq!(log[1].headers, []);
    assert_eq!(log[2].headers, [header("d", some("4"))]);
}

#[test]
fn the_console_producer_tells_of_a_line_that_the_broker_refused() {
    let test = "the_console_producer_tells_of_a_line_that_the_broker_refused";
    let Some(cluster) = one_broker(test) else { return };
    cluster.create_topic("console-small", 1, 1, &[("max.message.bytes", "500")]);
    let lines = format!("first\n{}\nlast\n", "x".repeat(1000));
    let output = run(cluster, "console_producer", &["--topic", "console-small"], &lines);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("MESSAGE_TOO_LARGE"), "{complaint}");
    let log = cluster.consume("console-small", usize::MAX);
    let values: Vec<_> = log.iter().map(|r| r.value.as_deref()).collect();
    assert_eq!(values, [Some(&b"first"[..]), Some(&b"last"[..])]);
}

#[test]
fn the_perf_tool_counts_what_is_in_the_log() {
    let Some(cluster) = one_broker("the_perf_tool_counts_what_is_in_the_log") else { return };
    cluster.create_topic("perf", 3, 1, &[]);
    let mut expected = 0;
    for delivery in ["none", "handle", "callback"] {
        let arguments = ["--topic", "perf", "--num-records", "20000", "--record-size", "100"];
        let more = ["--throughput", "-1", "--threads", "2", "--delivery", delivery];
        let all = [&arguments[..], &more[..]].concat();
        let told = output_of(run(cluster, "producer_perf", &all, ""));
        let counts = ["sent", "delivered", "failed"].map(|name| last_line_tells(&told, name));
        assert_eq!(counts, [20_000, 20_000, 0], "{delivery}: {told}");
        expected += 20_000;
    }
    let log = cluster.consume("perf", usize::MAX);
    assert_eq!(log.len(), expected);
    assert!(log.iter().all(|r| r.value.as_ref().is_some_and(|v| v.len() == 100)));
}

#[test]
fn the_callback_storm_loses_nothing() {
    let Some(cluster) = one_broker("the_callback_storm_loses_nothing") else { return };
    cluster.create_topic("storm", 16, 1, &[]);
    let arguments = ["--topic", "storm", "--executor", "threads:16"];
    let told = output_of(run(cluster, "callback_storm", &arguments, ""));
    let names = ["sent", "delivered", "failed", "refused", "callbacks"];
    let counts = names.map(|name| last_line_tells(&told, name));
    assert_eq!(counts, [50_000, 50_000, 0, 0, 50_000], "{told}");
    assert_eq!(cluster.consume("storm", usize::MAX).len(), 50_000);
}
