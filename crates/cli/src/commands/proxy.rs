use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use sealcast::{ConfigError, Home};
use sealcast_proxy::{
    Act, Config, Control, Instead, Listener, LogFormat, Proxy, Rule, StartError, Streams,
    Transport, Undecryptable,
};
use serde::Serialize;

use crate::context::Context;
use crate::error::{CommandError, Kind};
use crate::logging;
use crate::signals::{HangUps, asked_to_end};
use crate::ui::Ui;

/// Seal and open for MQTT clients that know nothing of it
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast proxy mqtt proxy.toml
  sealcast proxy check proxy.toml")]
pub(crate) struct ProxyArgs {
    #[command(subcommand)]
    command: ProxyCommand,
}

#[derive(Debug, Subcommand)]
enum ProxyCommand {
    Mqtt(MqttArgs),
    Check(CheckArgs),
}

/// Stand between MQTT clients and their broker, until Ctrl-C or SIGTERM
///
/// Clients connect here as they would to the broker, with MQTT 3.1.1 or 5, and each has a connection to
/// the broker of its own. Rules of the config file say of which topics messages are sealed on their way
/// to the broker, and opened on their way back; what no rule names is refused. It logs to stderr.
/// SIGHUP has it read rules and certificates again.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast proxy mqtt proxy.toml
  sealcast proxy mqtt proxy.toml --listen 127.0.0.1:1883 --upstream mqtts://broker.example
  sealcast --home gateway proxy mqtt /etc/sealcast/proxy.toml")]
struct MqttArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Args, Debug)]
struct ConfigArgs {
    /// Config file, docs/reference/proxy.md
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
    /// Where clients connect, whatever `listen` in the config file says
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// The broker, whatever `upstream` in the config file says
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
}

impl ConfigArgs {
    /// What holds instead of what the config file says. What it was is not repeated: it may have a password in it.
    fn instead(&self) -> Result<Instead, CommandError> {
        let listen = self.listen.as_deref().map(str::parse).transpose();
        let upstream = self.upstream.as_deref().map(str::parse).transpose();
        Ok(Instead {
            listen: listen.map_err(|error| odd("--listen", &error))?,
            upstream: upstream.map_err(|error| odd("--upstream", &error))?,
        })
    }

    fn load(&self) -> Result<Config, CommandError> {
        Config::load(&self.config, &self.instead()?).map_err(unusable)
    }
}

fn odd(option: &str, error: &dyn std::error::Error) -> CommandError {
    CommandError::usage(format!("`{option}`: {error}"))
}

/// Say what a config file does with which topics
///
/// Needs neither broker nor home. The exit code is 2 where the file makes no sense.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast proxy check proxy.toml
  sealcast proxy check proxy.toml plant/7/temperature")]
struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Say it of these topics, instead of each rule
    #[arg(value_name = "TOPIC")]
    topics: Vec<String>,
}

/// What is done with messages, as a line of JSON.
#[derive(Debug, Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    rule: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topics: Option<String>,
    #[serde(rename = "do")]
    act: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    undecryptable: Option<&'static str>,
}

pub(crate) async fn run(ui: &Ui, context: &Context, args: ProxyArgs) -> Result<(), CommandError> {
    match args.command {
        ProxyCommand::Mqtt(args) => mqtt(ui, context, &args.config).await,
        ProxyCommand::Check(args) => check(ui, &args),
    }
}

async fn mqtt(ui: &Ui, context: &Context, args: &ConfigArgs) -> Result<(), CommandError> {
    let (config, instead) = (args.load()?, args.instead()?);
    let home = context.open().await?;
    warn_of(ui, &home, &config)?;
    logging::start(config.log, config.log_format == LogFormat::Json);
    // Listens for signals before it starts, so that whoever sees it run can end it.
    let mut end = std::pin::pin!(asked_to_end());
    let mut hang_ups = HangUps::listen()?;
    let starting = async {
        let streams = Streams::open(&home, &config.rules, config.limits.age_max).await?;
        streams.all().for_each(|stream| ui.alarms(stream));
        Proxy::start(config, Arc::new(streams))
            .await
            .map_err(refused)
    };
    let proxy = tokio::select! {
        biased;
        ended = &mut end => return ended,
        started = starting => started?,
    };
    let control = proxy.control();
    let reloading = async {
        loop {
            hang_ups.next().await;
            reload(&home, (&args.config, &instead), &control).await;
        }
    };
    let mut ended = Ok(());
    tokio::select! {
        () = proxy.run(async { ended = end.await }) => {}
        () = reloading => {}
    }
    ended
}

