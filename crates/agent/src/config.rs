//! The config file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::Uri;
use sealcast::{
    AskingOptions, BusUrl, ConfigError, ParkingLimits, WrongLine, line_of, line_of_key,
    parse_duration, parse_size,
};
use sealcast_serving::loopback_address;
use serde::Deserialize;

/// What the config file is called in a home.
pub const FILE_NAME: &str = "config.toml";

/// All that a config file can say.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Of the agent itself.
    pub agent: AgentConfig,
    /// Of asking for keys.
    pub asking: AskingOptions,
    /// Whether requests of others are answered.
    pub answers: bool,
    /// Of messages that wait for their keys.
    pub parking: ParkingLimits,
    /// Of who decides.
    pub decisions: DecisionPolicy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            agent: AgentConfig::default(),
            asking: AskingOptions::default(),
            answers: true,
            parking: ParkingLimits::default(),
            decisions: DecisionPolicy::default(),
        }
    }
}

/// Who decides whether somebody gets a grant who asks without one. What is not decided in time is a
/// no.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecisionPolicy {
    /// The access log: who has no grant gets no keys.
    #[default]
    Log,
    /// A person, by the command line.
    Ask {
        /// How long a request waits for the person, and how long a no holds.
        timeout: Duration,
    },
    /// A program, with the question as JSON on its standard input and the answer on its output.
    Exec {
        /// The program.
        program: PathBuf,
        /// Its arguments.
        args: Vec<String>,
        /// How long to wait.
        timeout: Duration,
    },
    /// A server, with the question as the body of an HTTP POST and the answer in that of its reply.
    Url {
        /// Where to post: `https://`, or `http://` on this machine.
        url: String,
        /// A file with the certificates that the server's must chain to, in PEM; those of the system
        /// where not given.
        ca: Option<PathBuf>,
        /// How long to wait.
        timeout: Duration,
    },
}

impl DecisionPolicy {
    /// Its name in the config file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Ask { .. } => "ask",
            Self::Exec { .. } => "exec",
            Self::Url { .. } => "url",
        }
    }
}

/// What the agent itself is told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AgentConfig {
    /// Where on loopback to answer `/metrics` and `/healthz`; `None` for nowhere.
    pub listen: Option<SocketAddr>,
    /// The bus that everything is copied to, still sealed.
    pub archive: Option<BusUrl>,
    /// From which level on to log.
    pub log: LogLevel,
    /// In which form.
    pub log_format: LogFormat,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 9464))),
            archive: None,
            log: LogLevel::Info,
            log_format: LogFormat::Text,
        }
    }
}

/// From which level on to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Faults of this program.
    Error,
    /// What needs somebody.
    Warn,
    /// What changes.
    Info,
    /// Each step, and names and addresses as well.
    Debug,
    /// All there is.
    Trace,
}

/// In which form to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line of text for each event.
    Text,
    /// An object of JSON for each event, one a line.
    Json,
}

impl Config {
    /// Reads a config file. Relative paths in it are below the folder of the home.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be read, or says anything that is not known.
    pub fn load(path: &Path, home: &Path) -> Result<Self, ConfigError> {
        ConfigError::read(path, |text| Self::parse(text, home))
    }

    /// Reads the text of a config file; else says in which line what is wrong.
    pub(crate) fn parse(text: &str, home: &Path) -> Result<Self, WrongLine> {
        let file: File = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            (line_of(text, at), error.message().to_owned())
        })?;
        let wrong = |section: &str, key: &str, says: String| {
            let section = (&*format!("[{section}]"), 1);
            (line_of_key(text, section, key), format!("`{key}`: {says}"))
        };
        let (agent, asking) = (file.agent, file.asking);
        Ok(Self {
            agent: agent
                .checked(home)
                .map_err(|(key, says)| wrong("agent", key, says))?,
            answers: asking.answers.unwrap_or(true),
            asking: asking
                .checked()
                .map_err(|(key, says)| wrong("asking", key, says))?,
            parking: (file.parking.checked()).map_err(|(key, says)| wrong("parking", key, says))?,
            decisions: (file.decisions.checked(home))
                .map_err(|(key, says)| wrong("decisions", key, says))?,
        })
    }
}

