use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::server_address::Kind;
use crate::{ServerAddress, TopicFilterError};

/// Names a bus: `file:PATH`, or `file:///PATH` for an absolute path; or one on servers, such as
/// `nats://HOST[:PORT][,…]/PREFIX`, as `spec/bus.md` has them.
///
/// A path is taken as it stands: nothing in it is escaped, `?`, `#` and `%` included.
/// [`Display`](fmt::Display) prints a form that parses to the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BusUrl(Address);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Address {
    File(String),
    Server(ServerAddress),
}

/// Where a bus is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// A folder of this machine.
    File(&'a Path),
    /// NATS servers.
    Nats(&'a ServerAddress),
    /// A broker that speaks MQTT.
    Mqtt(&'a ServerAddress),
    /// RabbitMQ.
    Amqp(&'a ServerAddress),
    /// PostgreSQL.
    Postgres(&'a ServerAddress),
}

impl BusUrl {
    /// Reads a URL.
    ///
    /// # Errors
    ///
    /// Fails when the text is not the URL of a bus that this build can open.
    pub fn parse(text: &str) -> Result<Self, BusUrlError> {
        let (scheme, rest) = text.split_once(':').ok_or(BusUrlError::NoScheme)?;
        if !is_scheme(scheme) {
            return Err(BusUrlError::NoScheme);
        }
        let scheme = scheme.to_ascii_lowercase();
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("", rest),
        };
        if authority.contains('@') {
            return Err(BusUrlError::Credentials);
        }
        if let Some(address) = ServerAddress::parse(&scheme, authority, path)? {
            return Ok(Self(Address::Server(address)));
        }
        if scheme != "file" {
            return Err(BusUrlError::UnknownScheme { scheme });
        }
        if !authority.is_empty() && authority != "localhost" {
            return Err(BusUrlError::Host);
        }
        if path.is_empty() || path.contains('\0') {
            return Err(BusUrlError::NoPath);
        }
        Ok(Self(Address::File(path.into())))
    }

    /// Names the bus in the folder at `path`.
    ///
    /// # Errors
    ///
    /// Fails when `path` is empty or not UTF-8.
    pub fn file(path: &Path) -> Result<Self, BusUrlError> {
        let path = path.to_str().ok_or(BusUrlError::NotUtf8)?;
        if path.is_empty() || path.contains('\0') {
            return Err(BusUrlError::NoPath);
        }
        Ok(Self(Address::File(path.into())))
    }

    /// Where the bus is.
    pub fn place(&self) -> Place<'_> {
        match &self.0 {
            Address::File(path) => Place::File(Path::new(path)),
            Address::Server(address) => match address.kind() {
                Kind::Nats => Place::Nats(address),
                Kind::Mqtt => Place::Mqtt(address),
                Kind::Amqp => Place::Amqp(address),
                Kind::Postgres => Place::Postgres(address),
            },
        }
    }

    /// The servers of the bus, if it is on servers.
    pub fn server(&self) -> Option<&ServerAddress> {
        match &self.0 {
            Address::File(_) => None,
            Address::Server(address) => Some(address),
        }
    }

    /// Makes a relative path one below `base_dir`; whatever else stays.
    ///
    /// # Errors
    ///
    /// Fails when `base_dir` is not UTF-8.
    pub fn absolute(&self, base_dir: &Path) -> Result<Self, BusUrlError> {
        match &self.0 {
            Address::File(path) => Self::file(&base_dir.join(path)),
            Address::Server(_) => Ok(self.clone()),
        }
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

impl fmt::Display for BusUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Address::File(path) => {
                let slashes = if path.starts_with('/') { "//" } else { "" };
                write!(f, "file:{slashes}{path}")
            }
            Address::Server(address) => address.fmt(f),
        }
    }
}

impl FromStr for BusUrl {
    type Err = BusUrlError;

    fn from_str(text: &str) -> Result<Self, BusUrlError> {
        Self::parse(text)
    }
}

/// Why a text does not name a bus. No part of the URL but its scheme is ever repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BusUrlError {
    /// The text does not begin with a scheme. Write `file:` before a path.
    #[error("bus url has no scheme such as `file:`")]
    NoScheme,
    /// No bus has this scheme.
    #[error("bus url has an unknown scheme: `{scheme}`")]
    UnknownScheme {
        /// What was found.
        scheme: String,
    },
    /// The URL has a user name or password, which would end up in logs and settings. Leave it out.
    #[error("bus url has credentials in it")]
    Credentials,
    /// A file bus lies on this machine; the URL names a host. Write `file:` and the path.
    #[error("url of a file bus has a host")]
    Host,
    /// The path is missing, or has a zero byte.
    #[error("url of a file bus has no usable path")]
    NoPath,
    /// The servers of the URL are missing or odd. Write `HOST` or `HOST:PORT`, several joined by commas.
    #[error("bus url has no usable server")]
    Server,
    /// What follows the servers does not name a bus. A name has letters, digits, `_` and `-`, at most 64;
    /// PostgreSQL's begins with the database.
    #[error("bus url has no usable name behind its servers")]
    Name,
    /// What follows `?topics=` is no filter for topics of a broker, or one for those of the bus itself. `+`
    /// and `#` stand for whole levels, not the first, and `#` for the last; a second filter may follow
    /// behind `&retain=`.
    #[error("bus url has no usable topics behind `?topics=`: {0}")]
    Topics(TopicFilterError),
    /// The path cannot be written as text.
    #[error("path of a file bus is not UTF-8")]
    NotUtf8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_urls_name_a_folder_and_print_back() {
        for (text, path, printed) in [
            ("file:bus", "bus", "file:bus"),
            ("file:./a/b c", "./a/b c", "file:./a/b c"),
            ("FILE:/var/bus", "/var/bus", "file:///var/bus"),
            ("file:///var/bus", "/var/bus", "file:///var/bus"),
            ("file://localhost/var/bus", "/var/bus", "file:///var/bus"),
            ("file:////var/bus", "//var/bus", "file:////var/bus"),
            ("file:a%20b?c#d@e:f", "a%20b?c#d@e:f", "file:a%20b?c#d@e:f"),
        ] {
            let url = BusUrl::parse(text).unwrap();
            assert_eq!(url.place(), Place::File(Path::new(path)), "path of {text}");
            assert_eq!(url.to_string(), printed);
            assert_eq!(BusUrl::parse(printed), Ok(url), "parsed again: {printed}");
        }
    }

    #[test]
    fn a_relative_path_is_made_absolute_and_an_absolute_one_stays() {
        let base = Path::new("/home/kim");
        let absolute = |text| {
            BusUrl::parse(text)
                .unwrap()
                .absolute(base)
                .unwrap()
                .to_string()
        };
        assert_eq!(absolute("file:bus"), "file:///home/kim/bus");
        assert_eq!(absolute("file:///var/bus"), "file:///var/bus");
        assert_eq!(absolute("nats://h/p"), "nats://h/p");
    }

    #[test]
    fn other_texts_are_refused_for_what_is_wrong_with_them() {
        for (text, error) in [
            ("", BusUrlError::NoScheme),
            ("/var/bus", BusUrlError::NoScheme),
            ("a/b:c", BusUrlError::NoScheme),
            ("file:", BusUrlError::NoPath),
            ("file://", BusUrlError::NoPath),
            ("file:a\0b", BusUrlError::NoPath),
            ("file://host/var/bus", BusUrlError::Host),
            ("mqtts://", BusUrlError::Server),
            ("Postgres:///db", BusUrlError::Server),
            (
                "ftp://h",
                BusUrlError::UnknownScheme {
                    scheme: "ftp".into(),
                },
            ),
        ] {
            assert_eq!(BusUrl::parse(text), Err(error), "parsing {text:?}");
        }
    }

    #[test]
    fn credentials_are_refused_and_not_repeated() {
        for text in [
            "mqtt://kim:secret@h",
            "nats://secret@h/x",
            "ftp://a:secret@h",
        ] {
            let error = BusUrl::parse(text).unwrap_err();
            assert_eq!(error, BusUrlError::Credentials);
            assert!(!format!("{error} {error:?}").contains("secret"));
        }
    }
}
