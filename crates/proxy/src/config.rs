//! The config file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sealcast::{ConfigError, Name, WrongLine, line_of, line_of_key, parse_duration, parse_size};
use sealcast_serving::loopback_address;
use serde::Deserialize;
use tracing::level_filters::LevelFilter;

use crate::json::Field;
use crate::packet::LARGEST;
use crate::room::ParkLimits;
use crate::rules::{Act, Rule, Rules, Undecryptable};
use crate::topics::Topics;
use crate::upstream::UpstreamUrl;

mod listener;

use listener::ListenerSection;
pub use listener::{Certificates, Listener, ListenerError, Transport};

/// What a packet may be said to have at most. It stands for all that MQTT has.
const PACKET_MAX: u32 = 256 << 20;
/// Less does not hold the largest topic.
const PACKET_MIN: u32 = 128 << 10;

/// All that a config file says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Where clients connect, at least one.
    pub listeners: Vec<Listener>,
    /// The broker.
    pub upstream: UpstreamUrl,
    /// A file with the certificates that the broker's must chain to, in PEM; those of the system where not given.
    pub upstream_ca: Option<PathBuf>,
    /// What is done with messages.
    pub rules: Rules,
    /// What clients may take up.
    pub limits: Limits,
    /// Where on loopback to answer `/metrics` and `/healthz`; `None` for nowhere.
    pub metrics: Option<SocketAddr>,
    /// From which level on to log.
    pub log: LevelFilter,
    /// In which form.
    pub log_format: LogFormat,
}

/// What clients may take up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of a packet.
    pub packet_max: u32,
    /// The most clients at a time.
    pub connections_max: usize,
    /// The most clients of one address, or of IPv6 of one network with 64 bits; where not given half of all, or all for
    /// those of this machine.
    pub address_connections_max: Option<usize>,
    /// How long a client has to say who it is.
    pub connect_timeout: Duration,
    /// How long before its client connected a message may have been sealed to be opened, if the broker had not
    /// retained it.
    pub age_max: Duration,
    /// How much may wait for keys.
    pub park: ParkLimits,
}

impl Limits {
    /// The most bytes of a packet, where that is less than MQTT has.
    pub(crate) fn packet_limit(&self) -> Option<u32> {
        (self.packet_max < LARGEST).then_some(self.packet_max)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packet_max: (1 << 20) + (64 << 10),
            connections_max: 4096,
            address_connections_max: None,
            connect_timeout: Duration::from_secs(10),
            age_max: Duration::from_secs(7 * 86_400),
            park: ParkLimits::default(),
        }
    }
}

/// In which form to log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line of text for each event.
    #[default]
    Text,
    /// An object of JSON for each event, one a line.
    Json,
}

/// What is said elsewhere than in a config file, and holds instead of what that says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instead {
    /// Of `listen`.
    pub listen: Option<Listener>,
    /// Of `upstream`.
    pub upstream: Option<UpstreamUrl>,
}

impl Config {
    /// Reads a config file. Relative paths in it are below its folder.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be read, says anything that is not known, or has a rule that never decides.
    pub fn load(path: &Path, instead: &Instead) -> Result<Self, ConfigError> {
        let folder = path.parent().unwrap_or(Path::new(""));
        ConfigError::read(path, |text| Self::parse(text, folder, instead))
    }

    /// Reads the text of a config file; else says in which line what is wrong.
    pub(crate) fn parse(text: &str, folder: &Path, instead: &Instead) -> Result<Self, WrongLine> {
        let mut file: File = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            (line_of(text, at), error.message().to_owned())
        })?;
        let rules = rules(text, &file.rule)?;
        let first = (instead.listen.clone(), file.listen.take());
        let sections = std::mem::take(&mut file.listener);
        let listeners = listeners(text, first, sections, folder)?;
        let upstream = instead.upstream.clone();
        let checked = file.checked(folder, (listeners, upstream), rules);
        checked.map_err(|wrong| at(text, HEAD, wrong))
    }
}

