use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use clap::Args;
use sealcast::{
    Acks, AnswerOptions, Backfill, DataTopic, Name, Published, Publisher, SecretBytes, Stream,
};
use serde::Serialize;
use tokio::sync::Notify;

use crate::context::Context;
use crate::error::{CommandError, Kind};
use crate::input::{self, Lines};
use crate::signals::asked_to_end;
use crate::time::{absolute, rfc3339};
use crate::ui::{Ui, count};

/// Publish sealed: a text, a file, standard input or its lines
///
/// Without options standard input to its end is one message. A message holds any bytes, none
/// included.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast pub boiler -m '61.4 C'
  sealcast pub boiler -f photo.jpg
  sealcast pub plant -t plant/7/temperature -m '61.4 C'
  tail -F boiler.log | sealcast pub boiler -l
  sealcast pub boiler -l --acks < today.log
  sealcast pub boiler -l --backfill < history.tsv")]
pub(crate) struct PubArgs {
    /// The stream
    stream: Name,
    /// Publish this text
    #[arg(
        short,
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        group = "source"
    )]
    message: Option<OsString>,
    /// Publish this file as one message
    #[arg(short, long, value_name = "FILE", group = "source")]
    file: Option<PathBuf>,
    /// Publish each line of standard input
    ///
    /// A line is a record of its own, without its newline. Every other byte is kept. Meanwhile it
    /// gives keys to others who ask, as far as the access log lets it.
    #[arg(short, long, group = "source")]
    lines: bool,
    /// Publish on this topic below the stream, such as `plant/7/temperature`
    ///
    /// Everybody on the bus may read the topic. It is bound into each message, so that nobody can move
    /// one to another topic; `read` and `sub` tell it with `--json`. On a broker where messages of the
    /// stream have topics of the users' own, it is published there.
    #[arg(short, long, value_name = "TOPIC", conflicts_with = "backfill")]
    topic: Option<DataTopic>,
    /// Bring older data in: each line is a time, a tab and the payload
    ///
    /// Times are dates (midnight UTC) or RFC 3339. They ascend, and all are past. Each record is
    /// sealed at its own time, so that a grant of that time opens it.
    #[arg(long, requires = "lines")]
    backfill: bool,
    /// Print how many lines are stored on the bus, each time there are more
    ///
    /// A number a line, at once. Whatever ends the program, so many of the first lines are durable
    /// there; perhaps more. A script that begins again goes on behind them.
    #[arg(long, requires = "lines", conflicts_with = "backfill")]
    acks: bool,
}

#[derive(Serialize)]
struct Line {
    time: String,
    position: u64,
    records: u64,
    envelopes: u64,
}

#[derive(Serialize)]
struct AckLine {
    stored: u64,
}

pub(crate) async fn run(ui: &Ui, context: &Context, args: &PubArgs) -> Result<(), CommandError> {
    let payload = match args.lines {
        true => None,
        false => Some(message(ui, args)?),
    };
    let (_home, stream) = context.stream(ui, &args.stream).await?;
    let published = match payload {
        Some(payload) => Some(match &args.topic {
            Some(topic) => stream.publish_on(topic, payload.expose()).await?,
            None => stream.publish(payload.expose()).await?,
        }),
        None if args.backfill => Some(backfill(ui, &stream).await?),
        None => lines(ui, &stream, args).await?,
    };
    tell(ui, &args.stream, published)?;
    ui.alarms(&stream);
    Ok(())
}

/// What is one message.
fn message(ui: &Ui, args: &PubArgs) -> Result<SecretBytes, CommandError> {
    if let Some(text) = &args.message {
        return Ok(SecretBytes::from(text.as_encoded_bytes().to_vec()));
    }
    if let Some(path) = &args.file {
        return input::whole_file(path);
    }
    if io::stdin().is_terminal() {
        ui.talk("Type the message; Ctrl-D on a line of its own ends it.");
    }
    input::whole_stdin()
}

/// Publishes lines as they come; `None` when there was none.
async fn lines(
    ui: &Ui,
    stream: &Stream,
    args: &PubArgs,
) -> Result<Option<Published>, CommandError> {
    let publisher = match &args.topic {
        Some(topic) => stream.publisher_on(topic).await?,
        None => stream.publisher().await?,
    };
    let _answering = stream.answer(AnswerOptions::default()).await?;
    let acks = args.acks.then(|| publisher.acks());
    let has_no_reader = Notify::new();
    let (published, told) = tokio::join!(
        feed(ui, publisher, &has_no_reader),
        tell_acks(ui, acks, &has_no_reader)
    );
    published.and_then(|published| told.map(|()| published))
}

/// Prints what is stored until the publisher ends. Where nobody reads that any more, publishing ends.
async fn tell_acks(
    ui: &Ui,
    acks: Option<Acks>,
    has_no_reader: &Notify,
) -> Result<(), CommandError> {
    let Some(mut acks) = acks else {
        return Ok(());
    };
    while let Some(stored) = acks.next().await {
        let printed = match ui.is_json() {
            true => ui.json(&AckLine { stored }),
            false => ui.data(stored.to_string()),
        };
        printed
            .and_then(|()| ui.flush())
            .inspect_err(|_| has_no_reader.notify_one())?;
    }
    Ok(())
}

