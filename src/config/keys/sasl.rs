//! Keys of SASL: known to Kafka, for a later version.

use crate::config::key::{Allowed, ConfigKey, Importance::*, ValueType::*, key};

const SASL: &str = "this version has no SASL";
const JVM: &str = "it is a part of the Java platform, which is not here";

pub(super) const KEYS: &[ConfigKey] = &[
    key(
        "sasl.client.callback.handler.class",
        Class,
        None,
        Medium,
        "The class that answers a SASL mechanism's questions.",
    )
    .meaningless(JVM),
    key(
        "sasl.jaas.config",
        Password,
        None,
        Medium,
        "The login module and its options, secrets included, in JAAS form.",
    )
    .not_yet(SASL),
    key("sasl.kerberos.kinit.cmd", String, Some("/usr/bin/kinit"), Low, "The path of kinit.")
        .not_yet(SASL),
    key(
        "sasl.kerberos.min.time.before.relogin",
        Long,
        Some("60000"),
        Low,
        "The least milliseconds between two Kerberos logins.",
    )
    .not_yet(SASL),
    key(
        "sasl.kerberos.service.name",
        String,
        None,
        Medium,
        "The Kerberos principal that the brokers run as.",
    )
    .not_yet(SASL),
    key(
        "sasl.kerberos.ticket.renew.jitter",
        Double,
        Some("0.05"),
        Low,
        "The random share that is added to a ticket's renewal time.",
    )
    .not_yet(SASL),
    key(
        "sasl.kerberos.ticket.renew.window.factor",
        Double,
        Some("0.8"),
        Low,
        "The share of a ticket's life after which it is renewed.",
    )
    .not_yet(SASL),
    key(
        "sasl.login.callback.handler.class",
        Class,
        None,
        Medium,
        "The class that answers a login's questions.",
    )
    .meaningless(JVM),
    key("sasl.login.class", Class, None, Medium, "The class that logs in.").meaningless(JVM),
    key(
        "sasl.login.connect.timeout.ms",
        Int,
        None,
        Low,
        "The most milliseconds to connect to the identity provider.",
    )
    .not_yet(SASL),
    key(
        "sasl.login.read.timeout.ms",
        Int,
        None,
        Low,
        "The most milliseconds to read from the identity provider.",
    )
    .not_yet(SASL),
    key(
        "sasl.login.refresh.buffer.seconds",
        Short,
        Some("300"),
        Low,
        "The seconds before its end at which a token must have been refreshed.",
    )
    .between(0, 3600)
    .not_yet(SASL),
    key(
        "sasl.login.refresh.min.period.seconds",
        Short,
        Some("60"),
        Low,
        "The least seconds between two refreshes of a token.",
    )
    .between(0, 900)
    .not_yet(SASL),
    key(
        "sasl.login.refresh.window.factor",
        Double,
        Some("0.8"),
        Low,
        "The share of a token's life after which it is refreshed.",
    )
    .allowed(Allowed::Within(0.5, 1.0))
    .not_yet(SASL),
    key(
        "sasl.login.refresh.window.jitter",
        Double,
        Some("0.05"),
        Low,
        "The random share that is added to a token's refresh time.",
    )
    .allowed(Allowed::Within(0.0, 0.25))
    .not_yet(SASL),
    key(
        "sasl.login.retry.backoff.max.ms",
        Long,
        Some("10000"),
        Low,
        "The most milliseconds between attempts to log in.",
    )
    .not_yet(SASL),
    key(
        "sasl.login.retry.backoff.ms",
        Long,
        Some("100"),
        Low,
        "The milliseconds before a failed login is tried again.",
    )
    .not_yet(SASL),
    key(
        "sasl.mechanism",
        String,
        Some("GSSAPI"),
        Medium,
        "The SASL mechanism that the client authenticates by.",
    )
    .not_yet(SASL),
    key(
        "sasl.oauthbearer.assertion.algorithm",
        String,
        Some("RS256"),
        Medium,
        "The algorithm that signs a JWT assertion.",
    )
    .allowed(Allowed::OneOfAnyCase(&["ES256", "RS256"]))
    .not_yet(SASL),
    key(
        "sasl.oauthbearer.assertion.claim.aud",
        String,
        None,
        Medium,
        "The audience claim of a JWT assertion.",
    )
    .not_yet(SASL),
    key(
        "sasl.oauthbearer.assertion.claim.exp.seconds",
        Int,
        Some("300"),
        Low,
        "The seconds after which a JWT assertion expires.",
    )
    .between(0, 86400)
    .not_yet(SASL),
    key(
        "sasl.oauthbearer.assertion.claim.iss",
        String,
        None,
        Medium,
        "The issuer claim of a JWT assertion.",
    )
    .not_yet(SASL),
    key(
        "sasl.oauthbearer.assertion.claim.jti.include",
        Boolean,
        Some("false"),
        Medium,
        "Whether a JWT assertion has an identifier of its own.",
    )
    .not_yet(SASL),
    key(
        "sasl.oauthbearer.assertion.claim.nbf.seconds",
        Int,
        Some("60"),
        Low,
        "The seconds before now from which a JWT assertion is valid.",
    )
    .between(0, 3600)
    .not_yet(SASL),
    key(
        "sasl.oauthbearer.assertion.claim.sub",
        String,
        None,
        Medium,
        "The subject claim of a JWT assertion.",
    )
    .not_yet(SASL),
    key(
        "sasl.oauthbearer.assertion.file",
        String,
        None,
        Medium,
        "The file that holds a ready JWT assertion.",
    )
    .not_yet(SASL),
    key(
        "sasl.oauthbearer.assertion.private.key.file",
        String,
        None,
        Medium,
        "The file with the key that signs a JWT assertion.",
    )
    .not_yet(SASL),
    key(
        "sasl.oauthbearer.assertion.private.key.passphrase",
        Password,
        None,
        Medium,
        "The passphrase of the key that signs a JWT assertion.",
    )
    .not_yet(SASL),
    key(
        "sasl.oauthbearer.assertion.template.file",
        String,
        None,
        Medium,
        "The file with the fixed parts of a JWT assertion.",
    )
    .not_yet(SASL),
    key(
        "sasl.oauthbearer.client.credentials.client.id",
        String,
        None,
        Medium,
        "The client's id at the identity provider.",
    )
    .not_yet(SASL),
    key(
        "sasl.oauthbearer.client.credentials.client.secret",
        Password,
        None,
        Medium,
        "The client's secret at the identity provider.",
    )
    .not_yet(SASL),
    key(
        "sasl.oauthbearer.clock.skew.seconds",
        Int,
        Some("30"),
        Low,
        "The seconds by which clocks may differ.",
    )
    .not_yet(SASL),
    key(
        "sasl.oauthbearer.expected.audience",
        List,
        Some(""),
        High,
        "The audiences that a token must be for.",
    )
    .not_yet(SASL),
    key(
        "sasl.oauthbearer.expected.issuer",
        String,
        None,
        High,
        "The issuer that a token must be from.",
    )
    .not_yet(SASL),
    key(
        "sasl.oauthbearer.header.urlencode",
        Boolean,
        Some("false"),
        Low,
        "Whether id and secret are URL-encoded in the request for a token.",
    )
    .not_yet(SASL),
    key(
        "sasl.oauthbearer.jwks.endpoint.refresh.ms",
        Long,
        Some("3600000"),
        Low,
        "The milliseconds after which the key set is read again.",
    )
    .not_yet(SASL),
    key(
        "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms",
        Long,
        Some("10000"),
        Low,
        "The most milliseconds between attempts to read the key set.",
    )
    .not_yet(SASL),
    key(
        "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms",
        Long,
        Some("100"),
        Low,
        "The milliseconds before the key set is tried again.",
    )
    .not_yet(SASL),
    key(
        "sasl.oauthbearer.jwks.endpoint.url",
        String,
        None,
        Medium,
        "The address of the identity provider's key set.",
    )
    .not_yet(SASL),
    key(
        "sasl.oauthbearer.jwt.retriever.class",
        Class,
        Some("org.apache.kafka.common.security.oauthbearer.DefaultJwtRetriever"),
        Medium,
        "The class that fetches tokens.",
    )
    .meaningless(JVM),
    key(
        "sasl.oauthbearer.jwt.validator.class",
        Class,
        Some("org.apache.kafka.common.security.oauthbearer.DefaultJwtValidator"),
        Medium,
        "The class that checks tokens.",
    )
    .meaningless(JVM),
    key("sasl.oauthbearer.scope", String, None, Medium, "The scope that is asked for.")
        .not_yet(SASL),
    key(
        "sasl.oauthbearer.scope.claim.name",
        String,
        Some("scope"),
        Low,
        "The claim that holds a token's scope.",
    )
    .not_yet(SASL),
    key(
        "sasl.oauthbearer.sub.claim.name",
        String,
        Some("sub"),
        Low,
        "The claim that holds a token's subject.",
    )
    .not_yet(SASL),
    key(
        "sasl.oauthbearer.token.endpoint.url",
        String,
        None,
        Medium,
        "The address at which the identity provider gives tokens.",
    )
    .not_yet(SASL),
];
