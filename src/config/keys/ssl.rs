//! Keys of TLS: known to Kafka, for a later version.

use crate::config::key::{ConfigKey, Importance::*, ValueType::*, key};

const SSL: &str = "this version has no TLS";
const JVM: &str = "it is a part of the Java platform, which is not here";

pub(super) const KEYS: &[ConfigKey] = &[
    key("ssl.cipher.suites", List, Some(""), Low, "The cipher suites that may be used.")
        .not_yet(SSL),
    key(
        "ssl.enabled.protocols",
        List,
        Some("TLSv1.2,TLSv1.3"),
        Medium,
        "The TLS versions that may be used.",
    )
    .not_yet(SSL),
    key(
        "ssl.endpoint.identification.algorithm",
        String,
        Some("https"),
        Low,
        "How a broker's certificate is compared with its name; empty turns it off.",
    )
    .not_yet(SSL),
    key("ssl.engine.factory.class", Class, None, Low, "The class that makes Java's TLS engines.")
        .meaningless(JVM),
    key("ssl.key.password", Password, None, High, "The password of the private key.").not_yet(SSL),
    key("ssl.keymanager.algorithm", String, Some("SunX509"), Low, "Java's key manager algorithm.")
        .meaningless(JVM),
    key(
        "ssl.keystore.certificate.chain",
        Password,
        None,
        High,
        "The client's certificate chain in PEM form.",
    )
    .not_yet(SSL),
    key("ssl.keystore.key", Password, None, High, "The client's private key in PEM form.")
        .not_yet(SSL),
    key(
        "ssl.keystore.location",
        String,
        None,
        High,
        "The file with the client's key and certificates.",
    )
    .not_yet(SSL),
    key("ssl.keystore.password", Password, None, High, "The password of the key store.")
        .not_yet(SSL),
    key("ssl.keystore.type", String, Some("JKS"), Medium, "The format of the key store.")
        .not_yet(SSL),
    key(
        "ssl.protocol",
        String,
        Some("TLSv1.3"),
        Medium,
        "The TLS version that Java's context is made for.",
    )
    .not_yet(SSL),
    key("ssl.provider", String, None, Medium, "Java's security provider.").meaningless(JVM),
    key("ssl.secure.random.implementation", String, None, Low, "Java's random number generator.")
        .meaningless(JVM),
    key("ssl.trustmanager.algorithm", String, Some("PKIX"), Low, "Java's trust manager algorithm.")
        .meaningless(JVM),
    key(
        "ssl.truststore.certificates",
        Password,
        None,
        High,
        "The trusted certificates in PEM form.",
    )
    .not_yet(SSL),
    key("ssl.truststore.location", String, None, High, "The file with the trusted certificates.")
        .not_yet(SSL),
    key("ssl.truststore.password", Password, None, High, "The password of the trust store.")
        .not_yet(SSL),
    key("ssl.truststore.type", String, Some("JKS"), Medium, "The format of the trust store.")
        .not_yet(SSL),
];