type Wrong = (&'static str, String);

/// The file as it stands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<String>,
    upstream: Option<String>,
    upstream_ca: Option<PathBuf>,
    packet_max: Option<String>,
    connections_max: Option<usize>,
    address_connections_max: Option<usize>,
    connect_timeout: Option<String>,
    age_max: Option<String>,
    park_messages_max: Option<u64>,
    park_bytes_max: Option<String>,
    park_age_max: Option<String>,
    metrics: Option<String>,
    log: Option<String>,
    log_format: Option<LogFormat>,
    #[serde(default)]
    listener: Vec<ListenerSection>,
    #[serde(default)]
    rule: Vec<RuleSection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleSection {
    topics: Option<String>,
    #[serde(rename = "do")]
    act: Option<ActWord>,
    stream: Option<String>,
    fields: Option<Vec<String>>,
    undecryptable: Option<UndecryptableWord>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum ActWord {
    Seal,
    Open,
    Both,
    Pass,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum UndecryptableWord {
    Park,
    Drop,
    Forward,
}

impl File {
    fn checked(
        self,
        folder: &Path,
        (listeners, upstream): (Vec<Listener>, Option<UpstreamUrl>),
        rules: Rules,
    ) -> Result<Config, Wrong> {
        let upstream = match upstream {
            Some(instead) => instead,
            None => broker(self.upstream.as_deref())?,
        };
        let limits = Limits::default();
        let metrics = self
            .metrics
            .map(|text| loopback_address(&text, "127.0.0.1:9465"));
        let metrics = metrics.transpose();
        Ok(Config {
            listeners,
            upstream,
            upstream_ca: self.upstream_ca.map(|path| folder.join(path)),
            rules,
            limits: Limits {
                packet_max: packet_max(self.packet_max.as_deref(), limits.packet_max)?,
                connections_max: some("connections_max", self.connections_max)?
                    .unwrap_or(limits.connections_max),
                address_connections_max: some(
                    "address_connections_max",
                    self.address_connections_max,
                )?,
                connect_timeout: positive(
                    "connect_timeout",
                    self.connect_timeout.as_deref(),
                    limits.connect_timeout,
                )?,
                age_max: positive("age_max", self.age_max.as_deref(), limits.age_max)?,
                park: ParkLimits {
                    messages_max: self.park_messages_max.unwrap_or(limits.park.messages_max),
                    bytes_max: match &self.park_bytes_max {
                        None => limits.park.bytes_max,
                        Some(text) => parse_size(text).map_err(|says| ("park_bytes_max", says))?,
                    },
                    age_max: positive(
                        "park_age_max",
                        self.park_age_max.as_deref(),
                        limits.park.age_max,
                    )?,
                },
            },
            metrics: metrics.map_err(|says| ("metrics", says))?,
            log: self
                .log
                .map_or(Ok(LevelFilter::INFO), |text| level(&text))?,
            log_format: self.log_format.unwrap_or_default(),
        })
    }
}

fn broker(text: Option<&str>) -> Result<UpstreamUrl, Wrong> {
    let lacks = || "is not said; such as upstream = \"mqtts://broker.example\"".to_owned();
    let text = text.ok_or_else(|| ("upstream", lacks()))?;
    let url = text.parse::<UpstreamUrl>();
    url.map_err(|error| ("upstream", error.to_string()))
}

fn packet_max(text: Option<&str>, default: u32) -> Result<u32, Wrong> {
    let Some(text) = text else {
        return Ok(default);
    };
    let size = parse_size(text).map_err(|says| ("packet_max", says))?;
    let size = u32::try_from(size).ok();
    match size.filter(|size| (PACKET_MIN..=PACKET_MAX).contains(size)) {
        Some(PACKET_MAX) => Ok(LARGEST),
        size => size.ok_or_else(|| ("packet_max", "from 128 KiB to 256 MiB".to_owned())),
    }
}

fn some(key: &'static str, number: Option<usize>) -> Result<Option<usize>, Wrong> {
    match number {
        Some(0) => Err((key, "at least 1".to_owned())),
        given => Ok(given),
    }
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

fn level(text: &str) -> Result<LevelFilter, Wrong> {
    Ok(match text {
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => {
            let says = "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"";
            return Err(("log", says.to_owned()));
        }
    })
}

/// All listeners: the simple form, or what holds instead, and a section for each.
fn listeners(
    text: &str,
    (instead, simple): (Option<Listener>, Option<String>),
    sections: Vec<ListenerSection>,
    folder: &Path,
) -> Result<Vec<Listener>, (usize, String)> {
    let is_simple = instead.is_none() && (simple.is_some() || sections.is_empty());
    let simple = is_simple.then(|| ListenerSection::simple(simple));
    let mut listeners: Vec<Listener> = instead.into_iter().collect();
    let first = simple.map(|section| (HEAD, section));
    let others = sections.into_iter().zip(1..);
    let others = others.map(|(section, number)| (("[[listener]]", number), section));
    for (place, section) in first.into_iter().chain(others) {
        let listener = section.checked(folder);
        let listener = listener.map_err(|wrong| at(text, place, wrong))?;
        let address = listener.address;
        if address.port() != 0 && listeners.iter().any(|of| of.address == address) {
            let says = "another listener has this address".to_owned();
            return Err(at(text, place, ("listen", says)));
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

fn rules(text: &str, sections: &[RuleSection]) -> Result<Rules, (usize, String)> {
    if sections.is_empty() {
        let says = "no `[[rule]]`: what no rule names is refused, and so all would be";
        return Err((1, says.to_owned()));
    }
    let at = |number, wrong| at(text, ("[[rule]]", number), wrong);
    let rules = sections.iter().zip(1..);
    let rules = rules.map(|(section, number)| section.checked().map_err(|wrong| at(number, wrong)));
    let rules = Rules::new(rules.collect::<Result<_, _>>()?);
    rules.map_err(|(never, hides)| {
        let hides = hides + 1;
        let says = format!("rule {hides} names all of these before; put this rule before it");
        at(never + 1, ("topics", says))
    })
}

impl RuleSection {
    fn checked(&self) -> Result<Rule, Wrong> {
        let lacks = |key: &'static str, says: &str| (key, says.to_owned());
        let topics = self.topics.as_deref();
        let topics = topics.ok_or_else(|| lacks("topics", "is not said; such as \"plant/#\""))?;
        let topics = topics.parse::<Topics>();
        let topics = topics.map_err(|error| ("topics", error.to_string()))?;
        if topics.of_clients().is_none() && self.act.is_some_and(|of| of != ActWord::Pass) {
            return Err(lacks(
                "topics",
                "what begins with `$` is the broker's own, and can be passed alone",
            ));
        }
        let act = self.act;
        let act = act.ok_or_else(|| lacks("do", "is not said: seal, open, both or pass"))?;
        let act = match act {
            ActWord::Pass => {
                let superfluous = [
                    ("stream", self.stream.is_some()),
                    ("fields", self.fields.is_some()),
                    ("undecryptable", self.undecryptable.is_some()),
                ];
                if let Some((key, _)) = superfluous.iter().find(|(_, is_said)| *is_said) {
                    return Err(lacks(
                        key,
                        "not with `do = \"pass\"`, which seals and opens nothing",
                    ));
                }
                Act::Pass
            }
            ActWord::Seal if self.undecryptable.is_some() => {
                let says = "not with `do = \"seal\"`, which opens nothing";
                return Err(lacks("undecryptable", says));
            }
            ActWord::Seal => Act::Seal {
                stream: self.stream()?,
            },
            ActWord::Open => Act::Open {
                stream: self.stream()?,
                undecryptable: self.undecryptable(),
            },
            ActWord::Both => Act::Both {
                stream: self.stream()?,
                undecryptable: self.undecryptable(),
            },
        };
        Ok(Rule {
            topics,
            fields: self.fields()?,
            act,
        })
    }

    fn fields(&self) -> Result<Vec<Field>, Wrong> {
        let Some(texts) = &self.fields else {
            return Ok(Vec::new());
        };
        let mut fields: Vec<Field> = Vec::new();
        for text in texts {
            let field = text.parse::<Field>();
            let field = field.map_err(|error| ("fields", format!("{error}: {text}")))?;
            if let Some(other) = fields.iter().find(|of| of.holds(&field) || field.holds(of)) {
                let says = format!("{field} and {other} are not apart");
                return Err(("fields", says));
            }
            fields.push(field);
        }
        match fields.is_empty() {
            true => Err((
                "fields",
                "name some, or leave it out to seal all of a message".to_owned(),
            )),
            false => Ok(fields),
        }
    }

    fn stream(&self) -> Result<Name, Wrong> {
        let Some(stream) = &self.stream else {
            return Err(("stream", "say for which stream".to_owned()));
        };
        let name = stream.parse::<Name>();
        name.map_err(|error| ("stream", error.to_string()))
    }

    fn undecryptable(&self) -> Undecryptable {
        match self.undecryptable {
            None | Some(UndecryptableWord::Park) => Undecryptable::Park,
            Some(UndecryptableWord::Drop) => Undecryptable::Drop,
            Some(UndecryptableWord::Forward) => Undecryptable::Forward,
        }
    }
}

/// A section as it is said, and which of those with that name it is, from 1 on.
type Place = (&'static str, usize);

/// What stands before all sections.
const HEAD: Place = ("", 0);

fn at(text: &str, place: Place, (key, says): Wrong) -> (usize, String) {
    (line_of_key(text, place, key), format!("`{key}`: {says}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOP: &str = "listen = \"127.0.0.1:1883\"\nupstream = \"mqtt://broker.example\"\n";
    const RULE: &str = "[[rule]]\ntopics = \"plant/#\"\nstream = \"boiler\"\ndo = \"both\"\n";

    fn parse(text: &str) -> Result<Config, (usize, String)> {
        parse_with(text, &Instead::default())
    }

    fn parse_with(text: &str, instead: &Instead) -> Result<Config, (usize, String)> {
        Config::parse(text, Path::new("/etc/sealcast"), instead)
    }

    #[test]
    fn what_is_said_elsewhere_holds_instead() {
        let instead = Instead {
            listen: Some("127.0.0.1:11883".parse().unwrap()),
            upstream: Some("mqtts://other.example".parse().unwrap()),
        };
        let whole = parse_with(&format!("{TOP}{RULE}"), &instead).unwrap();
        assert_eq!(parse_with(RULE, &instead), Ok(whole.clone()));
        let shown = |config: &Config| {
            let listeners = config.listeners.iter().map(ToString::to_string);
            (
                listeners.collect::<Vec<_>>().join(" "),
                config.upstream.to_string(),
            )
        };
        let other = "mqtts://other.example:8883".to_owned();
        assert_eq!(
            shown(&whole),
            ("mqtt://127.0.0.1:11883".to_owned(), other.clone())
        );
        // Other listeners stay.
        let web = "[[listener]]\nlisten = \"ws://127.0.0.1:8080\"\n";
        let both = parse_with(&format!("{web}{RULE}"), &instead).unwrap();
        let listens = "mqtt://127.0.0.1:11883 ws://127.0.0.1:8080".to_owned();
        assert_eq!(shown(&both), (listens, other));
        let same = web.replace("8080", "11883");
        let twice = parse_with(&format!("{same}{RULE}"), &instead).unwrap_err();
        assert_eq!(
            twice,
            (2, "`listen`: another listener has this address".to_owned())
        );
    }

    #[test]
    fn a_listener_by_itself_is_one_that_needs_nothing_more() {
        let says = |text: &str| text.parse::<Listener>().map_err(|error| error.to_string());
        assert!(says("ws://127.0.0.1:8080").is_ok() && says("[::1]:1883").is_ok());
        for (odd, why) in [
            ("1883", "an address and a port"),
            ("0.0.0.0:1883", "others on that network"),
            ("mqtts://127.0.0.1:8883", "TLS needs it"),
        ] {
            let said = says(odd).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn a_file_says_what_becomes_of_which_topics() {
        let config = parse(&format!(
            "{TOP}upstream_ca = \"ca.pem\"\npacket_max = \"2 MiB\"\nconnections_max = 7\n\
             address_connections_max = 5\nconnect_timeout = \"2s\"\nage_max = \"1d\"\nlog = \"debug\"\nlog_format = \"json\"\n{RULE}\
             undecryptable = \"forward\"\n[[rule]]\ntopics = \"open/+\"\ndo = \"pass\"\n"
        ));
        let config = config.unwrap();
        assert_eq!(config.upstream_ca, Some("/etc/sealcast/ca.pem".into()));
        assert_eq!(config.limits.packet_max, 2 << 20);
        assert_eq!(config.limits.connections_max, 7);
        assert_eq!(config.limits.address_connections_max, Some(5));
        assert_eq!(config.limits.connect_timeout, Duration::from_secs(2));
        assert_eq!(config.limits.age_max, Duration::from_secs(86_400));
        assert_eq!(
            (config.log, config.log_format),
            (LevelFilter::DEBUG, LogFormat::Json)
        );
        let stream: Name = "boiler".parse().unwrap();
        assert_eq!(config.rules.streams(), [&stream]);
        let both = Act::Both {
            stream,
            undecryptable: Undecryptable::Forward,
        };
        let acts: Vec<_> = config.rules.all().iter().map(|rule| &rule.act).collect();
        assert_eq!(acts, [&both, &Act::Pass]);
    }

    #[test]
    fn what_is_left_out_stands_at_its_default() {
        let config = parse(&format!("{TOP}{RULE}")).unwrap();
        assert_eq!(config.limits, Limits::default());
        assert_eq!(
            (config.log, config.log_format),
            (LevelFilter::INFO, LogFormat::Text)
        );
        let Act::Both { undecryptable, .. } = config.rules.all()[0].act else {
            panic!("it does both");
        };
        assert_eq!(undecryptable, Undecryptable::Park);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_line() {
        for (text, line, says) in [
            (String::new(), 1, "no `[[rule]]`"),
            (RULE.to_owned(), 1, "`listen`: is not said"),
            (
                format!("listen = \"127.0.0.1:1883\"\n{RULE}"),
                1,
                "`upstream`: is not said",
            ),
            (format!("lisen = \"x\"\n{RULE}"), 1, "unknown field `lisen`"),
            (
                format!("listen = \"localhost\"\n{RULE}"),
                1,
                "an address and a port",
            ),
            (
                format!("{TOP}packet_max = \"1 KiB\"\n{RULE}"),
                3,
                "from 128 KiB",
            ),
            (
                format!("{TOP}packet_max = \"1 GiB\"\n{RULE}"),
                3,
                "to 256 MiB",
            ),
            (
                format!("{TOP}packet_max = \"1 MB\"\n{RULE}"),
                3,
                "a size is",
            ),
            (format!("{TOP}connections_max = 0\n{RULE}"), 3, "at least 1"),
            (
                format!("{TOP}address_connections_max = 0\n{RULE}"),
                3,
                "at least 1",
            ),
            (
                format!("{TOP}connect_timeout = \"0s\"\n{RULE}"),
                3,
                "longer than nothing",
            ),
            (
                format!("{TOP}age_max = \"0d\"\n{RULE}"),
                3,
                "longer than nothing",
            ),
            (
                format!("{TOP}metrics = \"0.0.0.0:1\"\n{RULE}"),
                3,
                "only loopback",
            ),
            (format!("{TOP}log = \"loud\"\n{RULE}"), 3, "\"warn\""),
            (
                "listen = \"127.0.0.1:1\"\n\nupstream = \"mqtt://kim:secret@h\"\n[[rule]]\n\
                 topics = \"a\"\ndo = \"pass\""
                    .to_owned(),
                3,
                "no user name or password",
            ),
        ] {
            refused(&text, line, says);
        }
    }

    #[test]
    fn clients_connect_in_several_ways() {
        let config = parse(&format!(
            "{TOP}[[listener]] # sensors\nlisten = \"mqtts://[::]:8883\"\ncertificate = \"s.pem\"\n\
             key = \"/s.key\"\nclient_ca = \"ca.pem\"\n{RULE}[[listener]]\nlisten = \"0.0.0.0:1883\"\n\
             danger_in_clear = true\n[[listener]]\nlisten = \"ws://[::1]:80\"\n\
             origins = [\"http://localhost:8080\"]\n"
        ));
        let listeners = config.unwrap().listeners;
        let names: Vec<_> = listeners.iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            [
                "mqtt://127.0.0.1:1883",
                "mqtts://[::]:8883",
                "mqtt://0.0.0.0:1883",
                "ws://[::1]:80"
            ]
        );
        let tls = Certificates {
            certificate: "/etc/sealcast/s.pem".into(),
            key: "/s.key".into(),
            client_ca: Some("/etc/sealcast/ca.pem".into()),
        };
        assert_eq!(listeners[1].tls, Some(tls));
        let in_clear: Vec<_> = listeners.iter().map(Listener::is_in_clear).collect();
        assert_eq!(in_clear, [false, false, true, false]);
        let origins = vec!["http://localhost:8080".to_owned()];
        assert_eq!(listeners[3].transport, Transport::WebSocket { origins });
    }

    #[test]
    fn a_listener_that_makes_no_sense_is_refused_with_its_line() {
        let top = "upstream = \"mqtt://broker.example\"\n";
        for (listeners, line, says) in [
            ("listen = \"0.0.0.0:1883\"", 2, "others on that network"),
            (
                "listen = \"mqtts://127.0.0.1:1\"",
                1,
                "`certificate`: a file in PEM",
            ),
            ("[[listener]]", 2, "`listen`: is not said"),
            (
                "[[listener]]\nlisten = \"http://127.0.0.1:1\"",
                3,
                "an address and",
            ),
            (
                "[[listener]]\nlisten = \"[::]:1\"",
                3,
                "others on that network",
            ),
            (
                "[[listener]]\nlisten = \"[::]:1\"\ndanger_in_clear = false",
                3,
                "others on that network",
            ),
            (
                "[[listener]]\nlisten = \"127.0.0.1:1\"\nkey = \"k\"",
                4,
                "`key`: without TLS",
            ),
            ("listen = \"ws://0.0.0.0:1\"", 2, "others on that network"),
            (
                "[[listener]]\nlisten = \"127.0.0.1:1\"\norigins = []",
                4,
                "`origins`: without WebSocket",
            ),
            (
                "[[listener]]\nlisten = \"ws://127.0.0.1:1\"\norigins = [\"https://h/\"]",
                4,
                "`origins`: each as browsers",
            ),
            (
                "[[listener]]\nlisten = \"mqtts://127.0.0.1:1\"\ncertificate = \"c\"",
                2,
                "`key`: a file in PEM",
            ),
            (
                "[[listener]]\nlisten = \"mqtts://[::]:1\"\ncertificate = \"c\"\nkey = \"k\"\n\
                 danger_in_clear = true",
                6,
                "`danger_in_clear`: nothing is",
            ),
            (
                "listen = \"127.0.0.1:1\"\n[[listener]]\nlisten = \"mqtt://127.0.0.1:1\"",
                4,
                "another listener has this address",
            ),
        ] {
            refused(&format!("{top}{listeners}\n{RULE}"), line, says);
        }
    }

    #[test]
    fn a_rule_that_makes_no_sense_is_refused_with_its_line() {
        for (rule, line, says) in [
            ("[[rule]]", 7, "`topics`: is not said"),
            ("[[rule]]\ntopics = \"x\"", 7, "`do`: is not said"),
            (
                "[[rule]]\ntopics = \"x\"\ndo = \"park\"",
                9,
                "unknown variant `park`",
            ),
            (
                "[[rule]]\ntopics = \"x\"\ndo = \"seal\"",
                7,
                "say for which stream",
            ),
            (
                "[[rule]]\ntopics = \"x\"\ndo = \"seal\"\nstream = \"\"",
                10,
                "`stream`:",
            ),
            (
                "[[rule]]\ntopics = \"a+\"\ndo = \"pass\"",
                8,
                "`topics`: a filter has levels",
            ),
            (
                "[[rule]]\ntopics = \"$share/g/x\"\ndo = \"pass\"",
                8,
                "a shared subscription",
            ),
            (
                "[[rule]]\ntopics = \"$SYS/#\"\ndo = \"open\"\nstream = \"s\"",
                8,
                "the broker's own",
            ),
            (
                "[[rule]]\ntopics = \"x\"\nstream = \"s\"\ndo = \"pass\"",
                9,
                "not with `do = \"pass\"`",
            ),
            (
                "[[rule]]\ntopics = \"x\"\nstream = \"s\"\ndo = \"seal\"\nundecryptable = \"drop\"",
                11,
                "not with `do = \"seal\"`",
            ),
            (
                "[[rule]]\ntopics = \"x\"\nstream = \"s\"\ndo = \"open\"\nundecryptable = \"keep\"",
                11,
                "unknown variant `keep`, expected one of `park`, `drop`, `forward`",
            ),
            (
                "[[rule]]\ntopics = \"plant/7\"\ndo = \"pass\"",
                8,
                "rule 1 names all of these",
            ),
            ("[rule]\ntopics = \"x\"", 7, ""),
        ] {
            refused(&format!("{TOP}{RULE}{rule}"), line, says);
        }
    }

    fn refused(text: &str, line: usize, says: &str) {
        let (found, said) = parse(text).unwrap_err();
        assert_eq!(found, line, "{text}: {said}");
        assert!(said.contains(says), "{text}: {said}");
        assert!(!said.contains("secret"), "{said}");
    }
}
