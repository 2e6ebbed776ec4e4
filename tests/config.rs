//! Configuration as users meet it: keys in, values in force or an error that names the key out.

use std::time::Duration;

use kafka_producer::{
    Acks, Error, ErrorClass, MetadataRecoveryStrategy, PartitionerKind, ProducerConfig,
    RecordingLevel, Support, ValueOrigin, ValueType,
};
use proptest::prelude::*;

fn config(entries: &[(&str, &str)]) -> Result<ProducerConfig, Error> {
    let all = [("bootstrap.servers", "localhost:9092")].iter().chain(entries).copied();
    ProducerConfig::from_properties(all)
}

#[track_caller]
fn value(entries: &[(&str, &str)], key: &str) -> String {
    config(entries).unwrap().value(key).unwrap().to_owned()
}

/// The error's text; each must be an error of the configuration.
#[track_caller]
fn refusal(entries: &[(&str, &str)]) -> String {
    let error = config(entries).unwrap_err();
    assert!(matches!(error, Error::Config(_)), "{error:?}");
    assert_eq!(error.class(), ErrorClass::InvalidConfiguration);
    error.to_string()
}

#[track_caller]
fn assert_refused(entries: &[(&str, &str)], parts: &[&str]) {
    let text = refusal(entries);
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// CFG-17, CFG-19: the defaults.
#[test]
fn nothing_but_bootstrap_servers_gives_kafkas_defaults() {
    let config = config(&[]).unwrap();
    let supported = ProducerConfig::keys().filter(|key| key.support() == Support::Supported);
    for key in supported.filter(|key| key.name() != "bootstrap.servers") {
        assert_eq!(config.value(key.name()), Some(key.default_value().unwrap_or("null")));
    }
    assert_eq!(config.value("sasl.mechanism"), None);
}

/// CFG-01.
#[test]
fn idempotence_is_on_by_default_and_asked_for() {
    for entries in [&[][..], &[("enable.idempotence", "true")], &[("acks", "-1")]] {
        assert_eq!(value(entries, "enable.idempotence"), "true");
        assert_eq!(value(entries, "acks"), "all");
        assert_eq!(value(entries, "retries"), "2147483647");
    }
}

/// CFG-03, CFG-07, CFG-08, CFG-10.
#[test]
fn idempotence_left_to_its_default_gives_way() {
    for (key, set) in [
        ("acks", "0"),
        ("acks", "1"),
        ("retries", "0"),
        ("max.in.flight.requests.per.connection", "6"),
    ] {
        assert_eq!(value(&[(key, set)], "enable.idempotence"), "false", "{key}={set}");
        assert_eq!(value(&[(key, set)], key), set);
    }
    let five = [("max.in.flight.requests.per.connection", "5")];
    assert_eq!(value(&five, "enable.idempotence"), "true");
    let off = [("acks", "all"), ("enable.idempotence", "false")];
    assert_eq!(value(&off, "enable.idempotence"), "false");
    assert_eq!(value(&off, "acks"), "all");
}

/// CFG-04, CFG-09, CFG-11.
#[test]
fn idempotence_asked_for_refuses_what_contradicts_it() {
    for (key, set) in [
        ("acks", "0"),
        ("acks", "1"),
        ("retries", "0"),
        ("max.in.flight.requests.per.connection", "6"),
    ] {
        assert_refused(&[("enable.idempotence", "true"), (key, set)], &["enable.idempotence", key]);
    }
}

/// CFG-12.
#[test]
fn a_delivery_timeout_that_was_set_must_cover_linger_and_one_request() {
    let with = |delivery| {
        [("linger.ms", "1000"), ("request.timeout.ms", "2000"), ("delivery.timeout.ms", delivery)]
    };
    assert_refused(&with("2999"), &["delivery.timeout.ms", "2999", "1000", "2000"]);
    assert_eq!(value(&with("3000"), "delivery.timeout.ms"), "3000");
}

#[test]
fn a_delivery_timeout_left_to_its_default_is_raised() {
    assert_eq!(value(&[("request.timeout.ms", "300000")], "delivery.timeout.ms"), "300005");
    let huge = [("linger.ms", "9223372036854775807")];
    assert_eq!(value(&huge, "delivery.timeout.ms"), "2147483647");
}

/// CFG-19.
#[test]
fn backoffs_are_capped_by_their_most() {
    let alone = [("reconnect.backoff.ms", "700")];
    assert_eq!(value(&alone, "reconnect.backoff.max.ms"), "700");
    let both = [("reconnect.backoff.ms", "700"), ("reconnect.backoff.max.ms", "900")];
    assert_eq!(value(&both, "reconnect.backoff.max.ms"), "900");
    assert_eq!(value(&both, "reconnect.backoff.ms"), "700");
    for (first, most) in [
        ("reconnect.backoff.ms", "reconnect.backoff.max.ms"),
        ("retry.backoff.ms", "retry.backoff.max.ms"),
        ("socket.connection.setup.timeout.ms", "socket.connection.setup.timeout.max.ms"),
    ] {
        let crossed = [(first, "50"), (most, "40")];
        assert_eq!(value(&crossed, first), "40");
        assert_eq!(value(&crossed, most), "40");
    }
    assert_eq!(value(&[("retry.backoff.ms", "5000")], "retry.backoff.ms"), "1000");
}

/// CFG-15, CFG-16, CFG-17, CFG-28, CFG-29: values that are refused.
#[test]
fn values_are_read_by_the_keys_type() {
    assert_eq!(value(&[("linger.ms", " 7 ")], "linger.ms"), "7");
    assert_eq!(value(&[("enable.idempotence", "FALSE")], "enable.idempotence"), "false");
    let servers = [("bootstrap.servers", " a:1 , [::1]:2,,")];
    assert_eq!(value(&servers, "bootstrap.servers"), "a:1,[::1]:2");
    for (key, wrong, allowed) in [
        ("linger.ms", "soon", "a long"),
        ("linger.ms", "", "a long"),
        ("linger.ms", "-1", "at least 0"),
        ("linger.ms", "9223372036854775808", "a long"),
        ("batch.size", "16k", "an int"),
        ("batch.size", "2147483648", "an int"),
        ("batch.size", "1.5", "an int"),
        ("retries", "-1", "0 to 2147483647"),
        ("max.in.flight.requests.per.connection", "0", "at least 1"),
        ("metadata.max.idle.ms", "4999", "at least 5000"),
        ("enable.idempotence", "yes", "true or false"),
        ("acks", "2", "one of all, -1, 0, 1"),
        ("acks", "ALL", "one of all, -1, 0, 1"),
        ("callback.threads", "0", "1 to 1024"),
        ("callback.max.pending", "0", "at least 1"),
        ("metadata.recovery.strategy", "maybe", "one of rebootstrap, none"),
        ("client.dns.lookup", "default", "one of use_all_dns_ips"),
        ("security.protocol", "TLS", "PLAINTEXT"),
        ("compression.type", "brotli", "one of none, gzip"),
    ] {
        assert_refused(&[(key, wrong)], &[key, &format!("`{wrong}`"), allowed]);
    }
}

/// CFG-18.
#[test]
fn socket_buffers_may_be_left_to_the_system() {
    for key in ["send.buffer.bytes", "receive.buffer.bytes"] {
        assert_eq!(value(&[(key, "-1")], key), "-1");
        assert_refused(&[(key, "-2")], &[key, "at least -1"]);
    }
}

/// CFG-26, CFG-30.
#[test]
fn bootstrap_servers_are_required_and_checked_without_resolving_them() {
    let none: [(&str, &str); 0] = [];
    let error = ProducerConfig::from_properties(none).unwrap_err().to_string();
    assert!(error.contains("bootstrap.servers"), "{error}");
    for wrong in ["", " , ", "host", "host:0", "host:70000", ":9092", "::1:9092", "a:1,A:1"] {
        assert_refused(&[("bootstrap.servers", wrong)], &["bootstrap.servers"]);
    }
    for right in ["no-such-host.invalid:9092", "PLAINTEXT://10.0.0.1:9092", "[::1]:9092"] {
        assert_eq!(value(&[("bootstrap.servers", right)], "bootstrap.servers"), right);
    }
}

/// CFG-30.
#[test]
fn an_unknown_key_names_the_nearest_known_one_and_hides_its_value() {
    assert_refused(&[("linger.mss", "5")], &["linger.mss", "unknown", "`linger.ms`"]);
    assert_refused(&[("queue.buffering.max.ms", "5")], &["`linger.ms`"]);
    assert!(!refusal(&[("sasl.jass.config", "hunter2")]).contains("hunter2"));
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let text = refusal(&[("linger.mss", "5"), ("acks", "2"), ("batch.size", "big")]);
    for key in ["linger.mss", "acks", "batch.size"] {
        assert!(text.contains(key), "{text}");
    }
}

/// CFG-16, CFG-22, CFG-28.
#[test]
fn what_is_not_supported_yet_is_accepted_where_it_changes_nothing() {
    for key in ProducerConfig::keys() {
        if let (Support::NotYet { .. }, Some(default)) = (key.support(), key.default_value()) {
            assert!(config(&[(key.name(), default)]).is_ok(), "{}", key.name());
        }
    }
    assert!(config(&[("security.protocol", "plaintext")]).is_ok());
    assert!(config(&[("enable.metrics.push", "false")]).is_ok());
    for (key, set) in [
        ("compression.type", "lz4"),
        ("compression.gzip.level", "9"),
        ("security.protocol", "SASL_SSL"),
        ("transactional.id", "t1"),
        ("interceptor.classes", "com.example.Audit"),
        ("client.dns.lookup", "resolve_canonical_bootstrap_servers_only"),
        ("ssl.endpoint.identification.algorithm", ""),
    ] {
        assert_refused(&[(key, set)], &[key, "known to Kafka, not supported here"]);
    }
    assert_refused(&[("compression.gzip.level", "10")], &["1 to 9 or -1"]);
    assert_refused(&[("transactional.id", "")], &["transactional.id", "not empty"]);
}

/// CFG-32, CFG-33: also of what is not supported yet, so that a wrong value is told as such.
#[test]
fn ranges_include_their_ends() {
    for (key, least, most, below, above) in [
        ("sasl.login.refresh.window.factor", "0.5", "1.0", "0.49", "1.01"),
        ("sasl.login.refresh.window.jitter", "0.0", "0.25", "-0.01", "0.26"),
        ("sasl.login.refresh.min.period.seconds", "0", "900", "-1", "901"),
        ("sasl.login.refresh.buffer.seconds", "0", "3600", "-1", "3601"),
        ("compression.gzip.level", "1", "9", "0", "10"),
        ("compression.lz4.level", "1", "17", "0", "18"),
        ("compression.zstd.level", "-131072", "22", "-131073", "23"),
    ] {
        for inside in [least, most] {
            let text = refusal(&[(key, inside)]);
            assert!(text.contains("not supported here"), "{key}={inside}: {text}");
        }
        for outside in [below, above] {
            let text = refusal(&[(key, outside)]);
            assert!(!text.contains("not supported here"), "{key}={outside}: {text}");
            assert_refused(&[(key, outside)], &[key, " to "]);
        }
    }
}

/// CFG-24.
#[test]
fn what_can_have_no_meaning_here_says_why() {
    let class = "org.apache.kafka.common.serialization.StringSerializer";
    for key in ["key.serializer", "value.serializer"] {
        assert_refused(&[(key, class)], &[key, "without meaning here", "serializers"]);
    }
    let reporter = "org.apache.kafka.common.metrics.JmxReporter";
    assert_refused(&[("metric.reporters", reporter)], &["metric.reporters", "without meaning"]);
}

/// CFG-31.
#[test]
fn no_text_shows_a_secret() {
    let secrets = ProducerConfig::keys().filter(|key| key.value_type() == ValueType::Password);
    let names: Vec<_> = secrets.map(|key| key.name()).collect();
    assert!(names.contains(&"sasl.jaas.config") && names.contains(&"ssl.key.password"));
    for name in names.into_iter().chain(["sasl.jaas.confg"]) {
        let builder = ProducerConfig::builder().property(name, "hunter2");
        assert!(!format!("{builder:?}").contains("hunter2"), "{name}");
        assert!(!builder.build_config().unwrap_err().to_string().contains("hunter2"), "{name}");
    }
}

#[test]
fn partitioners_have_the_names_of_java_and_librdkafka() {
    let round_robin = "org.apache.kafka.clients.producer.RoundRobinPartitioner";
    for name in [round_robin, "consistent_random", "murmur2", "fnv1a_random", "random"] {
        assert_eq!(value(&[("partitioner.class", name)], "partitioner.class"), name);
    }
    let sticky = "org.apache.kafka.clients.producer.UniformStickyPartitioner";
    assert_refused(&[("partitioner.class", sticky)], &["removed it in 4.0", "ignore.keys"]);
    assert_refused(&[("partitioner.class", "modulo")], &["modulo", "murmur2_random", "fnv1a"]);
}

/// What the setters below set, as it is shown.
const SET: &[&str] = &[
    "acks=1",
    "batch.size=14",
    "buffer.memory=16",
    "delivery.timeout.ms=60000",
    "enable.idempotence=false",
    "linger.ms=13",
    "max.block.ms=17",
    "max.in.flight.requests.per.connection=7",
    "max.request.size=15",
    "partitioner.adaptive.partitioning.enable=false",
    "partitioner.availability.timeout.ms=18",
    "partitioner.class=murmur2",
    "partitioner.ignore.keys=true",
    "retries=3",
    "bootstrap.servers=a:1,b:2",
    "client.id=orders",
    "connections.max.idle.ms=23",
    "metadata.max.age.ms=26",
    "metadata.max.idle.ms=5027",
    "metadata.recovery.rebootstrap.trigger.ms=28",
    "metadata.recovery.strategy=none",
    "metrics.num.samples=32",
    "metrics.recording.level=DEBUG",
    "metrics.sample.window.ms=33",
    "receive.buffer.bytes=25",
    "reconnect.backoff.max.ms=20",
    "reconnect.backoff.ms=19",
    "request.timeout.ms=10000",
    "retry.backoff.max.ms=12",
    "retry.backoff.ms=11",
    "send.buffer.bytes=24",
    "socket.connection.setup.timeout.max.ms=22",
    "socket.connection.setup.timeout.ms=21",
    "allow.auto.create.topics=false",
    "unknown.topic.timeout.ms=32",
    "callback.threads=29",
    "callback.max.pending=30",
    "buffer.memory.partition.share=0.25",
    "buffer.memory.broker.share=0.75",
    "wait.ends.linger=false",
    "close.on.drop.timeout.ms=31",
];

#[test]
fn each_setter_sets_its_key() {
    let ms = Duration::from_millis;
    let config = ProducerConfig::builder()
        .bootstrap_servers("a:1,b:2")
        .client_id("orders")
        .acks(Acks::Leader)
        .enable_idempotence(false)
        .retries(3)
        .max_in_flight(7)
        .delivery_timeout(ms(60_000))
        .request_timeout(ms(10_000))
        .retry_backoff(ms(11))
        .retry_backoff_max(ms(12))
        .linger(ms(13))
        .batch_size(14)
        .max_request_size(15)
        .buffer_memory(16)
        .buffer_memory_partition_share(0.25)
        .buffer_memory_broker_share(0.75)
        .max_block(ms(17))
        .partitioner(PartitionerKind::Murmur2)
        .partitioner_ignore_keys(true)
        .partitioner_adaptive(false)
        .partitioner_availability_timeout(ms(18))
        .reconnect_backoff(ms(19))
        .reconnect_backoff_max(ms(20))
        .socket_connection_setup_timeout(ms(21))
        .socket_connection_setup_timeout_max(ms(22))
        .connections_max_idle(ms(23))
        .send_buffer(24)
        .receive_buffer(25)
        .metadata_max_age(ms(26))
        .metadata_max_idle(ms(5027))
        .metadata_recovery_strategy(MetadataRecoveryStrategy::None)
        .metadata_recovery_rebootstrap_trigger(ms(28))
        .metrics_num_samples(32)
        .metrics_sample_window(ms(33))
        .metrics_recording_level(RecordingLevel::Debug)
        .allow_auto_create_topics(false)
        .unknown_topic_timeout(ms(32))
        .callback_threads(29)
        .callback_max_pending(30)
        .wait_ends_linger(false)
        .close_on_drop_timeout(ms(31))
        .build_config()
        .unwrap();
    let shown = config.to_string();
    assert_eq!(shown.split(", ").collect::<Vec<_>>(), SET);
}

#[test]
fn setters_round_times_up_and_know_none() {
    let builder = ProducerConfig::builder().bootstrap_servers("a:1");
    let config = builder
        .clone()
        .linger(Duration::from_micros(1))
        .connections_max_idle(None)
        .send_buffer(None)
        .build_config()
        .unwrap();
    assert_eq!(config.value("linger.ms"), Some("1"));
    assert_eq!(config.value("connections.max.idle.ms"), Some("-1"));
    assert_eq!(config.value("send.buffer.bytes"), Some("-1"));
    let error = builder.linger(Duration::MAX).build_config().unwrap_err().to_string();
    assert!(error.contains("linger.ms"), "{error}");
}

#[test]
fn the_last_setting_of_a_key_counts() {
    let config = ProducerConfig::builder()
        .properties([("bootstrap.servers", "a:1"), ("linger.ms", "1"), ("linger.ms", "2")])
        .property("partitioner.class", "murmur2")
        .linger(Duration::from_millis(3))
        .partitioner(PartitionerKind::Default)
        .build_config()
        .unwrap();
    assert_eq!(config.value("linger.ms"), Some("3"));
    assert_eq!(config.value("partitioner.class"), Some("null"));
}

#[test]
fn a_properties_file_is_read() {
    let config = ProducerConfig::from_properties_text(
        "# Kafka's own example\n\
         bootstrap.servers=localhost:9092,\\\n    \
         localhost:9093\n\
         ! values\n\
         client.id : \\u00e9tude\n\
         compression.type none\n",
    )
    .unwrap();
    assert_eq!(config.value("bootstrap.servers"), Some("localhost:9092,localhost:9093"));
    assert_eq!(config.value("client.id"), Some("étude"));
    let text = "bootstrap.servers=a:1\n\nclient.id=\\u12\n";
    let error = ProducerConfig::from_properties_text(text).unwrap_err();
    assert!(error.to_string().contains("line 3"), "{error}");
}

/// As `java.util.Properties` writes texts.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for unit in text.encode_utf16() {
        match char::from_u32(unit.into()) {
            Some(c) if c.is_ascii_alphanumeric() => out.push(c),
            _ => out.push_str(&format!("\\u{unit:04x}")),
        }
    }
    out
}

