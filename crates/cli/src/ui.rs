//! What people and programs see: data on stdout, talk on stderr.

use std::cell::RefCell;
use std::env;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sealcast::Stream;
use sealcast_agent::BusState;
use serde::Serialize;

use crate::error::{CommandError, Kind};
use crate::streams::Sink;

/// Prints.
#[derive(Debug)]
pub(crate) struct Ui {
    json: bool,
    quiet: bool,
    colour: bool,
    data_colour: bool,
    out: RefCell<Sink>,
}

impl Ui {
    /// Prints as `--json` and `--quiet` say.
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        Self {
            json,
            quiet,
            colour: !json && io::stderr().is_terminal() && may_colour(),
            data_colour: !json && io::stdout().is_terminal() && may_colour(),
            out: RefCell::new(Sink::stdout()),
        }
    }

    /// Whether data is printed as JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether talk is printed.
    pub(crate) fn talks(&self) -> bool {
        !self.json && !self.quiet
    }

    /// Prints bytes and a newline on stdout.
    pub(crate) fn data(&self, bytes: impl AsRef<[u8]>) -> Result<(), CommandError> {
        let mut out = self.out.borrow_mut();
        out.write_all(bytes.as_ref())
            .and_then(|()| out.write_all(b"\n"))
            .map_err(|error| CommandError::output(&error))
    }

    /// Prints bytes on stdout as they are.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), CommandError> {
        let written = self.out.borrow_mut().write_all(bytes);
        written.map_err(|error| CommandError::output(&error))
    }

    /// Prints one line of JSON on stdout.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), CommandError> {
        let mut out = self.out.borrow_mut();
        let written = serde_json::to_writer(&mut *out, value);
        written.map_err(|error| match error.io_error_kind() {
            Some(kind) => CommandError::output(&kind.into()),
            None => CommandError::new(Kind::Internal, "internal", "cannot write JSON"),
        })?;
        let ended = out.write_all(b"\n");
        ended.map_err(|error| CommandError::output(&error))
    }

    /// Prints rows with their columns aligned.
    pub(crate) fn table<const N: usize>(&self, rows: &[[String; N]]) -> Result<(), CommandError> {
        let mut widths = [0; N];
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for row in rows {
            let cells = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:width$}"));
            self.data(cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }

    /// Hands on what was printed so far.
    pub(crate) fn flush(&self) -> Result<(), CommandError> {
        let flushed = self.out.borrow_mut().flush();
        flushed.map_err(|error| CommandError::output(&error))
    }

    /// Says something on stderr, where talk is wanted.
    pub(crate) fn talk(&self, text: impl AsRef<str>) {
        if self.talks() {
            say(text.as_ref());
        }
    }

    /// Says on stderr what nobody may miss; with `--json` it is among the data.
    pub(crate) fn warn(&self, text: impl AsRef<str>) {
        if !self.json {
            say(text.as_ref());
        }
    }

    /// Says what to do next on stderr, where talk is wanted.
    pub(crate) fn hint(&self, text: impl AsRef<str>) {
        if self.talks() {
            say(&self.hint_line(text.as_ref()));
        }
    }

    /// Says on stderr what went wrong.
    pub(crate) fn error(&self, error: &CommandError) {
        if error.kind() == Kind::OutputClosed {
            return;
        }
        if self.json {
            say(&serde_json::to_string(&error.line()).unwrap_or_default());
            return;
        }
        let label = self.paint("error:", "1;31");
        let mut text = format!("{label} {}", error.message());
        for cause in error.causes() {
            text.push_str(&format!("\n  because: {cause}"));
        }
        if let Some(hint) = error.hint() {
            text.push('\n');
            text.push_str(&self.hint_line(hint));
        }
        say(&text);
    }

    /// Says on stderr what the bus showed that honest devices and buses do not do.
    pub(crate) fn alarms(&self, stream: &Stream) {
        for alarm in stream.alarms() {
            self.alarm(&alarm.to_string(), alarm.hint());
        }
    }

    /// Says on stderr one thing that honest devices and buses do not do.
    pub(crate) fn alarm(&self, alarm: &str, hint: &str) {
        if self.json {
            let error = CommandError::new(Kind::Internal, "alarm", alarm);
            self.error(&error.with_hint(hint));
            return;
        }
        say(&format!("{} {alarm}", self.paint("alarm:", "1;31")));
        self.hint(hint);
    }

    /// Says on stderr that the bus that is followed is away, or back.
    pub(crate) fn bus_state(&self, state: BusState) {
        let (code, says) = match state {
            BusState::Away => ("bus.away", "the bus is away, trying again"),
            BusState::Back => ("bus.back", "the bus is back"),
            BusState::Damaged => (
                "bus.damaged",
                "the bus is damaged, what it cannot show is left out",
            ),
        };
        match self.json {
            true => self.error(&CommandError::new(Kind::Bus, code, says)),
            false => say(says),
        }
    }

    /// A progress bar on stderr; silent where nobody would see it.
    ///
    /// `total` is `None` where it is not known. With `shares_terminal`, what is printed on stdout
    /// goes to the same screen, and no bar is shown.
    pub(crate) fn bar(&self, total: Option<u64>, shares_terminal: bool) -> Bar {
        let seen = self.talks() && io::stderr().is_terminal() && !shares_terminal;
        let bar = match total {
            Some(total) => ProgressBar::with_draw_target(Some(total), target(seen)),
            None => ProgressBar::with_draw_target(None, target(seen)),
        };
        let template = match (total, self.colour) {
            (Some(_), true) => "{bar:32.green} {human_pos} of {human_len}  {eta}",
            (Some(_), false) => "{bar:32} {human_pos} of {human_len}  {eta}",
            (None, _) => "{spinner} {human_pos}  {per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        if seen {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Bar(bar)
    }

    /// Text in a colour, where stderr shows colours.
    pub(crate) fn paint(&self, text: &str, code: &str) -> String {
        painted(text, code, self.colour)
    }

    /// Text in a colour, where stdout shows colours.
    pub(crate) fn paint_data(&self, text: &str, code: &str) -> String {
        painted(text, code, self.data_colour)
    }

    fn hint_line(&self, text: &str) -> String {
        format!("{} {text}", self.paint("hint:", "1;36"))
    }
}

/// Shows how far a command is.
#[derive(Debug)]
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// Moves to a count of a total.
    pub(crate) fn set(&self, count: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(count);
    }

    /// Moves to a count.
    pub(crate) fn set_count(&self, count: u64) {
        self.0.set_position(count);
    }

    /// Prints without disturbing the bar.
    pub(crate) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.suspend(print)
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}

