use std::path::PathBuf;

use clap::{Args, Subcommand};
use sealcast::{BusUrl, ConfigError, Home};
use sealcast_agent::{
    Agent, Config, FILE_NAME, LogFormat, LogLevel, Standing, StartError, Status, StreamStatus,
};
use tracing::level_filters::LevelFilter;

use crate::agent;
use crate::context::{Context, bus_here};
use crate::error::{CommandError, Kind};
use crate::logging;
use crate::signals::asked_to_end;
use crate::ui::{Ui, count, thousands};

/// Keep running: hand out keys, archive, serve metrics and a local API
///
/// Serves the home until Ctrl-C or SIGTERM: takes keys in and hands out those that others are due,
/// in all its streams, those joined meanwhile included. Other commands go on working; `sub` follows
/// through the agent. It logs to stderr, and answers `/metrics` and `/healthz` on
/// 127.0.0.1:9464. One agent serves one home.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast agent
  sealcast agent --archive file:/srv/archive
  sealcast agent status")]
pub(crate) struct AgentArgs {
    #[command(subcommand)]
    command: Option<AgentCommand>,
    /// Config file [default: `config.toml` in the home, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Copy all streams, still sealed, to this bus: `file:` and a folder that there is
    #[arg(long, value_name = "URL")]
    archive: Option<String>,
}

#[derive(Debug, Subcommand)]
enum AgentCommand {
    Status(StatusArgs),
}

/// Show whether an agent runs, and how it and its streams are
///
/// The exit code is 7 where none runs.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast agent status
  sealcast agent status --json")]
struct StatusArgs {}

pub(crate) async fn run(ui: &Ui, context: &Context, args: AgentArgs) -> Result<(), CommandError> {
    if let Some(AgentCommand::Status(_)) = args.command {
        return status(ui, context).await;
    }
    let home = context.open().await?;
    let config = config(&home, &args)?;
    log(&config);
    // Listens for signals before it starts, so that whoever sees it run can end it.
    let mut end = std::pin::pin!(asked_to_end());
    let agent = tokio::select! {
        biased;
        ended = &mut end => return ended,
        started = Agent::start(home, config) => started.map_err(refused)?,
    };
    let mut ended = Ok(());
    agent.run(async { ended = end.await }).await;
    ended
}

fn config(home: &Home, args: &AgentArgs) -> Result<Config, CommandError> {
    let in_home = home.path().join(FILE_NAME);
    let path = args.config.as_ref();
    let path = path.or_else(|| in_home.exists().then_some(&in_home));
    let config = path.map(|path| Config::load(path, home.path()));
    let mut config = config.transpose().map_err(unusable)?.unwrap_or_default();
    let archive = args.archive.as_deref().map(BusUrl::parse).transpose();
    let archive = bus_here(archive.map_err(sealcast::Error::BusUrl)?.as_ref())?;
    if archive.is_some() {
        config.agent.archive = archive;
    }
    Ok(config)
}

fn unusable(error: ConfigError) -> CommandError {
    CommandError::config(error, "docs/reference/config.md lists the options")
}

fn refused(error: StartError) -> CommandError {
    let (kind, hint) = match &error {
        StartError::Running { .. } => (Kind::Usage, "`sealcast agent status` shows how it is"),
        StartError::Server(_) => (
            Kind::Usage,
            "see `url` and `url_ca` in `[decisions]` of the config file",
        ),
        StartError::Listen { .. } => (
            Kind::Usage,
            "name another port in the config file: `listen` in `[agent]`, or \"off\"",
        ),
        StartError::Socket { .. } => (Kind::Store, "a home with a short path can have a socket"),
        StartError::Lock(_) => (
            Kind::Store,
            "see that the folder of the home is yours and may be written",
        ),
    };
    CommandError::new(kind, error.code(), error.to_string())
        .because(&error)
        .with_hint(hint)
}

fn log(config: &Config) {
    let level = match config.agent.log {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    logging::start(level, config.agent.log_format == LogFormat::Json);
}

async fn status(ui: &Ui, context: &Context) -> Result<(), CommandError> {
    let status = agent::status(context).await?.ok_or_else(agent::missing)?;
    if ui.is_json() {
        return ui.json(&status);
    }
    for (name, value) in head(&status) {
        ui.data(format!("{name:<8}  {value}"))?;
    }
    for of in &status.streams {
        ui.data("")?;
        stream(ui, of)?;
    }
    for bus in &status.buses {
        if let Some(fault) = &bus.fault {
            ui.data(format!("\nbus       {}: {}", bus.bus, fault.message))?;
        }
    }
    ui.flush()?;
    if status.streams.is_empty() {
        ui.hint("the home has no streams yet; the agent takes them up as they come");
    }
    Ok(())
}

fn head(status: &Status) -> Vec<(&'static str, String)> {
    let mut head = vec![
        (
            "agent",
            format!("process {}, version {}", status.process, status.version),
        ),
        ("since", status.since.clone()),
        ("user", status.user.clone()),
    ];
    if let Some(listen) = &status.listen {
        head.push(("metrics", format!("http://{listen}/metrics")));
    }
    head.extend(status.archive.clone().map(|archive| ("archive", archive)));
    if status.pending_requests > 0 {
        let waiting = count(status.pending_requests as u64, "request");
        let waiting = format!("for a decision: {waiting}; `sealcast requests list`");
        head.push(("waiting", waiting));
    }
    match status.problems.as_slice() {
        [] => head.push(("health", "ok".to_owned())),
        problems => head.extend(problems.iter().map(|of| ("problem", of.clone()))),
    }
    head
}

fn stream(ui: &Ui, of: &StreamStatus) -> Result<(), CommandError> {
    let standing = match of.standing {
        Standing::Opening => "not opened yet",
        Standing::Attended => "attended to",
        Standing::Failing => "failing",
    };
    let name = ui.paint_data(&of.name, "1");
    ui.data(format!(
        "stream {}  {name}, {standing} since {}",
        of.number, of.since
    ))?;
    if let Some(fault) = &of.fault {
        ui.data(format!("          {}: {}", fault.code, fault.message))?;
    }
    let mut counts = vec![
        format!("{} handed out", count(of.bundles, "bundle")),
        count(of.subscribers, "subscriber"),
    ];
    if let Some(archive) = &of.archive {
        counts.push(format!("{} archived", count(archive.items, "item")));
    }
    if of.alarms > 0 {
        counts.push(format!("{} alarms", thousands(of.alarms)));
    }
    ui.data(format!("          {}", counts.join(", ")))?;
    if let Some(fault) = of.archive.as_ref().and_then(|of| of.fault.as_ref()) {
        ui.data(format!(
            "          archive: {}: {}",
            fault.code, fault.message
        ))?;
    }
    for alarm in &of.latest_alarms {
        ui.data(format!("          alarm: {alarm}"))?;
    }
    Ok(())
}
