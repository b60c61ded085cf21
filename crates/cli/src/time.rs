//! Times and durations, as people write them and as they are printed.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use sealcast::{Bound, Interval, Position};
pub(crate) use sealcast_agent::rfc3339;

/// A time on the command line: `now`, `start`, `-10m`, `+30d`, `2026-03-01` or RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeArg {
    /// `now`.
    Now,
    /// This many milliseconds ago.
    Ago(u64),
    /// In this many milliseconds.
    Ahead(u64),
    /// At a fixed time; `start` is the first of all.
    At(Position),
}

impl TimeArg {
    /// The position that is meant when it is `now`.
    pub(crate) fn position(self, now: Position) -> Position {
        match self {
            Self::Now => now,
            Self::Ago(ms) => Position(now.0.saturating_sub(ms)),
            Self::Ahead(ms) => now.after(ms),
            Self::At(position) => position,
        }
    }

    /// The end of an interval; `now` is left to the library, which makes a cut for it.
    pub(crate) fn bound(self, now: Position) -> Bound {
        match self {
            Self::Now => Bound::Now,
            Self::Ago(_) | Self::Ahead(_) | Self::At(_) => Bound::At(self.position(now)),
        }
    }
}

impl FromStr for TimeArg {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        match text {
            "now" => return Ok(Self::Now),
            "start" => return Ok(Self::At(Position::START)),
            _ => {}
        }
        if let Some(ago) = text.strip_prefix('-') {
            return Ok(Self::Ago(ms_of(ago).ok_or(TimeError::Unit)?));
        }
        if let Some(ahead) = text.strip_prefix('+') {
            return Ok(Self::Ahead(ms_of(ahead).ok_or(TimeError::Unit)?));
        }
        if ms_of(text).is_some() {
            return Err(TimeError::NoSign);
        }
        absolute(text).map(Self::At)
    }
}

/// The bounds of an interval, where no end means none; an empty one is refused before any work.
pub(crate) fn bounds(
    from: Option<TimeArg>,
    first: Bound,
    until: Option<TimeArg>,
) -> Result<(Bound, Bound), sealcast::Error> {
    let now = now();
    let from = from.map_or(first, |time| time.bound(now));
    let until = until.map_or(Bound::At(Position::END), |time| time.bound(now));
    if let (Bound::At(from), Bound::At(until)) = (from, until)
        && from >= until
    {
        return Err(sealcast::Error::EmptyInterval);
    }
    Ok((from, until))
}

/// An interval, from the first of all and without an end where none is given; an empty one is
/// refused before any work.
pub(crate) fn interval(
    from: Option<TimeArg>,
    until: Option<TimeArg>,
) -> Result<Interval, sealcast::Error> {
    let now = now();
    let interval = Interval {
        from: from.map_or(Position::START, |time| time.position(now)),
        until: until.map_or(Position::END, |time| time.position(now)),
    };
    match interval.is_empty() {
        true => Err(sealcast::Error::EmptyInterval),
        false => Ok(interval),
    }
}

/// Reads a date (midnight UTC) or a time of RFC 3339.
pub(crate) fn absolute(text: &str) -> Result<Position, TimeError> {
    let is_date =
        text.len() == "2026-03-01".len() && text.bytes().all(|c| c.is_ascii_digit() || c == b'-');
    let timestamp = if is_date {
        let date: Date = text.parse().map_err(|_| TimeError::Date)?;
        date.to_zoned(TimeZone::UTC)
            .map_err(|_| TimeError::Date)?
            .timestamp()
    } else {
        text.parse::<Timestamp>().map_err(|_| wrong_time(text))?
    };
    let ms = u64::try_from(timestamp.as_millisecond()).map_err(|_| TimeError::TooEarly)?;
    Ok(Position(ms))
}

fn wrong_time(text: &str) -> TimeError {
    match text.parse::<jiff::civil::DateTime>() {
        Ok(_) => TimeError::NoZone,
        Err(_) => TimeError::Form,
    }
}

/// How long: `90s`, `10m`, `2h`, `7d` or `4w`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DurationArg {
    /// In milliseconds.
    pub(crate) ms: u64,
}

impl DurationArg {
    /// As the standard library has it.
    pub(crate) fn duration(self) -> Duration {
        Duration::from_millis(self.ms)
    }
}

impl FromStr for DurationArg {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        let ms = ms_of(text).ok_or(TimeError::Unit)?;
        Ok(Self { ms })
    }
}

/// Milliseconds of a number and a unit; `None` when there is no such thing.
fn ms_of(text: &str) -> Option<u64> {
    let (unit_at, unit) = text.char_indices().next_back()?;
    let unit_ms: u64 = match unit {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        'w' => 604_800_000,
        _ => return None,
    };
    let number = text.get(..unit_at)?;
    let is_number = !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit());
    let ms = number.parse::<u64>().ok()?.checked_mul(unit_ms)?;
    (is_number && ms < Position::END.0).then_some(ms)
}

