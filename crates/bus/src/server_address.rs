use std::fmt;

use crate::{BusUrlError, UsersTopics};

/// The name where a URL has none.
const NAME: &str = "sealcast";
const NAME_LEN_MAX: usize = 64;
const SERVERS_MAX: usize = 16;
/// Before topics of a broker that its users have for messages.
const TOPICS: &str = "?topics=";

/// Where a bus on servers is: servers that hold the same, and a name that tells it from others on them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerAddress {
    scheme: &'static Scheme,
    servers: Vec<String>,
    space: Option<String>,
    name: String,
    users: Option<UsersTopics>,
}

/// How the URLs of one kind of server begin, and what they may have behind the servers.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scheme {
    text: &'static str,
    port: u16,
    is_tls: bool,
    pub(crate) kind: Kind,
    space: Space,
}

/// Kinds of servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Nats,
    Mqtt,
    Amqp,
    Postgres,
}

/// Whether a server has parts with names of their own, of which a URL names one.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Space {
    None,
    MayBeNamed,
    MustBeNamed,
}

const fn scheme(text: &'static str, port: u16, is_tls: bool, kind: Kind, space: Space) -> Scheme {
    Scheme {
        text,
        port,
        is_tls,
        kind,
        space,
    }
}

#[rustfmt::skip]
static SCHEMES: [Scheme; 6] = [
    scheme("nats", 4222, false, Kind::Nats, Space::None),
    scheme("mqtt", 1883, false, Kind::Mqtt, Space::None),
    scheme("mqtts", 8883, true, Kind::Mqtt, Space::None),
    scheme("amqp", 5672, false, Kind::Amqp, Space::MayBeNamed),
    scheme("amqps", 5671, true, Kind::Amqp, Space::MayBeNamed),
    scheme("postgres", 5432, false, Kind::Postgres, Space::MustBeNamed),
];

impl ServerAddress {
    /// Reads what stands behind a scheme in lower case; nothing if no server has it.
    pub(crate) fn parse(
        scheme: &str,
        authority: &str,
        path: &str,
    ) -> Result<Option<Self>, BusUrlError> {
        let scheme = match scheme {
            "postgresql" => "postgres",
            other => other,
        };
        let Some(scheme) = SCHEMES.iter().find(|of| of.text == scheme) else {
            return Ok(None);
        };
        let servers = authority.split(',').map(|text| server(text, scheme.port));
        let servers = servers.collect::<Option<Vec<_>>>();
        let servers = servers.filter(|servers| servers.len() <= SERVERS_MAX);
        let (path, users) = match path.split_once(TOPICS) {
            Some((path, users)) if scheme.kind == Kind::Mqtt => (path, Some(users)),
            Some(_) | None => (path, None),
        };
        let (space, name) = names(&scheme.space, path).ok_or(BusUrlError::Name)?;
        let users = users.map(|text| UsersTopics::parse(text, name));
        let users = users.transpose().map_err(BusUrlError::Topics)?;
        Ok(Some(Self {
            scheme,
            servers: servers.ok_or(BusUrlError::Server)?,
            space: space.map(str::to_owned),
            name: name.to_owned(),
            users,
        }))
    }

    pub(crate) fn kind(&self) -> Kind {
        self.scheme.kind
    }

    /// The servers, each with its port.
    pub fn servers(&self) -> &[String] {
        &self.servers
    }

    /// What tells the bus from others on its servers: the prefix of all its names there, or with
    /// PostgreSQL the schema. Up to 64 of letters, digits, `_` and `-`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The part of the server in which the bus is: with PostgreSQL the database, with AMQP the virtual
    /// host, where one is named. Made of what a name is made of.
    pub fn space(&self) -> Option<&str> {
        self.space.as_deref()
    }

    /// The topics of the broker on which messages travel, where they are topics of its users' own.
    pub fn users_topics(&self) -> Option<&UsersTopics> {
        self.users.as_ref()
    }

    /// Whether the scheme says that nothing is said without TLS.
    pub fn is_tls(&self) -> bool {
        self.scheme.is_tls
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = format!(":{}", self.scheme.port);
        let short = |server: &String| {
            let host = server.strip_suffix(&default);
            host.unwrap_or(server).to_owned()
        };
        let servers: Vec<String> = self.servers.iter().map(short).collect();
        write!(f, "{}://{}/", self.scheme.text, servers.join(","))?;
        if let Some(space) = &self.space {
            write!(f, "{space}/")?;
        }
        f.write_str(&self.name)?;
        match &self.users {
            Some(users) => write!(f, "{TOPICS}{users}"),
            None => Ok(()),
        }
    }
}

/// The space and the name in the path of a URL.
fn names<'a>(space: &Space, path: &'a str) -> Option<(Option<&'a str>, &'a str)> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let (first, second) = match path.split_once('/') {
        Some((first, second)) => (Some(first), Some(second)),
        None => (Some(path), None),
    };
    let (first, second) = (first.filter(|of| !of.is_empty()), second);
    let (space, name) = match (space, first, second) {
        (Space::MustBeNamed, Some(space), None) => (Some(space), NAME),
        (Space::MustBeNamed | Space::MayBeNamed, Some(space), Some(name)) => (Some(space), name),
        (Space::MayBeNamed | Space::None, name, None) => (None, name.unwrap_or(NAME)),
        _ => return None,
    };
    (space.is_none_or(is_name) && is_name(name)).then_some((space, name))
}

