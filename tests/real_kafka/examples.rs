//! The example programs, with Kafka's consumer looking at what they wrote.
//!
//! They lie beside this binary: `cargo test` builds them, `cargo test --test real_kafka` does not
//! (`cargo build --examples` does).

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use crate::kafka_harness::{Cluster, ConsumedRecord};
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

/// The first `records` lines that Kafka's own console consumer prints of a topic.
fn printed_by_kafka(cluster: &Cluster, topic: &str, records: usize) -> Vec<String> {
    let (bootstrap, records) = (cluster.bootstrap(), records.to_string());
    let mut arguments = vec!["--bootstrap-server", &bootstrap, "--topic", topic];
    arguments.extend(["--from-beginning", "--max-messages", &records]);
    for property in ["print.headers=true", "print.key=true", "null.literal=<null>"] {
        arguments.extend(["--formatter-property", property]);
    }
    let class = "org.apache.kafka.tools.consumer.ConsoleConsumer";
    cluster.run(class, &arguments, "").lines().map(str::to_owned).collect()
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
    for (topic, more) in [("console", &[][..]), ("console-sync", &["--sync"])] {
        cluster.create_topic(topic, 1, 1, &[]);
        let arguments = [
            ["--topic", topic],
            ["--reader-property", "parse.headers=true"],
            ["--reader-property", "parse.key=true"],
            ["--reader-property", "null.marker=<null>"],
        ];
        let arguments = [arguments.as_flattened(), more].concat();
        let lines = "a:1,b:2,a:<null>,c:\tkey\tvalue\n<null>\t<null>\tgrößer\nd:4\t\t<null>\n";
        output_of(run(cluster, "console_producer", &arguments, lines));

        let some = |text: &str| Some(text.as_bytes().to_vec());
        let header = |name: &str, value| (name.to_owned(), value);
        let log = cluster.consume(topic, usize::MAX);
        let seen: Vec<_> = log.iter().map(|r| (r.key.clone(), r.value.clone())).collect();
        assert_eq!(seen, [(some("key"), some("value")), (None, some("größer")), (some(""), None)]);
        let (one, two, empty) = (some("1"), some("2"), some(""));
        let headers = [header("a", one), header("b", two), header("a", None), header("c", empty)];
        assert_eq!(log[0].headers, headers);
        assert_eq!(log[1].headers, []);
        assert_eq!(log[2].headers, [header("d", some("4"))]);
        let printed = printed_by_kafka(cluster, topic, 3);
        let lines =
            ["a:1,b:2,a:<null>,c:\tkey\tvalue", "NO_HEADERS\t<null>\tgrößer", "d:4\t\t<null>"];
        assert_eq!(printed, lines);
    }
}

#[test]
fn the_console_producer_tells_of_a_line_that_the_broker_refused() {
    let test = "the_console_producer_tells_of_a_line_that_the_broker_refused";
    let Some(cluster) = one_broker(test) else { return };
    let lines = format!("first\n{}\nlast\n", "x".repeat(1000));
    for (topic, more) in [("console-small", &[][..]), ("console-small-sync", &["--sync"])] {
        cluster.create_topic(topic, 1, 1, &[("max.message.bytes", "500")]);
        let arguments = [&["--topic", topic], more].concat();
        let output = run(cluster, "console_producer", &arguments, &lines);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{complaint}");
        assert!(complaint.contains("line 2: "), "{complaint}");
        assert!(complaint.contains("MESSAGE_TOO_LARGE"), "{complaint}");
        let log = cluster.consume(topic, usize::MAX);
        let values: Vec<_> = log.iter().map(|r| r.value.as_deref()).collect();
        assert_eq!(values, [Some(&b"first"[..]), Some(&b"last"[..])]);
    }
}

/// The options of a run of `producer_perf`, and how many records it sends.
const PERF_RUNS: [(&str, u32); 6] = [
    ("--delivery none", 20_000),
    ("--delivery handle --threads 8", 20_000),
    ("--delivery callback --threads 2 --latency-sample 1", 20_000),
    ("--delivery handle --threads 3 --throughput 5000", 10_000),
    ("--delivery callback --throughput 2000 --latency-sample 100", 2_000),
    ("--sync --threads 2", 500),
];

#[test]
fn the_perf_tool_counts_what_is_in_the_log() {
    let Some(cluster) = one_broker("the_perf_tool_counts_what_is_in_the_log") else { return };
    for (n, (options, records)) in PERF_RUNS.into_iter().enumerate() {
        let topic = format!("perf-{n}");
        cluster.create_topic(&topic, 3, 1, &[]);
        let number = records.to_string();
        let arguments = ["--topic", &topic, "--payload-monotonic", "--num-records", &number];
        let arguments = arguments.into_iter().chain(options.split(' ')).collect::<Vec<_>>();
        let begun = Instant::now();
        let told = output_of(run(cluster, "producer_perf", &arguments, ""));
        let counts = ["sent", "delivered", "failed"].map(|name| last_line_tells(&told, name));
        assert_eq!(counts, [u64::from(records), u64::from(records), 0], "{options}: {told}");
        if let Some((_, rate)) = options.split_once("--throughput ") {
            let rate: f64 = rate.split(' ').next().unwrap_or_default().parse().expect("a rate");
            let least = f64::from(records) / rate * 0.9; // a tenth is let pass at once
            let took = begun.elapsed().as_secs_f64();
            assert!(took >= least, "{options}: {took} s, and not {least} s: {told}");
        }
        // Each thread counts through its share: every number is there once.
        let log = cluster.consume(&topic, usize::MAX);
        let value = |r: &ConsumedRecord| {
            let text = std::str::from_utf8(r.value.as_deref().expect("a value")).expect("UTF-8");
            text.parse::<u32>().expect("a number")
        };
        let mut values: Vec<_> = log.iter().map(value).collect();
        values.sort_unstable();
        assert!(values.iter().copied().eq(0..records), "{options}: {} records", values.len());
    }
    let printed = printed_by_kafka(cluster, "perf-5", 500);
    let (mut printed, mut sent) = (printed, Vec::new());
    printed.sort_unstable();
    sent.extend((0..500).map(|number| format!("NO_HEADERS\t<null>\t{number}")));
    sent.sort_unstable();
    assert_eq!(printed, sent);
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

/// A fifth of the storm, since it takes as long as all callbacks together; the same time-out.
#[test]
fn the_callback_storm_loses_records_where_callbacks_run_on_the_sending_thread() {
    let test = "the_callback_storm_loses_records_where_callbacks_run_on_the_sending_thread";
    let Some(cluster) = one_broker(test) else { return };
    cluster.create_topic("storm-inline", 16, 1, &[]);
    let arguments = ["--topic", "storm-inline", "--executor", "inline", "--records", "200"];
    let output = run(cluster, "callback_storm", &arguments, "");
    let told = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{told}");
    let names = ["sent", "refused", "callbacks"];
    let counts = names.map(|name| last_line_tells(&told, name));
    assert_eq!(counts, [10_000, 0, 10_000], "{told}");
    let [delivered, failed] = ["delivered", "failed"].map(|name| last_line_tells(&told, name));
    assert!(failed > 0 && delivered + failed == 10_000, "{told}");
    // What expired under way may be in the log all the same.
    let logged = cluster.consume("storm-inline", usize::MAX).len() as u64;
    assert!((delivered..=10_000).contains(&logged), "{logged} in the log: {told}");
}
