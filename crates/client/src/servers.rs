//! What there is to say to the servers of a bus that does not stand in its URL.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::ErrorKind::NotFound;
use std::ops::Range;
use std::path::Path;

use sealcast_bus::{BusUrl, Credentials, ServerAddress, ServerOptions};
use toml::{Spanned, Value};

use crate::config_file::{ConfigError, line_of};

/// What the file is called in a home.
pub const SERVERS_FILE: &str = "servers.toml";

/// One way to give credentials, and no other beside it.
const ONE_WAY: &str = "give `credentials`, or `user` and `password` or `password_file`, or `token` or \
                       `token_file`, and nothing else of these";

/// A ticket may name any server, and is not to get a password by that.
const NO_SERVERS: &str = "SEALCAST_BUS_SERVERS: name the servers that the credentials are for, such as \
                          `broker.example` or `broker.example:4222`";

/// Why it is not known how to talk to a server. No value of the file is ever repeated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServersError {
    /// The file, or one that it names, cannot be read, or says something that it cannot say; see there.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// The environment says something that it cannot say; change it.
    #[error("{0}")]
    Environment(String),
}

/// Finds out what to say to a server: what the file in `home` has of the bus, or else what the
/// environment says.
///
/// # Errors
///
/// Fails when file or environment cannot be read, or say anything that is not known.
pub(crate) fn options(home: &Path, address: &ServerAddress) -> Result<ServerOptions, ServersError> {
    let path = home.join(SERVERS_FILE);
    let said = match ConfigError::read(&path, |text| {
        parse(text).map_err(|(at, says)| (line_of(text, at), says))
    }) {
        Err(ConfigError::Unreadable { source, .. }) if source.kind() == NotFound => Vec::new(),
        read => read?,
    };
    match said.into_iter().find(|(of, _)| of == address) {
        Some((_, said)) => said.options(home),
        None => Said::of_environment(address, |name| env::var(name).ok())
            .map_err(ServersError::Environment)?
            .options(home),
    }
}

/// Where in the text what is wrong.
type Wrong = (usize, String);

/// What is said of one bus.
#[derive(Debug, Default)]
struct Said {
    texts: BTreeMap<&'static str, String>,
    replicas: Option<usize>,
}

/// What says who we are.
const SECRETS: [&str; 6] = [
    "user",
    "password",
    "password_file",
    "token",
    "token_file",
    "credentials",
];
/// Other texts.
const OTHERS: [&str; 3] = ["ca", "tls", "history"];

fn texts() -> impl Iterator<Item = &'static str> {
    SECRETS.into_iter().chain(OTHERS)
}

type Section = BTreeMap<Spanned<String>, Spanned<Value>>;

fn parse(text: &str) -> Result<Vec<(ServerAddress, Said)>, Wrong> {
    let file: BTreeMap<Spanned<String>, Section> = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span: Range<usize>| span.start);
        // What it says itself may repeat what stands there.
        (at, "not a section such as `[\"nats://broker.example/plant\"]` with lines of `option = value`".to_owned())
    })?;
    let mut all: Vec<(ServerAddress, Said)> = Vec::new();
    for (url, section) in file {
        let at = url.span().start;
        let parsed = BusUrl::parse(url.get_ref()).map_err(|error| (at, error.to_string()))?;
        let Some(address) = parsed.server() else {
            return Err((at, "a folder has no servers".to_owned()));
        };
        if all.iter().any(|(of, _)| of == address) {
            return Err((at, "this bus is named twice".to_owned()));
        }
        let said = Said::of_section(section)?;
        said.check().map_err(|says| (at, says.to_owned()))?;
        all.push((address.clone(), said));
    }
    Ok(all)
}