/// Reads the config file again, and has the proxy go by it; where that cannot be, all is as it was.
async fn reload(home: &Home, (path, instead): (&Path, &Instead), control: &Control) {
    let kept = "the config file is not taken over, all is as it was";
    let config = match Config::load(path, instead) {
        Ok(config) => config,
        Err(ConfigError::Wrong { line, says, .. }) => {
            tracing::error!(line, says, "{kept}");
            return;
        }
        Err(ConfigError::Unreadable { source, .. }) => {
            tracing::error!(kind = ?source.kind(), "{kept}");
            return;
        }
    };
    let streams = match Streams::open(home, &config.rules, config.limits.age_max).await {
        Ok(streams) => streams,
        Err(error) => {
            tracing::error!(code = error.code(), "{kept}");
            return;
        }
    };
    let rules = config.rules.all().len();
    match control.reload(config, Arc::new(streams)) {
        Ok(later) => {
            for option in later {
                tracing::warn!(option, "was changed, and holds from the next start on");
            }
            tracing::info!(rules, "config file read again");
        }
        Err(error) => {
            let cause = error.source.to_string();
            tracing::error!(code = "proxy.certificates", cause, "{kept}");
        }
    }
}

/// Says what will not do what it looks like.
fn warn_of(ui: &Ui, home: &Home, config: &Config) -> Result<(), CommandError> {
    for listener in config.listeners.iter().filter(|of| of.is_in_clear()) {
        ui.warn(format!(
            "what clients send to {listener} is not secured by TLS: others on that network can read it"
        ));
    }
    let streams = home.streams()?;
    for rule in config.rules.all() {
        let stream = streams
            .iter()
            .find(|of| Some(&of.name) == rule.act.stream());
        let topics = stream.and_then(|of| of.bus.server()?.users_topics().cloned());
        let Some(topics) = topics else {
            continue;
        };
        let of_clients = rule.topics.of_clients();
        if of_clients.is_some_and(|of| !topics.filter().covers(of)) {
            let (rule, has) = (&rule.topics, topics.filter());
            ui.warn(format!(
                "`sub`, agents and archives do not see all that is sealed on `{rule}`: the bus of the stream has `{has}`"
            ));
        }
    }
    Ok(())
}

fn check(ui: &Ui, args: &CheckArgs) -> Result<(), CommandError> {
    let config = args.config.load()?;
    if args.topics.is_empty() {
        return check_rules(ui, &config);
    }
    let width = args.topics.iter().map(|topic| topic.chars().count()).max();
    for topic in &args.topics {
        let found = config.rules.of(topic);
        if ui.is_json() {
            ui.json(&Line::of(Some(topic), found))?;
            continue;
        }
        let why = match found {
            Some((index, rule)) => format!("rule {}, {}", index + 1, rule.topics),
            None => "no rule".to_owned(),
        };
        let says = in_words(found.map(|(_, rule)| rule));
        let width = width.unwrap_or_default();
        ui.data(format!("{topic:width$}  {says} ({why})"))?;
    }
    Ok(())
}

fn check_rules(ui: &Ui, config: &Config) -> Result<(), CommandError> {
    let rules = config.rules.all();
    if ui.is_json() {
        for (index, rule) in rules.iter().enumerate() {
            ui.json(&Line::of(None, Some((index, rule))))?;
        }
        return ui.json(&Line::of(None, None));
    }
    for listener in &config.listeners {
        let (secured, pages) = (secured(listener), pages(listener));
        ui.data(format!("listen    {listener}{secured}{pages}"))?;
    }
    ui.data(format!("upstream  {}", config.upstream))?;
    if let Some(metrics) = config.metrics {
        ui.data(format!("metrics   http://{metrics}/metrics"))?;
    }
    let names = rules.iter().map(|rule| rule.topics.to_string());
    let names: Vec<_> = names.collect();
    let width = names.iter().map(|name| name.chars().count()).max();
    let width = width.unwrap_or_default();
    for (index, (rule, name)) in rules.iter().zip(&names).enumerate() {
        let says = in_words(Some(rule));
        ui.data(format!("rule {:<3}  {name:width$}  {says}", index + 1))?;
    }
    ui.data(format!("all else  {:width$}  {}", "", in_words(None)))
}

