use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use sealcast::{
    DataTopic, EnvelopeFacts, EnvelopeJudgement, FileNeeds, Name, Sight, Stream, inspect,
};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::context::{Context, Names};
use crate::error::{CommandError, Kind};
use crate::files::head;
use crate::time::rfc3339;
use crate::ui::{Ui, count};

/// More than the longest envelope has, in hexadecimal too. Longer things show what they are by how
/// they begin.
const HEAD_LEN_MAX: u64 = 48 << 20;

/// Explain an envelope, or say what else a file is
///
/// Needs no keys and no home: it shows what anybody sees. With `--stream` it also says whether the
/// envelope is of that stream, and whose. Bytes may be given as they are, in hexadecimal or in
/// base64, and with the topic before it, as it lies in a stream's log.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast inspect envelope.bin
  sealcast inspect --stream boiler < envelope.bin
  sealcast inspect --stream plant --topic plant/7/temperature < envelope.bin
  sealcast inspect home.age --json")]
pub(crate) struct InspectArgs {
    /// The file; standard input where not given
    file: Option<PathBuf>,
    /// Check hash and signature against this stream
    #[arg(long, value_name = "STREAM")]
    stream: Option<Name>,
    /// The topic on which it came, which it is bound to
    #[arg(long, value_name = "TOPIC", requires = "stream")]
    topic: Option<DataTopic>,
}

/// Instead of what opens a file in the age format.
const UNREADABLE: &str = "nothing: it is damaged, or of a newer version";

