//! An entry of `bootstrap.servers`: syntax only, no name resolution.

use std::fmt;
use std::net::Ipv6Addr;

use crate::error::Error;
use crate::types::HostAndPort;

/// A broker's address: a host name or IP address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Host name, IPv4 address, or IPv6 address without brackets.
    pub host: String,
    /// Port, never 0.
    pub port: u16,
}

impl HostPort {
    /// Reads `host:port`, `[ipv6]:port`, either with a listener name before it
    /// (`PLAINTEXT://host:port`), as Java does.
    pub(super) fn parse(entry: &str) -> Result<Self, String> {
        let address = match entry.split_once("://") {
            Some((listener, rest)) => {
                check_listener(listener)?;
                rest
            }
            None => entry,
        };
        let (host, port) = split(address)?;
        let port = match port.parse::<u16>() {
            // `parse` would take a plus sign.
            Ok(number) if number > 0 && port.bytes().all(|b| b.is_ascii_digit()) => number,
            _ => return Err(format!("`{port}` is no port (1 to 65535)")),
        };
        Ok(Self { host: host.to_owned(), port })
    }

    /// The whole list: at least one, none twice.
    pub(super) fn parse_list(entries: &[String]) -> Result<Vec<Self>, Error> {
        let mut servers: Vec<Self> = Vec::new();
        for entry in entries {
            let server = Self::parse(entry).map_err(|why| {
                Error::Config(format!("bootstrap.servers: `{entry}`: {why}").into())
            })?;
            let same =
                |s: &Self| s.port == server.port && s.host.eq_ignore_ascii_case(&server.host);
            if servers.iter().any(same) {
                let text = format!("bootstrap.servers: `{server}` is there more than once");
                return Err(Error::Config(text.into()));
            }
            servers.push(server);
        }
        if servers.is_empty() {
            let text = "bootstrap.servers: no address is given; it must have at least one \
                        host:port";
            return Err(Error::Config(text.into()));
        }
        Ok(servers)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HostAndPort(&self.host, self.port).fmt(f)
    }
}

/// A listener's name is ignored, as in Java, unless it names a protocol that is not spoken here.
fn check_listener(name: &str) -> Result<(), String> {
    let secure = ["SSL", "SASL_PLAINTEXT", "SASL_SSL"];
    if secure.iter().any(|s| s.eq_ignore_ascii_case(name)) {
        return Err(format!("{name} is not supported here"));
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.%".contains(&b)) {
        return Err(format!("`{name}` is no listener name"));
    }
    Ok(())
}

fn split(address: &str) -> Result<(&str, &str), String> {
    if let Some(rest) = address.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or("`]` is missing")?;
        let port = after.strip_prefix(':').ok_or("the port is missing; write [address]:port")?;
        let ip = host.split_once('%').map_or(host, |(ip, _zone)| ip);
        if ip.parse::<Ipv6Addr>().is_err() {
            return Err(format!("`{host}` is no IPv6 address"));
        }
        return Ok((host, port));
    }
    let (host, port) = address.rsplit_once(':').ok_or("the port is missing; write host:port")?;
    if host.contains(':') {
        return Err("an IPv6 address must stand in brackets: [address]:port".to_owned());
    }
    if host.is_empty() {
        return Err("the host is missing".to_owned());
    }
    if !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.%".contains(&b)) {
        return Err(format!("`{host}` is no host name"));
    }
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(entry: &str) -> Result<(String, u16), String> {
        HostPort::parse(entry).map(|server| (server.host, server.port))
    }

    /// CFG-27.
    #[test]
    fn names_and_addresses_parse_with_or_without_a_listener() {
        for (entry, host, port) in [
            ("localhost:9092", "localhost", 9092),
            ("my_broker-1.example.com:1", "my_broker-1.example.com", 1),
            ("10.0.0.1:65535", "10.0.0.1", 65535),
            ("[::1]:9092", "::1", 9092),
            ("[fe80::1%eth0]:9092", "fe80::1%eth0", 9092),
            ("PLAINTEXT://localhost:9092", "localhost", 9092),
            ("EXTERNAL://[2001:db8::7]:9094", "2001:db8::7", 9094),
            ("://localhost:9092", "localhost", 9092),
        ] {
            assert_eq!(parse(entry), Ok((host.to_owned(), port)), "{entry}");
        }
    }

    #[test]
    fn malformed_entries_say_what_is_wrong() {
        for (entry, why) in [
            ("localhost", "port is missing"),
            ("[::1]", "port is missing"),
            ("localhost:", "no port"),
            ("localhost:0", "no port"),
            ("localhost:65536", "no port"),
            ("localhost:+9092", "no port"),
            ("localhost:90a", "no port"),
            (":9092", "host is missing"),
            ("PLAINTEXT://:9092", "host is missing"),
            ("::1:9092", "brackets"),
            ("[::1:9092", "`]` is missing"),
            ("[localhost]:9092", "no IPv6 address"),
            ("local host:9092", "no host name"),
            ("user@host:9092", "no host name"),
            ("SSL://localhost:9093", "SSL is not supported here"),
            ("sasl_ssl://localhost:9093", "not supported here"),
            ("http:/x://localhost:9093", "no listener name"),
        ] {
            let error = parse(entry).unwrap_err();
            assert!(error.contains(why), "{entry}: {error}");
        }
    }

    #[test]
    fn a_list_is_not_empty_and_has_no_doubles() {
        let list = |items: &[&str]| {
            HostPort::parse_list(&items.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
        };
        let shown: Vec<_> =
            list(&["a:1", "[::1]:2"]).unwrap().iter().map(HostPort::to_string).collect();
        assert_eq!(shown, ["a:1", "[::1]:2"]);
        assert!(list(&["a:1", "a:2"]).is_ok());
        assert!(list(&["a:1", "b:1", "A:1"]).unwrap_err().to_string().contains("more than once"));
        assert!(list(&[]).unwrap_err().to_string().contains("no address"));
    }
}
