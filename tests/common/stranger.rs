//! What listens on a port and is no broker, or none that is of any use.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use kafka_producer::Uuid;
use kafka_producer::internal::protocol::{
    ApiVersion, ApiVersionsResponse, ErrorCode, MetadataResponse, MetadataResponseBroker,
    MetadataResponsePartition, MetadataResponseTopic, VersionRange,
};

/// What a stranger does with a connection.
#[derive(Clone, Copy)]
pub enum Manner {
    /// Keeps it, and never says a word.
    Silent,
    HangsUp,
    /// Says this, whatever it is asked, and keeps the connection.
    Says(&'static [u8]),
    /// Answers as a broker would whose cluster has one broker, at this host and port, which leads
    /// partition 0 of topic `t`; takes no other request.
    Advertises(&'static str, u16),
}

/// Something that listens on a port and is no broker.
pub struct Stranger {
    port: u16,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stranger {
    pub fn new(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut kept = Vec::new();
            for connection in listener.incoming() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(mut connection) = connection else { continue };
                match manner {
                    Manner::Silent => kept.push(connection),
                    Manner::HangsUp => {}
                    Manner::Says(bytes) => {
                        let _ = connection.write_all(bytes);
                        kept.push(connection);
                    }
                    Manner::Advertises(host, port) => {
                        kept.extend(connection.try_clone());
                        std::thread::spawn(move || advertise(connection, host, port));
                    }
                }
            }
        });
        Self { port, over, thread: Some(thread) }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Answers until the other side has had enough.
fn advertise(mut connection: TcpStream, host: &str, port: u16) -> Option<()> {
    loop {
        let mut length = [0; 4];
        connection.read_exact(&mut length).ok()?;
        let mut request = vec![0; u32::from_be_bytes(length) as usize];
        connection.read_exact(&mut request).ok()?;
        let version = i16::from_be_bytes([request[2], request[3]]);
        // Versions below 9, whose responses begin with the correlation id and nothing else.
        let mut body = request[4..8].to_vec();
        match i16::from_be_bytes([request[0], request[1]]) {
            18 => api_versions().encode(version, &mut body),
            3 => description(host, port).encode(version, &mut body),
            _ => return None,
        }
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        connection.write_all(&[&length[..], &body].concat()).ok()?;
    }
}

fn api_versions() -> ApiVersionsResponse {
    let api = |(api_key, min, max)| ApiVersion { api_key, versions: VersionRange { min, max } };
    ApiVersionsResponse {
        error_code: ErrorCode::NONE,
        api_keys: [(0, 3, 8), (3, 4, 8), (18, 0, 4), (22, 0, 1)].map(api).into(),
        throttle_time_ms: 0,
        supported_features: Vec::new(),
        finalized_features_epoch: -1,
        finalized_features: Vec::new(),
    }
}

fn description(host: &str, port: u16) -> MetadataResponse {
    let partition = MetadataResponsePartition {
        error_code: ErrorCode::NONE,
        partition_index: 0,
        leader_id: 1,
        leader_epoch: 0,
        replica_nodes: vec![1],
        isr_nodes: vec![1],
        offline_replicas: Vec::new(),
    };
    let topic = MetadataResponseTopic {
        error_code: ErrorCode::NONE,
        name: Some("t".into()),
        topic_id: Uuid::ZERO,
        is_internal: false,
        partitions: vec![partition],
    };
    let (node_id, host, port) = (1, host.into(), i32::from(port));
    MetadataResponse {
        throttle_time_ms: 0,
        brokers: vec![MetadataResponseBroker { node_id, host, port, rack: None }],
        cluster_id: None,
        controller_id: 1,
        topics: vec![topic],
        error_code: ErrorCode::NONE,
    }
}