type Wrong = (&'static str, String);

/// The file as it stands.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    agent: AgentSection,
    asking: AskingSection,
    parking: ParkingSection,
    decisions: DecisionsSection,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AgentSection {
    listen: Option<String>,
    archive: Option<String>,
    log: Option<LogLevel>,
    log_format: Option<LogFormat>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AskingSection {
    subscriptions_ask: Option<bool>,
    key_request_timeout: Option<String>,
    max_key_requests_per_second: Option<u32>,
    answers: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ParkingSection {
    bytes_max: Option<String>,
    publisher_bytes_max: Option<String>,
    age_max: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DecisionsSection {
    policy: Option<Policy>,
    ask_timeout: Option<String>,
    exec: Option<Vec<String>>,
    exec_timeout: Option<String>,
    url: Option<String>,
    url_ca: Option<PathBuf>,
    url_timeout: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Policy {
    Log,
    Ask,
    Exec,
    Url,
}

impl AgentSection {
    fn checked(self, home: &Path) -> Result<AgentConfig, Wrong> {
        let default = AgentConfig::default();
        let listen = match self.listen.as_deref() {
            None => default.listen,
            Some("off") => None,
            // What is told there says nothing secret, and still is for nobody but this machine.
            Some(text) => {
                Some(loopback_address(text, "127.0.0.1:9464").map_err(|says| ("listen", says))?)
            }
        };
        let archive = self.archive.map(|text| {
            let url = BusUrl::parse(&text).and_then(|url| url.absolute(home));
            url.map_err(|error| ("archive", error.to_string()))
        });
        Ok(AgentConfig {
            listen,
            archive: archive.transpose()?,
            log: self.log.unwrap_or(default.log),
            log_format: self.log_format.unwrap_or(default.log_format),
        })
    }
}

impl AskingSection {
    fn checked(self) -> Result<AskingOptions, Wrong> {
        let mut options = AskingOptions::default();
        let timeout = self.key_request_timeout.as_deref();
        options.key_request_timeout =
            positive("key_request_timeout", timeout, options.key_request_timeout)?;
        if let Some(number) = self.max_key_requests_per_second {
            if number == 0 {
                let says = "at least 1".to_owned();
                return Err(("max_key_requests_per_second", says));
            }
            options.max_key_requests_per_second = number;
        }
        options.subscriptions_ask = self.subscriptions_ask.unwrap_or(options.subscriptions_ask);
        Ok(options)
    }
}

impl ParkingSection {
    fn checked(self) -> Result<ParkingLimits, Wrong> {
        let mut limits = ParkingLimits::default();
        if let Some(text) = &self.bytes_max {
            limits.bytes_max = parse_size(text).map_err(|says| ("bytes_max", says))?;
        }
        if let Some(text) = &self.publisher_bytes_max {
            limits.publisher_bytes_max =
                parse_size(text).map_err(|says| ("publisher_bytes_max", says))?;
        }
        let age = Duration::from_millis(limits.age_ms_max);
        let age = positive("age_max", self.age_max.as_deref(), age)?;
        limits.age_ms_max = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        Ok(limits)
    }
}

/// How long a person has to answer, and how long a program or a server.
const ASK_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

impl DecisionsSection {
    fn checked(self, home: &Path) -> Result<DecisionPolicy, Wrong> {
        let ask = positive("ask_timeout", self.ask_timeout.as_deref(), ASK_TIMEOUT)?;
        let exec = positive("exec_timeout", self.exec_timeout.as_deref(), CALL_TIMEOUT)?;
        let call = positive("url_timeout", self.url_timeout.as_deref(), CALL_TIMEOUT)?;
        let program = self.exec.map(program).transpose()?;
        let url = self.url.map(post_url).transpose()?;
        let lacks = |key: &str| ("policy", format!("say `{key}` as well"));
        Ok(match self.policy.unwrap_or(Policy::Log) {
            Policy::Log => DecisionPolicy::Log,
            Policy::Ask => DecisionPolicy::Ask { timeout: ask },
            Policy::Exec => {
                let (program, args) = program.ok_or_else(|| lacks("exec"))?;
                DecisionPolicy::Exec {
                    program,
                    args,
                    timeout: exec,
                }
            }
            Policy::Url => DecisionPolicy::Url {
                url: url.ok_or_else(|| lacks("url"))?,
                ca: self.url_ca.map(|path| home.join(path)),
                timeout: call,
            },
        })
    }
}

fn program(words: Vec<String>) -> Result<(PathBuf, Vec<String>), Wrong> {
    let mut words = words.into_iter();
    let program = words.next().map(PathBuf::from);
    match program.filter(|path| path.is_absolute()) {
        Some(program) => Ok((program, words.collect())),
        None => Err((
            "exec",
            "the whole path of a program, then its arguments".to_owned(),
        )),
    }
}

/// Whoever can answer in a server's name can let others in: only TLS keeps them from it, except on
/// this machine.
fn post_url(url: String) -> Result<String, Wrong> {
    let wrong = |says: &str| Err(("url", says.to_owned()));
    let parsed = url.parse::<Uri>().ok();
    let parts = parsed.as_ref().and_then(|uri| {
        let (scheme, authority) = (uri.scheme_str()?, uri.authority()?.as_str());
        Some((scheme, authority, uri.host()?))
    });
    match parts {
        Some((_, authority, _)) if authority.contains('@') => {
            wrong("no user name or password, which would end up in logs")
        }
        Some(("https", _, host)) if !host.is_empty() => Ok(url),
        Some(("http", _, host)) if is_here(host) => Ok(url),
        Some(("http", _, _)) => {
            wrong("https://, or http:// on this machine: anybody on the way could answer yes")
        }
        _ => wrong("a URL that begins with https://, or with http:// on this machine"),
    }
}

fn is_here(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = address.parse().map(|of: std::net::IpAddr| of.is_loopback());
    is_loopback.unwrap_or(host == "localhost")
}

fn positive(key: &'static str, text: Option<&str>, default: Duration) -> Result<Duration, Wrong> {
    let Some(text) = text else {
        return Ok(default);
    };
    let time = parse_duration(text).map_err(|says| (key, says))?;
    match time.is_zero() {
        true => Err((key, "longer than nothing".to_owned())),
        false => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, (usize, String)> {
        Config::parse(text, Path::new("/home/kim/sealcast"))
    }

    #[test]
    fn an_empty_file_says_the_defaults() {
        assert_eq!(parse(""), Ok(Config::default()));
        assert_eq!(
            parse("[agent]\n[asking]\n[parking]\n[decisions]\n"),
            Ok(Config::default())
        );
    }

    #[test]
    fn every_option_is_taken_over() {
        let config = parse(
            r#"
            [agent]
            listen = "[::1]:0"
            archive = "file:archive"
            log = "trace"
            log_format = "json"
            [asking]
            subscriptions_ask = false
            key_request_timeout = "1m"
            max_key_requests_per_second = 5
            answers = false
            [parking]
            bytes_max = "1 GiB"
            publisher_bytes_max = "1 MiB"
            age_max = "2h"
            [decisions]
            policy = "exec"
            exec = ["/usr/bin/decide", "-v"]
            exec_timeout = "3s"
            "#,
        )
        .unwrap();
        assert_eq!(config.agent.listen, Some("[::1]:0".parse().unwrap()));
        let archive = config.agent.archive.unwrap();
        assert_eq!(archive.to_string(), "file:///home/kim/sealcast/archive");
        assert_eq!(
            (config.agent.log, config.agent.log_format),
            (LogLevel::Trace, LogFormat::Json)
        );
        assert_eq!(config.asking.key_request_timeout, Duration::from_secs(60));
        assert_eq!(config.asking.max_key_requests_per_second, 5);
        assert!(!config.asking.subscriptions_ask && !config.answers);
        assert_eq!(config.parking.bytes_max, 1 << 30);
        assert_eq!(config.parking.publisher_bytes_max, 1 << 20);
        assert_eq!(config.parking.age_ms_max, 7_200_000);
        let policy = DecisionPolicy::Exec {
            program: "/usr/bin/decide".into(),
            args: vec!["-v".to_owned()],
            timeout: Duration::from_secs(3),
        };
        assert_eq!(config.decisions, policy);
    }

    #[test]
    fn what_is_not_known_or_not_so_is_refused_at_its_line() {
        for (text, line, says) in [
            (
                "\n[agnet]\n",
                2,
                "unknown field `agnet`, expected one of `agent`",
            ),
            (
                "[agent]\n\nlisen = \"x\"",
                3,
                "unknown field `lisen`, expected one of `listen`",
            ),
            ("[agent]\nlog = \"loud\"", 2, "unknown variant `loud`"),
            ("[agent]\nlog = 1", 2, "wanted string or table"),
            (
                "[agent]\nlisten = \"0.0.0.0:9464\"",
                2,
                "`listen`: only loopback",
            ),
            (
                "[agent]\nlisten = \"localhost\"",
                2,
                "`listen`: an address and a port",
            ),
            (
                "[agent]\narchive = \"/srv\"",
                2,
                "`archive`: bus url has no scheme",
            ),
            (
                "[asking]\nkey_request_timeout = \"0s\"",
                2,
                "longer than nothing",
            ),
            ("[asking]\nkey_request_timeout = 30", 2, "expected a string"),
            ("[asking]\nmax_key_requests_per_second = 0", 2, "at least 1"),
            (
                "[asking]\nmax_key_requests_per_second = -1",
                2,
                "invalid value",
            ),
            (
                "# c\n[parking] # p\n bytes_max = \"1 MB\"",
                3,
                "`bytes_max`: a size",
            ),
            ("[decisions]\npolicy = \"exec\"", 2, "say `exec` as well"),
            ("[decisions]\npolicy = \"url\"", 2, "say `url` as well"),
            ("[decisions]\nexec = [\"decide\"]", 2, "the whole path"),
            ("[decisions]\nurl = \"ftp://h\"", 2, "http://"),
            ("[decisions]\nurl = \"h/decide\"", 2, "begins with https://"),
            ("[decisions]\nurl = \"http://h/\"", 2, "anybody on the way"),
            (
                "[decisions]\nurl = \"http://127.0.0.1.h/\"",
                2,
                "anybody on",
            ),
            (
                "[decisions]\nurl = \"http://kim:secret@h/\"",
                2,
                "no user name",
            ),
            ("[agent\n", 1, ""),
        ] {
            let (found, said) = parse(text).unwrap_err();
            assert_eq!(found, line, "{text}: {said}");
            assert!(said.contains(says), "{text}: {said}");
            assert!(!said.contains("secret"), "{said}");
        }
    }

    #[test]
    fn a_server_is_reached_by_tls_or_on_this_machine() {
        for url in [
            "https://decide.example/sealcast?x=1",
            "https://10.0.0.1:8443/",
            "http://localhost:8080/decide",
            "http://127.0.0.5/",
            "http://[::1]:80/",
        ] {
            let text =
                format!("[decisions]\npolicy = \"url\"\nurl = \"{url}\"\nurl_ca = \"ca.pem\"\n");
            let policy = DecisionPolicy::Url {
                url: url.to_owned(),
                ca: Some("/home/kim/sealcast/ca.pem".into()),
                timeout: CALL_TIMEOUT,
            };
            assert_eq!(parse(&text).unwrap().decisions, policy);
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Config::load(Path::new("/no/such/file"), Path::new("/")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read `/no/such/file`");
    }
}