/// Facts, in the order in which they are shown.
struct Facts(Vec<(&'static str, Value)>);

impl Facts {
    fn of(kind: &'static str) -> Self {
        Self(vec![("kind", kind.into())])
    }

    fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.0.push((key, value.into()));
        self
    }
}

pub(crate) async fn run(
    ui: &Ui,
    context: &Context,
    args: &InspectArgs,
) -> Result<(), CommandError> {
    let path = args.file.clone().unwrap_or_else(|| "-".into());
    let bytes = head(&path, HEAD_LEN_MAX)?;
    let (bytes, sight) = see(bytes);
    let facts = match (&sight, &args.stream) {
        (Sight::Envelope(of), Some(name)) => {
            let (home, stream) = context.stream(ui, name).await?;
            if of.topic.is_some() && args.topic.is_some() {
                return Err(
                    CommandError::usage("the envelope stands behind its topic already")
                        .with_hint("leave out `--topic`"),
                );
            }
            let item = args.topic.as_ref().map(|topic| topic.item(&bytes));
            let item = item.as_ref().unwrap_or(&bytes);
            judged(envelope(of), &Names::of(&home)?, &stream, item)
        }
        (_, Some(_)) => {
            return Err(CommandError::usage("this is not an envelope of any stream")
                .with_hint("leave out `--stream` to see what it is"));
        }
        (_, None) => facts(&sight)?,
    };
    show(ui, facts)
}

/// Looks at bytes as they are and then, where they are text that says so, at those they stand for.
fn see(bytes: Vec<u8>) -> (Vec<u8>, Sight) {
    let sight = inspect(&bytes);
    if !matches!(sight, Sight::Unknown(_)) {
        return (bytes, sight);
    }
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    let text: String = text.split_whitespace().collect();
    for meant in [unhex(&text), STANDARD.decode(&text).ok()]
        .into_iter()
        .flatten()
    {
        let seen = inspect(&meant);
        if !matches!(seen, Sight::Unknown(_) | Sight::Nothing) {
            return (meant, seen);
        }
    }
    (bytes, sight)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let is_hex = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digits = text.as_bytes().chunks(2).filter(|_| is_hex);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes = digits.map(|pair| byte(pair).filter(|_| pair.len() == 2));
    bytes.collect::<Option<Vec<_>>>()
}

fn envelope(of: &EnvelopeFacts) -> Facts {
    let hex: String = of.commitment.iter().map(|b| format!("{b:02x}")).collect();
    let facts = Facts::of("envelope");
    let facts = match &of.topic {
        Some(topic) => facts.with("topic", topic.as_str()),
        None => facts,
    };
    facts
        .with("version", of.version)
        .with("suite", of.suite)
        .with("frame", of.is_frame)
        .with("backfill", of.is_backfill)
        .with("batch", of.is_of_batch)
        .with("content", of.content)
        .with("session", of.session.to_string())
        .with("time", rfc3339(of.position))
        .with("position", of.position.0)
        .with("device", of.device.to_string())
        .with("instance", of.instance.to_string())
        .with("seq", of.seq)
        .with("prev", of.prev.map(|prev| prev.to_string()))
        .with("commitment", hex)
        .with("bytes", of.size)
        .with("content_bytes", of.content_size)
}

fn judged(facts: Facts, names: &Names, stream: &Stream, bytes: &[u8]) -> Facts {
    let Some(EnvelopeJudgement {
        hash,
        user,
        is_signed,
        is_announced,
    }) = stream.judge_envelope(bytes)
    else {
        return facts;
    };
    facts
        .with("hash", hash.to_string())
        .with("signed", is_signed)
        .with("publisher", user.map(|user| user.to_string()))
        .with("name", user.map(|user| names.call(&user)))
        .with("announced", is_announced)
}

fn facts(sight: &Sight) -> Result<Facts, CommandError> {
    Ok(match sight {
        Sight::Envelope(of) => envelope(of),
        Sight::SessionRecord {
            stream,
            lane,
            session,
        } => Facts::of("session record")
            .with("stream", stream.to_string())
            .with("lane", lane.to_string())
            .with("session", session.to_string()),
        Sight::Bundle {
            stream,
            giver,
            user,
        } => Facts::of("bundle")
            .with("stream", stream.to_string())
            .with("giver", giver.to_string())
            .with("user", user.to_string()),
        Sight::LogEntry { user, seq, time } => Facts::of("access-log entry")
            .with("user", user.to_string())
            .with("seq", *seq)
            .with("time", rfc3339(*time)),
        Sight::ListEntry { user, seq } => Facts::of("device-list entry")
            .with("user", user.to_string())
            .with("seq", *seq),
        Sight::Ticket(ticket) => match ticket {
            Ok(ticket) => Facts::of("ticket")
                .with("stream", ticket.stream().to_string())
                .with("owner", ticket.owner().to_string())
                .with("name", ticket.name().to_string())
                .with("bus", ticket.bus()),
            Err(error) => return Err(unknown(&error.to_string())),
        },
        Sight::AgeFile { is_armored, needs } => Facts::of("age file")
            .with("armored", *is_armored)
            .with("opens_with", needs.map(needs_text)),
        Sight::KeyFile {
            version,
            has_passphrase,
        } => Facts::of("store key")
            .with("version", *version)
            .with("passphrase", *has_passphrase),
        Sight::Store => Facts::of("store of a home"),
        Sight::FileBus => Facts::of("file bus"),
        Sight::OtherDatabase => Facts::of("database of something else"),
        Sight::Nothing => return Err(unknown("there are no bytes")),
        Sight::Unknown(error) => return Err(unknown(&format!("this is not an envelope: {error}"))),
        _ => return Err(unknown("this program has no words for it")),
    })
}

fn needs_text(needs: FileNeeds) -> &'static str {
    match needs {
        FileNeeds::Passphrase => "passphrase",
        FileNeeds::Identity => "age key",
    }
}

fn unknown(says: &str) -> CommandError {
    CommandError::new(Kind::Usage, "inspect.unknown", says)
        .with_hint("an envelope is read as its bytes, in hexadecimal or in base64")
}

#[derive(Serialize)]
struct Line(Map<String, Value>);

fn show(ui: &Ui, facts: Facts) -> Result<(), CommandError> {
    if ui.is_json() {
        let map = facts
            .0
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value));
        return ui.json(&Line(map.collect()));
    }
    for (key, value) in facts.0 {
        let key = key.replace('_', " ");
        let value = match value {
            Value::Bool(true) => "yes".to_owned(),
            Value::Bool(false) => "no".to_owned(),
            Value::Null if key == "opens with" => UNREADABLE.to_owned(),
            Value::Null => "none".to_owned(),
            Value::String(text) => text,
            Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
        };
        let value = match key.as_str() {
            "bytes" | "content bytes" => count(value.parse().unwrap_or_default(), "byte"),
            _ => value,
        };
        ui.data(format!("{key:14}{value}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_is_whole_bytes_of_digits() {
        assert_eq!(unhex("00fF"), Some(vec![0, 255]));
        for text in ["", "0", "0g", "+1", "000"] {
            assert_eq!(
                unhex(text).filter(|bytes| !bytes.is_empty()),
                None,
                "{text}"
            );
        }
    }
}