/// The clock of this machine.
pub(crate) fn now() -> Position {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Position(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Prints where an interval begins, for people.
pub(crate) fn from_text(position: Position) -> String {
    match position {
        Position::START => "start".to_owned(),
        _ => rfc3339(position),
    }
}

/// Prints where an interval ends, for people.
pub(crate) fn until_text(position: Position) -> String {
    match position {
        Position::END => "no end".to_owned(),
        _ => rfc3339(position),
    }
}

/// Why text is not a time or duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeError {
    Form,
    Date,
    NoZone,
    NoSign,
    Unit,
    TooEarly,
}

impl fmt::Display for TimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => {
                "write `now`, `start`, `-10m`, `+30d`, `2026-03-01` or `2026-03-01T09:30:00Z`"
            }
            Self::Date => "there is no such date",
            Self::NoZone => "the time has no zone: end it with `Z` for UTC, or with `+02:00`",
            Self::NoSign => "write `-` before it for the past, or `+` for the future",
            Self::Unit => "write a whole number and a unit: `s`, `m`, `h`, `d` or `w`",
            Self::TooEarly => "the time is before 1970",
        })
    }
}

impl std::error::Error for TimeError {}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Position = Position(1_772_366_400_000);

    fn at(text: &str) -> Result<String, TimeError> {
        text.parse::<TimeArg>()
            .map(|time| rfc3339(time.position(NOON)))
    }

    #[test]
    fn every_form_of_a_time_is_read() {
        for (text, meant) in [
            ("now", "2026-03-01T12:00:00.000Z"),
            ("start", "1970-01-01T00:00:00.000Z"),
            ("-90s", "2026-03-01T11:58:30.000Z"),
            ("-10m", "2026-03-01T11:50:00.000Z"),
            ("-2h", "2026-03-01T10:00:00.000Z"),
            ("+30d", "2026-03-31T12:00:00.000Z"),
            ("-1w", "2026-02-22T12:00:00.000Z"),
            ("2026-03-01", "2026-03-01T00:00:00.000Z"),
            ("2026-03-01T09:30:00Z", "2026-03-01T09:30:00.000Z"),
            ("2026-03-01T09:30:00.1239Z", "2026-03-01T09:30:00.123Z"),
            ("2026-03-01T09:30:00+02:00", "2026-03-01T07:30:00.000Z"),
            ("1970-01-01", "1970-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(at(text).as_deref(), Ok(meant), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_for_what_is_wrong_with_it() {
        for (text, error) in [
            ("", TimeError::Form),
            ("yesterday", TimeError::Form),
            ("NOW", TimeError::Form),
            ("10m", TimeError::NoSign),
            ("-", TimeError::Unit),
            ("-m", TimeError::Unit),
            ("-10", TimeError::Unit),
            ("-10y", TimeError::Unit),
            ("-1.5h", TimeError::Unit),
            ("--5m", TimeError::Unit),
            ("+99999999999999999999d", TimeError::Unit),
            ("2026-02-30", TimeError::Date),
            ("2026-03-01T09:30:00", TimeError::NoZone),
            ("1969-12-31", TimeError::TooEarly),
            ("2026-03-01T25:00:00Z", TimeError::Form),
        ] {
            assert_eq!(at(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn relative_times_stay_within_the_positions() {
        assert_eq!(at("-9000w").as_deref(), Ok("1970-01-01T00:00:00.000Z"));
        assert_eq!(TimeArg::Ahead(u64::MAX).position(NOON), Position::END);
    }

    #[test]
    fn now_as_an_end_is_left_to_the_library() {
        assert_eq!(TimeArg::Now.bound(NOON), Bound::Now);
        assert_eq!(TimeArg::Ago(1).bound(NOON), Bound::At(Position(NOON.0 - 1)));
    }

    #[test]
    fn durations_have_a_number_and_a_unit() {
        assert_eq!("7d".parse(), Ok(DurationArg { ms: 604_800_000 }));
        assert_eq!("0s".parse(), Ok(DurationArg { ms: 0 }));
        assert_eq!("7".parse::<DurationArg>(), Err(TimeError::Unit));
        assert_eq!("-7d".parse::<DurationArg>(), Err(TimeError::Unit));
        assert_eq!("7é".parse::<DurationArg>(), Err(TimeError::Unit));
    }

    #[test]
    fn positions_behind_the_calendar_still_print() {
        assert!(rfc3339(Position::END).starts_with("9999-12-30T"));
        assert_eq!(until_text(Position::END), "no end");
        assert_eq!(from_text(Position::START), "start");
    }
}