fn target(seen: bool) -> ProgressDrawTarget {
    match seen {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    }
}

/// Whether nobody asked for no colours.
fn may_colour() -> bool {
    let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = env::var_os("TERM").is_some_and(|value| value == "dumb");
    !refused && !is_dumb
}

fn painted(text: &str, code: &str, colour: bool) -> String {
    match colour {
        true => format!("\x1b[{code}m{text}\x1b[0m"),
        false => text.to_owned(),
    }
}

/// Writes a line to stderr. Where that cannot be written there is nobody to tell.
fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A count and its noun: `1 record`, `2 records`, with thousands apart.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", thousands(number))
}

/// A number with its thousands apart.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes, for people.
pub(crate) fn bytes(number: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    match number {
        0..10_240 => count(number, "byte"),
        10_240..10_485_760 => format!("{} KiB", thousands(number.div_ceil(KIB))),
        _ => format!("{} MiB", thousands(number.div_ceil(MIB))),
    }
}

/// A long id, shortened for people: its beginning and its end.
pub(crate) fn short(id: &str) -> String {
    match (
        id.get(..9),
        id.len().checked_sub(4).and_then(|at| id.get(at..)),
    ) {
        (Some(head), Some(tail)) if id.len() > 16 => format!("{head}..{tail}"),
        _ => id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1_008, "1,008"), (52_560, "52,560")] {
            assert_eq!(thousands(number), text);
        }
        assert_eq!(count(1, "record"), "1 record");
        assert_eq!(count(1_000_000, "byte"), "1,000,000 bytes");
    }

    #[test]
    fn bytes_are_told_in_units_that_people_read() {
        assert_eq!(bytes(176), "176 bytes");
        assert_eq!(bytes(10_241), "11 KiB");
        assert_eq!(bytes(33_554_432), "32 MiB");
    }

    #[test]
    fn long_ids_are_shortened_and_short_ones_stay() {
        assert_eq!(short("sc1qqqqqqqqqqqqqqqqqqqqqxyz7"), "sc1qqqqqq..xyz7");
        assert_eq!(short("abcd"), "abcd");
        assert_eq!(short("ééééééééééé"), "ééééééééééé");
    }
}
