//! The harness itself, proven with Kafka's own producer before ours relies on it.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use crate::kafka_harness::{Cluster, ConsumedRecord, TimestampType};
use crate::support::{one_broker, three_brokers};

const CONSOLE_PRODUCER: &str = "org.apache.kafka.tools.ConsoleProducer";

/// Kafka's console producer with a line a record: headers, key and value parted by tabs, `<null>`
/// for null.
fn produce(cluster: &Cluster, topic: &str, lines: &str) {
    let bootstrap = cluster.bootstrap();
    let mut arguments = vec!["--bootstrap-server", &bootstrap, "--topic", topic];
    arguments.extend(["--reader-property", "parse.headers=true"]);
    arguments.extend(["--reader-property", "parse.key=true"]);
    arguments.extend(["--reader-property", "null.marker=<null>"]);
    cluster.run(CONSOLE_PRODUCER, &arguments, lines);
}

fn values(records: &[ConsumedRecord]) -> Vec<&str> {
    records
        .iter()
        .map(|r| std::str::from_utf8(r.value.as_deref().expect("a value")).expect("UTF-8"))
        .collect()
}

#[test]
fn harness_reads_back_what_the_console_producer_wrote() {
    let test = "harness_reads_back_what_the_console_producer_wrote";
    let Some(cluster) = one_broker(test) else { return };
    cluster.create_topic("exact", 1, 1, &[]);
    let lines = "a:1,b:2,a:<null>,c:\tkey\tvalue\n\
        <null>\t<null>\tno key, größer\n\
        d:4\t\t<null>\n\
        <null>\tk\t\n";
    produce(cluster, "exact", lines);

    let some = |text: &str| Some(text.as_bytes().to_vec());
    let records = cluster.consume("exact", usize::MAX);
    let seen: Vec<_> = records.iter().map(|r| (r.key.clone(), r.value.clone())).collect();
    let keys_and_values = [
        (some("key"), some("value")),
        (None, some("no key, größer")),
        (some(""), None),
        (some("k"), some("")),
    ];
    assert_eq!(seen, keys_and_values);
    let header = |name: &str, value| (name.to_owned(), value);
    assert_eq!(
        records[0].headers,
        [header("a", some("1")), header("b", some("2")), header("a", None), header("c", some(""))]
    );
    assert_eq!(records[1].headers, []);
    assert_eq!(records[2].headers, [header("d", some("4"))]);
    let places: Vec<_> = records.iter().map(|r| (r.partition, r.offset)).collect();
    assert_eq!(places, [(0, 0), (0, 1), (0, 2), (0, 3)]);
    assert!(records.iter().all(|r| r.timestamp_type == TimestampType::CreateTime));
    assert_eq!(cluster.consume("exact", 2), records[..2]);

    // The log itself tells the same.
    let dump = cluster.dump_log(1, "exact", 0);
    assert_eq!(dump.iter().filter(|l| l.contains("payload: value")).count(), 1, "{dump:#?}");
    let batches: Vec<_> = dump.iter().filter(|l| l.starts_with("baseOffset:")).collect();
    assert!(
        !batches.is_empty() && batches.iter().all(|l| l.contains("isvalid: true")),
        "{dump:#?}"
    );

    cluster.create_topic("stamped", 1, 1, &[("message.timestamp.type", "LogAppendTime")]);
    produce(cluster, "stamped", "<null>\t<null>\tx\n");
    let records = cluster.consume("stamped", usize::MAX);
    assert_eq!(records[0].timestamp_type, TimestampType::LogAppendTime);
    cluster.grow_topic("stamped", 3);
    assert_eq!(cluster.leader("stamped", 2), Some(1));
}

#[test]
fn harness_kills_pauses_and_restarts_brokers() {
    let test = "harness_kills_pauses_and_restarts_brokers";
    let Some(cluster) = three_brokers(test) else { return };
    cluster.create_topic("kept", 1, 3, &[("min.insync.replicas", "2")]);
    cluster.wait_in_sync("kept", 3);
    produce(&cluster, "kept", "<null>\t<null>\t1\n");

    let first = cluster.leader("kept", 0).expect("a leader");
    cluster.kill(first);
    produce(&cluster, "kept", "<null>\t<null>\t2\n");
    let second = cluster.leader("kept", 0).expect("another leader");
    assert_ne!(second, first);
    assert_eq!(values(&cluster.consume("kept", usize::MAX)), ["1", "2"]);
    cluster.restart(first);
    cluster.wait_in_sync("kept", 3);

    cluster.pause(second);
    produce(&cluster, "kept", "<null>\t<null>\t3\n");
    assert_ne!(cluster.leader("kept", 0), Some(second));
    cluster.resume(second);
    cluster.wait_in_sync("kept", 3);
    cluster.restart(second); // this time it runs, and stops cleanly
    cluster.wait_in_sync("kept", 3);
    assert_eq!(values(&cluster.consume("kept", usize::MAX)), ["1", "2", "3"]);
    let dump = cluster.dump_log(first, "kept", 0);
    assert_eq!(dump.iter().filter(|l| l.contains("payload: ")).count(), 3, "{dump:#?}");
}

/// Another test of this binary, alone, with an empty cache and nothing on its path, or only Java.
fn run_small_test(with_java: bool, kafka_tests: &str) -> Output {
    let name = format!("path-{with_java}-{kafka_tests}-{}", std::process::id());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(folder.join("bin")).expect("a folder");
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    if with_java {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let java = std::env::split_paths(&path).map(|f| f.join("java")).find(|f| f.is_file());
        if let Some(java) = java {
            symlink(java, folder.join("bin/java")).expect("a link");
        }
    } else {
        command.env_remove("JAVA_HOME");
    }
    let output = command
        .args(["--exact", SMALL_TEST])
        .env("PATH", folder.join("bin"))
        .env("KAFKA_PRODUCER_CACHE", folder.join("cache"))
        .env("KAFKA_TESTS", kafka_tests)
        .env_remove("KAFKA_HOME")
        .output()
        .expect("this binary runs");
    std::fs::remove_dir_all(&folder).expect("the folder is there");
    output
}

/// Starts one broker, and does little with it.
const SMALL_TEST: &str = "contents::the_brokers_own_timestamps_are_reported";

fn assert_missing(program: &str, with_java: bool) {
    let skipped = run_small_test(with_java, "");
    let said = String::from_utf8_lossy(&skipped.stderr);
    assert!(skipped.status.success(), "{said}");
    let reason = format!("SKIPPED the_brokers_own_timestamps_are_reported: no {program}: ");
    assert!(said.lines().any(|line| line.contains(&reason)), "{said}");
    let failed = run_small_test(with_java, "require");
    let said = String::from_utf8_lossy(&failed.stdout);
    assert!(!failed.status.success() && said.contains(&format!("no {program}: ")), "{said}");
}

#[test]
fn a_missing_java_is_named_and_skips_a_test_unless_it_is_required() {
    assert_missing("java", false);
}

#[test]
fn a_missing_maven_is_named_and_skips_a_test_unless_it_is_required() {
    let test = "a_missing_maven_is_named_and_skips_a_test_unless_it_is_required";
    if one_broker(test).is_some() {
        assert_missing("mvn", true); // since Java is there
    }
}