impl Said {
    fn of_section(section: Section) -> Result<Self, Wrong> {
        let mut said = Self::default();
        for (key, value) in section {
            let (at, key) = (key.span().start, key.into_inner());
            if key == "replicas" {
                let count = value.get_ref().as_integer();
                let count = count.and_then(|count| usize::try_from(count).ok());
                said.replicas = Some(count.ok_or((at, "`replicas` is a number".to_owned()))?);
                continue;
            }
            let Some(known) = texts().find(|of| *of == key) else {
                let known = texts().collect::<Vec<_>>().join("`, `");
                return Err((
                    at,
                    format!("no such option; there are `{known}` and `replicas`"),
                ));
            };
            let Value::String(text) = value.into_inner() else {
                return Err((at, format!("`{known}` is a text in quotes")));
            };
            said.texts.insert(known, text);
        }
        Ok(said)
    }

    /// Reads the variables that `docs/reference/servers.md` lists. A ticket may name any server: who we
    /// are is said to those alone that are named for it.
    fn of_environment(
        address: &ServerAddress,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let given = |key: &str| {
            let value = variable(&format!("SEALCAST_BUS_{}", key.to_ascii_uppercase()));
            value.filter(|value| !value.is_empty())
        };
        let texts = texts();
        let mut said = Self {
            texts: texts
                .filter_map(|key| given(key).map(|text| (key, text)))
                .collect(),
            replicas: None,
        };
        if let Some(count) = given("replicas") {
            let count = count.parse();
            said.replicas = Some(count.map_err(|_| "SEALCAST_BUS_REPLICAS: a number".to_owned())?);
        }
        said.check()
            .map_err(|says| format!("SEALCAST_BUS_…: {says}"))?;
        if SECRETS.iter().any(|key| said.has(key)) {
            let trusted = given("servers").ok_or_else(|| NO_SERVERS.to_owned())?;
            if !are_all_among(address.servers(), &trusted) {
                said.texts.retain(|key, _| !SECRETS.contains(key));
            }
        }
        Ok(said)
    }

    fn has(&self, key: &str) -> bool {
        self.texts.contains_key(key)
    }

    /// Says what does not go together.
    fn check(&self) -> Result<(), &'static str> {
        let passwords = usize::from(self.has("password")) + usize::from(self.has("password_file"));
        let tokens = usize::from(self.has("token")) + usize::from(self.has("token_file"));
        let ways = [self.has("credentials"), self.has("user"), tokens > 0];
        let ways = ways.into_iter().filter(|is_given| *is_given).count();
        if passwords != usize::from(self.has("user")) || tokens > 1 || ways > 1 {
            return Err(ONE_WAY);
        }
        if self.texts.get("tls").is_some_and(|tls| tls != "require") {
            return Err("`tls` may be \"require\", and nothing else");
        }
        let history = self.texts.get("history");
        if history.is_some_and(|history| history != "serve") {
            return Err("`history` may be \"serve\", and nothing else");
        }
        match self.replicas {
            None | Some(1 | 3 | 5) => Ok(()),
            Some(_) => Err("`replicas` may be 1, 3 or 5"),
        }
    }

    /// Paths are below `home` where they are relative.
    fn options(mut self, home: &Path) -> Result<ServerOptions, ServersError> {
        let mut options = ServerOptions::default();
        options.require_tls = self.has("tls");
        options.replicas = self.replicas;
        options.serves_history = self.has("history");
        options.certificates = self.texts.remove("ca").map(|path| home.join(path));
        if let Some(path) = self.texts.remove("credentials") {
            options.credentials = Credentials::File(home.join(path));
        }
        let password = self.secret("password", "password_file", home)?;
        if let (Some(user), Some(password)) = (self.texts.remove("user"), password) {
            options.credentials = Credentials::Password { user, password };
        }
        if let Some(token) = self.secret("token", "token_file", home)? {
            options.credentials = Credentials::Token(token);
        }
        Ok(options)
    }

    /// A secret that stands here, or in the first line of a file.
    fn secret(
        &mut self,
        here: &str,
        in_file: &str,
        home: &Path,
    ) -> Result<Option<String>, ServersError> {
        let Some(path) = self.texts.remove(in_file) else {
            return Ok(self.texts.remove(here));
        };
        let path = home.join(path);
        let text = fs::read_to_string(&path);
        let text = text.map_err(|source| ConfigError::Unreadable { path, source })?;
        Ok(Some(text.lines().next().unwrap_or_default().to_owned()))
    }
}