proptest! {
    #[test]
    fn any_client_id_survives_a_properties_file(id in "\\S(.*\\S)?") {
        let text = format!("bootstrap.servers=a:1\nclient.id={}\n", escaped(&id));
        let config = ProducerConfig::from_properties_text(&text).unwrap();
        // Blanks at the ends of values are dropped, whatever Unicode counts as blank.
        prop_assert_eq!(config.value("client.id"), Some(id.trim()));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "(?s)[a-z.=: \\\\\\\\u0dD8#!\n\r\t,é]{0,60}") {
        if let Err(error) = ProducerConfig::from_properties_text(&text) {
            prop_assert!(matches!(error, Error::Config(_)));
        }
    }
}

#[test]
fn each_value_in_force_tells_where_it_comes_from() {
    let origin = |entries: &[(&str, &str)], key| config(entries).unwrap().origin(key);
    assert_eq!(origin(&[], "linger.ms"), Some(ValueOrigin::Default));
    assert_eq!(origin(&[("linger.ms", "5")], "linger.ms"), Some(ValueOrigin::Given));
    assert_eq!(origin(&[("acks", "-1")], "acks"), Some(ValueOrigin::Given), "another spelling");
    let adjusted: [(&[(&str, &str)], &str); 4] = [
        (&[("acks", "0")], "enable.idempotence"),
        (&[("linger.ms", "300000")], "delivery.timeout.ms"),
        (&[("reconnect.backoff.ms", "7")], "reconnect.backoff.max.ms"),
        (&[("retry.backoff.ms", "5000")], "retry.backoff.ms"),
    ];
    for (entries, key) in adjusted {
        assert_eq!(origin(entries, key), Some(ValueOrigin::Adjusted), "{key}");
        assert_eq!(origin(&[], key), Some(ValueOrigin::Default), "{key}");
    }
    assert_eq!(origin(&[], "compression.type"), None, "not supported");
    // All of them are there, each with its value.
    let config = config(&[]).unwrap();
    assert!(config.iter().all(|(key, _)| config.origin(key).is_some()));
    assert_eq!(config.origin("bootstrap.servers"), Some(ValueOrigin::Given));
}
