use clap::Args;
use sealcast::{Aspect, BusReport, Standing};
use serde_json::{Map, Value, json};

use super::parse;
use crate::context::Context;
use crate::error::CommandError;
use crate::ui::Ui;

/// Say what a bus offers, and what it lacks
///
/// Makes nothing. The exit code is 0 when it can be used, 7 when there is none yet, and 5 when there
/// cannot be one, or it cannot be reached.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast bus check file:/srv/bus
  sealcast bus check nats://broker.example/plant --json")]
pub(crate) struct CheckArgs {
    /// The bus
    url: String,
}

pub(crate) async fn run(ui: &Ui, context: &Context, args: &CheckArgs) -> Result<(), CommandError> {
    let bus = parse(&args.url)?;
    let report = sealcast::check_bus(&bus, &context.home_path()?).await?;
    let place = bus.to_string();
    match ui.is_json() {
        true => ui.json(&line(&place, &report))?,
        false => ui.table(&rows(&place, &report))?,
    }
    match report.standing {
        Standing::Ready => Ok(()),
        Standing::Missing => Err(sealcast::Error::NoBus(place).into()),
        Standing::Unusable(why) => Err(sealcast::Error::BusUnusable { place, why }.into()),
    }
}

fn standing(report: &BusReport) -> &'static str {
    match report.standing {
        Standing::Ready => "ready",
        Standing::Missing => "missing",
        Standing::Unusable(_) => "unusable",
    }
}

fn ms(report: &BusReport) -> Option<f64> {
    // Tenths of a millisecond.
    let took = report.round_trip?.as_secs_f64() * 10_000.0;
    Some(took.ceil() / 10.0)
}

fn rows(place: &str, report: &BusReport) -> Vec<[String; 2]> {
    let mut rows = Vec::new();
    let mut row = |name: &str, says: &str| rows.push([name.to_owned(), says.to_owned()]);
    row("bus", place);
    row("standing", standing(report));
    if let Some(ms) = ms(report) {
        row("round trip", &format!("{ms} ms"));
    }
    for aspect in Aspect::ALL {
        if let Some(says) = report.stated(aspect) {
            row(aspect.name(), says);
        }
    }
    for warning in report.warnings() {
        row("warning", &warning.says);
        warning
            .remedy
            .iter()
            .for_each(|line| row("", &format!("  {line}")));
    }
    rows
}

fn line(place: &str, report: &BusReport) -> Map<String, Value> {
    let mut line = Map::new();
    line.insert("bus".into(), place.into());
    line.insert("standing".into(), standing(report).into());
    line.insert("round_trip_ms".into(), ms(report).into());
    for aspect in Aspect::ALL {
        line.insert(aspect.name().into(), report.stated(aspect).into());
    }
    let warnings = report.warnings().iter();
    let warnings = warnings.map(|of| json!({ "says": of.says, "remedy": of.remedy }));
    line.insert("warnings".into(), warnings.collect());
    line
}
