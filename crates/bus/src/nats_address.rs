use std::fmt;

use crate::BusUrlError;

/// The port that NATS servers listen on.
const PORT: u16 = 4222;
/// The prefix where a URL has none.
const PREFIX: &str = "sealcast";
const PREFIX_LEN_MAX: usize = 64;
const SERVERS_MAX: usize = 16;

/// Where a NATS bus is: servers of one cluster, and a prefix that tells it from others on them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NatsAddress {
    servers: Vec<String>,
    prefix: String,
}

impl NatsAddress {
    /// Reads what stands behind the `nats:` of a URL.
    pub(crate) fn parse(authority: &str, path: &str) -> Result<Self, BusUrlError> {
        let servers = authority.split(',').map(server).collect::<Option<Vec<_>>>();
        let servers = servers.filter(|servers| servers.len() <= SERVERS_MAX);
        let prefix = match path.strip_prefix('/').unwrap_or(path) {
            "" => PREFIX,
            given => given,
        };
        if !is_prefix(prefix) {
            return Err(BusUrlError::Prefix);
        }
        Ok(Self {
            servers: servers.ok_or(BusUrlError::Server)?,
            prefix: prefix.to_owned(),
        })
    }

    /// The servers, each with its port.
    pub fn servers(&self) -> &[String] {
        &self.servers
    }

    /// What begins all names of the bus on its servers.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl fmt::Display for NatsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = format!(":{PORT}");
        let short = |server: &String| {
            let host = server.strip_suffix(&default);
            host.unwrap_or(server).to_owned()
        };
        let servers: Vec<String> = self.servers.iter().map(short).collect();
        write!(f, "nats://{}/{}", servers.join(","), self.prefix)
    }
}

/// A host in lower case, and its port.
fn server(text: &str) -> Option<String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let address: std::net::Ipv6Addr = address.parse().ok()?;
            (format!("[{address}]"), port.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host.to_ascii_lowercase(), Some(port)),
            None => (text.to_ascii_lowercase(), None),
        },
    };
    let is_name = |host: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        !host.is_empty() && host.chars().all(allowed)
    };
    let port: u16 = port.map_or(Ok(PORT), str::parse).ok()?;
    let is_usable = (host.starts_with('[') || is_name(&host)) && port > 0;
    is_usable.then(|| format!("{host}:{port}"))
}

fn is_prefix(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    (1..=PREFIX_LEN_MAX).contains(&text.len()) && text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BusUrl, Place};

    fn address(text: &str) -> Result<NatsAddress, BusUrlError> {
        match BusUrl::parse(text)?.place() {
            Place::Nats(address) => Ok(address.clone()),
            Place::File(path) => panic!("a folder: {}", path.display()),
        }
    }

    #[test]
    fn urls_name_servers_and_a_prefix_and_print_back() {
        for (text, servers, prefix, printed) in [
            ("nats://h", &["h:4222"][..], "sealcast", "nats://h/sealcast"),
            (
                "NATS://H:4222/",
                &["h:4222"],
                "sealcast",
                "nats://h/sealcast",
            ),
            (
                "nats://10.0.0.1:1/A_b-1",
                &["10.0.0.1:1"],
                "A_b-1",
                "nats://10.0.0.1:1/A_b-1",
            ),
            (
                "nats://a,b.c:7/p",
                &["a:4222", "b.c:7"],
                "p",
                "nats://a,b.c:7/p",
            ),
            ("nats://[::1]/p", &["[::1]:4222"], "p", "nats://[::1]/p"),
            ("nats://[::1]:9/p", &["[::1]:9"], "p", "nats://[::1]:9/p"),
        ] {
            let found = address(text).unwrap();
            assert_eq!(
                (found.servers(), found.prefix()),
                (
                    &servers.iter().map(|s| String::from(*s)).collect::<Vec<_>>()[..],
                    prefix
                )
            );
            assert_eq!(found.to_string(), printed);
            assert_eq!(address(printed), Ok(found));
        }
    }

    #[test]
    fn other_urls_are_refused_for_what_is_wrong_with_them() {
        for text in [
            "nats:",
            "nats://",
            "nats:///p",
            "nats://,a",
            "nats://a:",
            "nats://a:0",
            "nats://a:65536",
            "nats://a b",
            "nats://a?x",
            "nats://[::1",
            "nats://[x]",
            "nats://::1",
        ] {
            assert_eq!(address(text), Err(BusUrlError::Server), "{text}");
        }
        let long = format!("nats://a/{}", "p".repeat(PREFIX_LEN_MAX + 1));
        for text in [
            "nats://a/p/q",
            "nats://a/p.q",
            "nats://a/p?token=x",
            "nats://a//",
            &long,
        ] {
            assert_eq!(address(text), Err(BusUrlError::Prefix), "{text}");
        }
        let many = vec!["a"; SERVERS_MAX + 1].join(",");
        assert_eq!(address(&format!("nats://{many}")), Err(BusUrlError::Server));
    }
}