/// A host in lower case, and its port.
fn server(text: &str, default: u16) -> Option<String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let address: std::net::Ipv6Addr = address.parse().ok()?;
            let port = match port {
                "" => None,
                port => Some(port.strip_prefix(':')?),
            };
            (format!("[{address}]"), port)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host.to_ascii_lowercase(), Some(port)),
            None => (text.to_ascii_lowercase(), None),
        },
    };
    let is_host = |host: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        !host.is_empty() && host.chars().all(allowed)
    };
    let has_sign = port.is_some_and(|port| port.starts_with('+'));
    let port: u16 = port.map_or(Ok(default), str::parse).ok()?;
    let is_usable = (host.starts_with('[') || is_host(&host)) && port > 0 && !has_sign;
    is_usable.then(|| format!("{host}:{port}"))
}

fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    (1..=NAME_LEN_MAX).contains(&text.len()) && text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BusUrl;

    fn address(text: &str) -> Result<ServerAddress, BusUrlError> {
        Ok(BusUrl::parse(text)?.server().unwrap().clone())
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
                (found.servers(), found.name()),
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
            "nats://[::1]x",
            "nats://a:+80",
        ] {
            assert_eq!(address(text), Err(BusUrlError::Server), "{text}");
        }
        let long = format!("nats://a/{}", "p".repeat(NAME_LEN_MAX + 1));
        for text in [
            "nats://a/p/q",
            "nats://a/p.q",
            "nats://a/p?token=x",
            "nats://a//",
            &long,
        ] {
            assert_eq!(address(text), Err(BusUrlError::Name), "{text}");
        }
        let many = vec!["a"; SERVERS_MAX + 1].join(",");
        assert_eq!(address(&format!("nats://{many}")), Err(BusUrlError::Server));
    }

    #[test]
    fn each_kind_of_server_has_its_port_and_its_names() {
        for (text, server, space, name, printed) in [
            ("mqtt://h", "h:1883", None, "sealcast", "mqtt://h/sealcast"),
            ("mqtts://h/p", "h:8883", None, "p", "mqtts://h/p"),
            ("mqtts://h:1883/p", "h:1883", None, "p", "mqtts://h:1883/p"),
            ("amqp://h/", "h:5672", None, "sealcast", "amqp://h/sealcast"),
            ("amqp://h/p", "h:5672", None, "p", "amqp://h/p"),
            ("amqps://h/v/p", "h:5671", Some("v"), "p", "amqps://h/v/p"),
            (
                "postgres://h/d",
                "h:5432",
                Some("d"),
                "sealcast",
                "postgres://h/d/sealcast",
            ),
            (
                "PostgreSQL://h/d/s",
                "h:5432",
                Some("d"),
                "s",
                "postgres://h/d/s",
            ),
        ] {
            let found = address(text).unwrap();
            assert_eq!(found.servers(), [server], "{text}");
            assert_eq!((found.space(), found.name()), (space, name), "{text}");
            assert_eq!(found.to_string(), printed);
            assert_eq!(
                found.is_tls(),
                printed.contains("s://") && !printed.starts_with("p")
            );
            assert_eq!(address(printed), Ok(found));
        }
        for text in [
            "postgres://h",
            "postgres://h/",
            "postgres://h/d/",
            "postgres://h/d/s/x",
            "postgres://h//s",
            "amqp://h//p",
            "amqp://h/v/",
            "mqtt://h/a/b",
            "mqtt://h/#",
        ] {
            assert_eq!(address(text), Err(BusUrlError::Name), "{text}");
        }
    }
    #[test]
    fn a_broker_may_have_topics_of_its_users_for_messages() {
        for (text, topics, printed) in [
            (
                "mqtt://h/p?topics=plant/+/t",
                "plant/+/t",
                "mqtt://h/p?topics=plant/+/t",
            ),
            ("mqtts://h/?topics=/#", "/#", "mqtts://h/sealcast?topics=/#"),
            (
                "mqtt://h/p?topics=a b/#&retain=a b/?topics=",
                "a b/#&retain=a b/?topics=",
                "mqtt://h/p?topics=a b/#&retain=a b/?topics=",
            ),
        ] {
            let found = address(text).unwrap();
            assert_eq!(found.users_topics().unwrap().to_string(), topics);
            assert_eq!(found.to_string(), printed);
            assert_eq!(address(printed), Ok(found));
        }
        for text in [
            "mqtt://h/p?topics=",
            "mqtt://h/p?topics=a#",
            "mqtt://h/p?topics=a&retain=",
            "mqtt://h/p?topics=p/#",
            "mqtt://h/p?topics=#",
        ] {
            let found = address(text);
            assert!(matches!(found, Err(BusUrlError::Topics(_))), "{text}");
        }
        for text in [
            "mqtt://h/p?x",
            "nats://h/p?topics=a",
            "mqtt://h/p/?topics=a",
        ] {
            assert_eq!(address(text), Err(BusUrlError::Name), "{text}");
        }
    }
}