/// Whether a list has all servers, each with its port or without.
fn are_all_among(servers: &[String], list: &str) -> bool {
    let list = list.to_ascii_lowercase();
    let is_among = |server: &String| {
        let host = server.rsplit_once(':').map(|(host, _)| host);
        let mut names = list.split(',').map(str::trim);
        names.any(|name| name == server || Some(name) == host)
    };
    servers.iter().all(is_among)
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "nats://h/p";

    fn address(url: &str) -> ServerAddress {
        BusUrl::parse(url).unwrap().server().unwrap().clone()
    }

    /// What the file says of a bus, with the secrets that it names in files.
    fn found(text: &str, url: &str) -> Result<ServerOptions, ServersError> {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join(SERVERS_FILE), text).unwrap();
        fs::write(home.path().join("secret"), "hush\nand more\n").unwrap();
        options(home.path(), &address(url))
    }

    fn shown(credentials: &Credentials) -> String {
        match credentials {
            Credentials::None => "none".into(),
            Credentials::File(path) => format!("file {}", path.display()),
            Credentials::Password { user, password } => format!("{user}:{password}"),
            Credentials::Token(token) => format!("token {token}"),
        }
    }

    #[test]
    fn what_stands_under_a_bus_is_for_that_bus_alone() {
        let text = r#"
            ["nats://H:4222/p"]
            user = "kim"
            password_file = "secret"
            ca = "/ca.pem"
            tls = "require"
            replicas = 3
            history = "serve"
            ["postgres://h/db"]
            user = "kim"
            password = "other"
            ["nats://h/q"]
            token = "t"
            ["nats://h/r"]
            credentials = "/kim.creds"
        "#;
        let of = |url| found(text, url).unwrap();
        let first = of(URL);
        assert_eq!(shown(&first.credentials), "kim:hush");
        assert_eq!(first.certificates, Some("/ca.pem".into()));
        assert_eq!((first.require_tls, first.replicas), (true, Some(3)));
        assert!(first.serves_history && !of("nats://h/q").serves_history);
        assert_eq!(
            shown(&of("postgres://h/db/sealcast").credentials),
            "kim:other"
        );
        assert_eq!(shown(&of("nats://h/q").credentials), "token t");
        assert_eq!(shown(&of("nats://h/r").credentials), "file /kim.creds");
        assert_eq!(shown(&of("nats://h/s").credentials), "none");
    }

    #[test]
    fn relative_paths_are_below_the_home() {
        let text = "[\"nats://h/p\"]\nca = \"ca.pem\"";
        let certificates = found(text, URL).unwrap().certificates.unwrap();
        assert!(certificates.is_absolute() && certificates.ends_with("ca.pem"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_nothing_of_it_is_repeated() {
        for (text, line, part) in [
            ("user = \"hush\"", 1, "not a section"),
            ("[\"nats://h/p\"]\nuser \"hush\"", 2, "not a section"),
            ("[\"nats://h/p\"]\n\npassword = 5", 3, "a text in quotes"),
            ("[\"nats://h/p\"]\nhush = \"hush\"", 2, "no such option"),
            (
                "[\"nats://h/p\"]\npassword = \"hush\"",
                1,
                "nothing else of these",
            ),
            (
                "[\"nats://h/p\"]\nuser = \"hush\"",
                1,
                "nothing else of these",
            ),
            (
                "[\"nats://h/p\"]\ntoken = \"hush\"\ncredentials = \"hush\"",
                1,
                "nothing else of these",
            ),
            ("[\"nats://h/p\"]\ntls = \"no\"", 1, "`tls`"),
            ("[\"nats://h/p\"]\nreplicas = 2", 1, "`replicas`"),
            ("[\"mqtt://h/p\"]\nhistory = \"all\"", 1, "`history`"),
            ("[\"nats://hush@h/p\"]", 1, "credentials in it"),
            ("[\"file:bus\"]", 1, "a folder has no servers"),
            ("[\"nats://H/p\"]\n[\"nats://h/p\"]", 2, "named twice"),
        ] {
            let said = found(text, URL).unwrap_err();
            let is_there = matches!(&said, ServersError::File(ConfigError::Wrong { line: of, .. }) if *of == line);
            assert!(
                is_there && said.to_string().contains(part),
                "{text}: {said}"
            );
            assert!(!format!("{said} {said:?}").contains("hush"), "{said:?}");
        }
        let missing = found("[\"nats://h/p\"]\ntoken_file = \"gone\"", URL).unwrap_err();
        assert!(missing.to_string().contains("gone"), "{missing}");
    }

    /// A ticket may name any server.
    #[test]
    fn what_the_environment_knows_of_us_is_for_the_servers_that_it_names() {
        let of = |url, servers: &str| {
            let said = Said::of_environment(&address(url), |name| {
                let value = match name.strip_prefix("SEALCAST_BUS_")? {
                    "SERVERS" => servers,
                    "USER" => "kim",
                    "PASSWORD" => "hush",
                    "CA" => "/ca.pem",
                    _ => return None,
                };
                Some(value.to_owned())
            });
            let options = said.unwrap().options(Path::new("/home")).unwrap();
            assert_eq!(options.certificates, Some("/ca.pem".into()));
            shown(&options.credentials)
        };
        for (url, servers) in [
            ("nats://h/p", "h"),
            ("nats://h/p", "H:4222"),
            ("nats://h:1/p", "g,h"),
            ("nats://h,i:7/p", "h, i:7"),
            ("nats://[::1]/p", "[::1]"),
        ] {
            assert_eq!(of(url, servers), "kim:hush", "{url} {servers}");
        }
        for (url, servers) in [
            ("nats://evil/p", "h"),
            ("nats://h,evil/p", "h"),
            ("nats://h:1/p", "h:4222"),
            ("nats://h.evil/p", "h"),
            ("nats://evil/p", ","),
        ] {
            assert_eq!(of(url, servers), "none", "{url} {servers}");
        }
    }

    #[test]
    fn the_environment_says_the_same_in_one_way_only() {
        let said = |set: &[(&str, &str)]| {
            let found = |name: &str| {
                set.iter()
                    .find(|(of, _)| name == format!("SEALCAST_BUS_{of}"))
            };
            let said = Said::of_environment(&address("nats://h:1,i/p"), |name| {
                found(name).map(|(_, value)| (*value).into())
            });
            Ok::<_, String>(said?.options(Path::new("/home")).unwrap())
        };
        let servers = ("SERVERS", "H, i:4222");
        let (user, password, token) = (("USER", "kim"), ("PASSWORD", "hush"), ("TOKEN", "hush"));
        for (set, expected) in [
            (&[][..], "none"),
            (&[("TOKEN", "")], "none"),
            (&[servers, ("CREDENTIALS", "creds")], "file /home/creds"),
            (&[servers, user, password], "kim:hush"),
            (&[servers, token], "token hush"),
        ] {
            assert_eq!(shown(&said(set).unwrap().credentials), expected);
        }
        let rest = said(&[("CA", "/ca.pem"), ("TLS", "require"), ("REPLICAS", "5")]).unwrap();
        assert_eq!(rest.certificates, Some("/ca.pem".into()));
        assert_eq!((rest.require_tls, rest.replicas), (true, Some(5)));
        for set in [
            &[servers, user][..],
            &[servers, password],
            &[servers, token, ("CREDENTIALS", "c")],
            &[servers, user, password, token],
            &[token],
            &[user, password],
            &[("TLS", "no")],
            &[("REPLICAS", "2")],
            &[("REPLICAS", "x")],
        ] {
            let said = said(set).unwrap_err();
            assert!(
                said.starts_with("SEALCAST_BUS_") && !said.contains("hush"),
                "{said}"
            );
        }
    }
}
