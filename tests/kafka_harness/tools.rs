//! The helper JVM beside a cluster (`KafkaTools.java`) and what it answers.

use std::fs::File;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use super::installation::{Installation, TOOLS_CLASS};

/// A record as Kafka's own consumer read it from a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumedRecord {
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    pub timestamp_type: TimestampType,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

/// Who gave a record its timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer.
    CreateTime,
    /// The broker, as the topic's `message.timestamp.type` demands.
    LogAppendTime,
    /// Nobody: message format v0.
    Absent,
}

/// A partition as the controller sees it.
pub struct PartitionState {
    pub partition: i32,
    pub leader: Option<i32>,
    pub in_sync_replicas: usize,
    pub replicas: Vec<i32>,
}

pub struct Tools {
    child: Child,
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Tools {
    /// Does not wait for the cluster; its complaints go to `log`.
    pub fn start(kafka: &Installation, bootstrap: &str, log: File) -> std::io::Result<Self> {
        let mut child = kafka
            .java(256, "error")
            .args([TOOLS_CLASS, bootstrap])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let requests = child.stdin.take().expect("its stdin was just piped");
        let stdout = child.stdout.take().expect("its stdout was just piped");
        Ok(Self { child, requests, answers: BufReader::new(stdout).lines() })
    }

    /// The lines that answer a request. Panics on an error: a test has no use for one.
    pub fn ask(&mut self, request: &[&str]) -> Vec<String> {
        let line = request.join("\t");
        writeln!(self.requests, "{line}").expect("the helper JVM lives (see tools.log)");
        let mut answer = Vec::new();
        loop {
            let next =
                self.answers.next().expect("the helper JVM lives (see tools.log)").expect("text");
            match next.split_once('\t') {
                None if next == "end" => return answer,
                Some(("error", message)) => panic!("{}: {message}", line.replace('\t', " ")),
                _ => answer.push(next),
            }
        }
    }

    pub fn partitions(&mut self, topic: &str) -> Vec<PartitionState> {
        self.ask(&["partitions", topic])
            .iter()
            .map(|line| partition_state(line.split('\t')))
            .collect()
    }

    pub fn consume(&mut self, topic: &str, max: usize, isolation: &str) -> Vec<ConsumedRecord> {
        let max = i64::try_from(max).unwrap_or(i64::MAX).to_string();
        let mut records: Vec<_> = self
            .ask(&["consume", topic, &max, isolation])
            .iter()
            .map(|line| record(line.split('\t')))
            .collect();
        records.sort_by_key(|r| (r.partition, r.offset));
        records
    }
}

impl Drop for Tools {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn partition_state<'a>(mut fields: impl Iterator<Item = &'a str>) -> PartitionState {
    let partition = number(&mut fields);
    let leader: i32 = number(&mut fields);
    let leader = (leader >= 0).then_some(leader);
    let in_sync_replicas = number(&mut fields);
    let replicas = fields.next().expect("the helper JVM names this field");
    let replicas = replicas.split(',').map(|id| id.parse().expect("a number")).collect();
    PartitionState { partition, leader, in_sync_replicas, replicas }
}

fn record<'a>(mut fields: impl Iterator<Item = &'a str>) -> ConsumedRecord {
    let partition = number(&mut fields);
    let offset = number(&mut fields);
    let timestamp = number(&mut fields);
    let timestamp_type = match fields.next() {
        Some("CreateTime") => TimestampType::CreateTime,
        Some("LogAppendTime") => TimestampType::LogAppendTime,
        Some("NoTimestampType") => TimestampType::Absent,
        other => panic!("a timestamp's type, not {other:?}"),
    };
    let key = bytes(fields.next());
    let value = bytes(fields.next());
    let mut headers = Vec::new();
    while let Some(name) = fields.next() {
        let name = bytes(Some(name)).expect("a header's name is never null");
        let name = String::from_utf8(name).expect("a header's name is UTF-8");
        headers.push((name, bytes(fields.next())));
    }
    ConsumedRecord { partition, offset, timestamp, timestamp_type, headers, key, value }
}

fn number<'a, N: std::str::FromStr>(fields: &mut impl Iterator<Item = &'a str>) -> N {
    let field = fields.next().expect("the helper JVM names this field");
    field.parse().unwrap_or_else(|_| panic!("a number, not {field}"))
}

fn bytes(field: Option<&str>) -> Option<Vec<u8>> {
    let field = field.expect("the helper JVM names this field");
    if field == "-" {
        return None;
    }
    let digit = |at: usize| u8::from_str_radix(&field[at..at + 2], 16).expect("hexadecimal");
    Some((0..field.len()).step_by(2).map(digit).collect())
}