async fn feed(
    ui: &Ui,
    mut publisher: Publisher,
    has_no_reader: &Notify,
) -> Result<Option<Published>, CommandError> {
    let mut lines = Lines::of_stdin();
    let bar = ui.bar(None, io::stdin().is_terminal());
    let mut end = std::pin::pin!(asked_to_end());
    let stopped = loop {
        let next = tokio::select! {
            next = lines.next() => next,
            ended = &mut end => break ended,
            () = has_no_reader.notified() => break Ok(()),
            // Whoever waits for what is stored before it writes more would wait for ever.
            () = publisher.ended() => break Ok(()),
        };
        let sent = match next {
            Ok(Some(batch)) => send_all(&mut publisher, &batch).await,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        if let Err(error) = sent {
            break Err(error.into());
        }
        bar.set_count(publisher.stored());
    };
    let stored = publisher.stored();
    // What was taken before a fault is published all the same.
    let finished = publisher.finish().await;
    bar.clear();
    let fault = match (stopped, finished) {
        (Ok(()), Ok(published)) => return Ok((published.records > 0).then_some(published)),
        (Err(fault), Ok(published)) => {
            told_before(ui, published.records);
            fault
        }
        (_, Err(fault)) => {
            told_before(ui, stored);
            fault.into()
        }
    };
    Err(fault)
}

async fn send_all(publisher: &mut Publisher, batch: &input::Batch) -> Result<(), sealcast::Error> {
    for line in batch.lines() {
        publisher.send(line).await?;
    }
    Ok(())
}

fn told_before(ui: &Ui, records: u64) {
    ui.talk(format!(
        "Published before this went wrong: {}",
        count(records, "record")
    ));
}

async fn backfill(ui: &Ui, stream: &Stream) -> Result<Published, CommandError> {
    let mut backfill = stream.backfill().await?;
    let mut lines = Lines::of_stdin();
    let bar = ui.bar(None, io::stdin().is_terminal());
    let mut number: u64 = 0;
    while let Some(batch) = lines.next().await? {
        for line in batch.lines() {
            number += 1;
            if let Err(fault) = bring_in(&mut backfill, line, number).await {
                bar.clear();
                told_before(ui, backfill.stored());
                return Err(fault);
            }
        }
        bar.set_count(backfill.stored());
    }
    if number == 0 {
        return Err(CommandError::usage("there are no lines to bring in"));
    }
    Ok(backfill.finish().await?)
}

async fn bring_in(backfill: &mut Backfill, line: &[u8], number: u64) -> Result<(), CommandError> {
    let (time, payload) = split(line, number)?;
    let sent = backfill.send(time, payload).await;
    sent.map_err(|error| at_line(error, number))
}

/// Splits a line of a backfill into its time and its payload.
fn split(line: &[u8], number: u64) -> Result<(sealcast::Position, &[u8]), CommandError> {
    let wrong = |says: &str| {
        CommandError::new(
            Kind::Usage,
            "backfill.time",
            format!("{says}: line {number}"),
        )
        .with_hint("each line is a time, a tab and the payload; times ascend, and all are past")
    };
    let tab = line.iter().position(|byte| *byte == b'\t');
    let (time, rest) = line.split_at(tab.ok_or_else(|| wrong("there is no tab"))?);
    let time = std::str::from_utf8(time).map_err(|_| wrong("the time cannot be read"))?;
    let time = absolute(time).map_err(|error| wrong(&format!("{error}, in the backfill")))?;
    Ok((time, rest.get(1..).unwrap_or_default()))
}

/// Says which line of a backfill went wrong.
fn at_line(error: sealcast::Error, number: u64) -> CommandError {
    if !matches!(error, sealcast::Error::BackfillTime) {
        return error.into();
    }
    let says = format!("the time is not later than the one before, or not past: line {number}");
    CommandError::new(Kind::Usage, "backfill.time", says)
        .with_hint("times ascend, and all are past")
}

fn tell(ui: &Ui, name: &Name, published: Option<Published>) -> Result<(), CommandError> {
    let Some(published) = published else {
        ui.talk("There were no lines; nothing was published.");
        return Ok(());
    };
    if ui.is_json() {
        return ui.json(&Line {
            time: rfc3339(published.position),
            position: published.position.0,
            records: published.records,
            envelopes: published.envelopes,
        });
    }
    let what = match (published.records, published.envelopes) {
        (1, 1) => "Published sealed, 1 message".to_owned(),
        (records, envelopes) => format!(
            "Published sealed, {} in {}",
            count(records, "record"),
            count(envelopes, "envelope")
        ),
    };
    ui.talk(format!(
        "{what} to `{name}`, at: {}",
        rfc3339(published.position)
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_backfill_is_a_time_a_tab_and_any_payload() {
        let (time, payload) = split(b"2026-03-01T00:10:00Z\ta\tb\xff", 1).unwrap();
        assert_eq!(
            (rfc3339(time).as_str(), payload),
            ("2026-03-01T00:10:00.000Z", &b"a\tb\xff"[..])
        );
        assert_eq!(split(b"2026-03-01\t", 1).unwrap().1, b"");
    }

    #[test]
    fn a_wrong_line_of_a_backfill_is_named() {
        for line in [
            &b"2026-03-01"[..],
            b"\tx",
            b"now\tx",
            b"-10m\tx",
            b"\xff\tx",
            b"2026-13-01\tx",
        ] {
            let error = split(line, 7).unwrap_err();
            assert_eq!(error.kind().exit_code(), 2);
            assert!(error.message().ends_with("line 7"), "{}", error.message());
        }
    }
}