/// Who can read what clients send there, where that is not this machine alone.
fn secured(of: &Listener) -> &'static str {
    match &of.tls {
        Some(tls) if tls.client_ca.is_some() => ", with TLS, for clients with a certificate",
        Some(_) => ", with TLS",
        None if of.is_in_clear() => ", in clear: others on that network can read it",
        None => "",
    }
}

/// Which pages may connect, where browsers can.
fn pages(of: &Listener) -> String {
    match &of.transport {
        Transport::Stream => String::new(),
        Transport::WebSocket { origins } if origins.is_empty() => ", for no pages".to_owned(),
        Transport::WebSocket { origins } => format!(", for pages of {} too", origins.join(", ")),
    }
}

/// What becomes of messages.
fn in_words(rule: Option<&Rule>) -> String {
    let fields = rule.map_or(&[][..], |rule| rule.fields.as_slice());
    let fields: Vec<_> = fields.iter().map(ToString::to_string).collect();
    let says = act_in_words(rule.map(|rule| &rule.act));
    match fields.is_empty() {
        true => says,
        false => format!("{says}; of JSON the values {} alone", fields.join(", ")),
    }
}

fn act_in_words(act: Option<&Act>) -> String {
    let unopened = |undecryptable: &Undecryptable| match undecryptable {
        Undecryptable::Park => "or kept until it opens",
        Undecryptable::Drop => "or dropped where it does not open",
        Undecryptable::Forward => "or delivered as it is where its key is missing",
    };
    match act {
        Some(Act::Seal { stream }) => {
            format!("published: sealed for stream {stream}; received: as it is")
        }
        Some(Act::Open {
            stream,
            undecryptable,
        }) => {
            let unopened = unopened(undecryptable);
            format!("published: refused; received: opened from stream {stream}, {unopened}")
        }
        Some(Act::Both {
            stream,
            undecryptable,
        }) => {
            let unopened = unopened(undecryptable);
            format!("published: sealed for stream {stream}; received: opened, {unopened}")
        }
        Some(Act::Pass) => "published and received in clear".to_owned(),
        None => "published: refused; received: dropped".to_owned(),
    }
}

impl<'a> Line<'a> {
    fn of(topic: Option<&'a str>, found: Option<(usize, &'a Rule)>) -> Self {
        let rule = found.map(|(_, rule)| rule);
        let undecryptable = match rule.map(|rule| &rule.act) {
            Some(Act::Open { undecryptable, .. } | Act::Both { undecryptable, .. }) => {
                Some(match undecryptable {
                    Undecryptable::Park => "park",
                    Undecryptable::Drop => "drop",
                    Undecryptable::Forward => "forward",
                })
            }
            Some(Act::Seal { .. } | Act::Pass) | None => None,
        };
        Self {
            topic,
            rule: found.map(|(index, _)| index + 1),
            topics: rule.map(|rule| rule.topics.to_string()),
            act: match rule.map(|rule| &rule.act) {
                Some(Act::Seal { .. }) => "seal",
                Some(Act::Open { .. }) => "open",
                Some(Act::Both { .. }) => "both",
                Some(Act::Pass) => "pass",
                None => "refuse",
            },
            stream: rule
                .and_then(|rule| rule.act.stream())
                .map(|of| of.as_str()),
            fields: rule.map_or_else(Vec::new, |rule| {
                rule.fields.iter().map(ToString::to_string).collect()
            }),
            undecryptable,
        }
    }
}

fn unusable(error: ConfigError) -> CommandError {
    CommandError::config(error, "docs/reference/proxy.md lists what can be said")
}

fn refused(error: StartError) -> CommandError {
    let hint = match &error {
        StartError::Upstream(_) => "see `upstream` and `upstream_ca` in the config file",
        StartError::Certificates(_) => {
            "see `certificate`, `key` and `client_ca` in the config file"
        }
        StartError::Listen { .. } => {
            "name another address in the config file: `listen`, or `metrics`"
        }
    };
    CommandError::new(Kind::Usage, error.code(), error.to_string())
        .because(&error)
        .with_hint(hint)
}
