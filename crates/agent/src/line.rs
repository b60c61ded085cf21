//! A delivery as one line of JSON, as `sub --json` prints it and the agent hands it out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use sealcast::{DataTopic, Delivery, Parked, Payload, Position, Reason, State};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A delivery as one line of JSON.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DeliveryLine<'a> {
    time: String,
    publisher: Option<String>,
    device: Option<String>,
    seq: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parked: Option<&'static str>,
}

impl<'a> DeliveryLine<'a> {
    /// Borrows from a delivery and from [`base64_of`] it.
    pub fn of(delivery: &'a Delivery, base64: Option<&'a Zeroizing<String>>) -> Self {
        Self {
            time: rfc3339(delivery.time),
            publisher: delivery.publisher.map(|user| user.to_string()),
            device: delivery.device.map(|device| device.to_string()),
            seq: delivery.seq,
            topic: delivery.topic.as_ref().map(DataTopic::as_str),
            state: state_code(delivery.state),
            text: text_of(delivery),
            base64: base64.map(|text| text.as_str()),
            reason: delivery.reason.map(reason_json),
            parked: parked_code(delivery.parked),
        }
    }
}

/// A line of the agent's answer to a subscriber, read back.
#[derive(Debug)]
pub enum StreamLine {
    /// How many messages of the stream wait for their keys, as the first line.
    Waiting(u64),
    /// A delivery.
    Delivery(Delivery),
    /// What the bus showed that honest devices and buses do not do: what, and what to do.
    Alarm(String, String),
    /// The bus is away, and is waited for; or it is back.
    Bus(BusState),
    /// The last line: why there are no more.
    End(crate::Fault),
}

/// How the bus of a stream that is followed stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BusState {
    /// It cannot be used, and is tried again.
    Away,
    /// It can be used again.
    Back,
    /// It is damaged. What it cannot show is left out, and what lies behind follows.
    Damaged,
}

/// Why a line cannot be read: it was written by another version, or altered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the agent sent a line that this version cannot read")]
pub struct LineError;

/// Any line of the agent's answer to a subscriber.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Raw {
    time: Option<String>,
    publisher: Option<String>,
    device: Option<String>,
    seq: Option<u32>,
    topic: Option<String>,
    state: Option<String>,
    text: Option<String>,
    base64: Option<String>,
    reason: Option<String>,
    parked: Option<String>,
    waiting: Option<u64>,
    alarm: Option<String>,
    hint: Option<String>,
    bus: Option<BusState>,
    end: Option<crate::Fault>,
}

impl StreamLine {
    /// Reads a line.
    ///
    /// # Errors
    ///
    /// Fails when it is none that this version knows.
    pub fn read(line: &[u8]) -> Result<Self, LineError> {
        let raw: Raw = serde_json::from_slice(line).map_err(|_| LineError)?;
        if let Some(end) = raw.end {
            return Ok(Self::End(end));
        }
        if let Some(state) = raw.bus {
            return Ok(Self::Bus(state));
        }
        if let Some(waiting) = raw.waiting {
            return Ok(Self::Waiting(waiting));
        }
        if let Some(alarm) = raw.alarm {
            return Ok(Self::Alarm(alarm, raw.hint.unwrap_or_default()));
        }
        raw.delivery().map(Self::Delivery).ok_or(LineError)
    }
}

impl Raw {
    fn delivery(self) -> Option<Delivery> {
        let time: Timestamp = self.time?.parse().ok()?;
        let state = STATES
            .into_iter()
            .find(|of| Some(state_code(*of)) == self.state.as_deref())?;
        let payload = match (self.text, self.base64) {
            (Some(text), None) => Some(text.into_bytes()),
            (None, Some(base64)) => Some(STANDARD.decode(&*Zeroizing::new(base64)).ok()?),
            (None, None) => None,
            (Some(_), Some(_)) => return None,
        };
        let reason = match self.reason {
            Some(code) => Some(reason_of(&code)?),
            None => None,
        };
        let parked = self.parked.as_deref();
        let parked = PARKED.into_iter().find(|of| parked_code(*of) == parked)?;
        Some(Delivery {
            parked,
            time: Position(u64::try_from(time.as_millisecond()).ok()?),
            publisher: self.publisher.map(|id| id.parse()).transpose().ok()?,
            device: self.device.map(|id| id.parse()).transpose().ok()?,
            seq: self.seq,
            topic: self.topic.map(|topic| topic.parse()).transpose().ok()?,
            state,
            payload: payload.map(Payload::from),
            reason,
        })
    }
}

/// Prints a position as RFC 3339 in UTC, with milliseconds.
///
/// Positions go further than the calendar; those behind its end print as its end.
pub fn rfc3339(position: Position) -> String {
    let timestamp = i64::try_from(position.0)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .unwrap_or(Timestamp::MAX);
    format!("{timestamp:.3}")
}

fn text_of(delivery: &Delivery) -> Option<&str> {
    std::str::from_utf8(delivery.payload.as_deref()?).ok()
}

/// A payload that is no text, in base64.
pub fn base64_of(delivery: &Delivery) -> Option<Zeroizing<String>> {
    let payload = delivery.payload.as_deref();
    let payload = payload.filter(|_| text_of(delivery).is_none())?;
    let mut text = Zeroizing::new(String::with_capacity(payload.len().div_ceil(3) * 4));
    STANDARD.encode_string(payload, &mut text);
    Some(text)
}

/// The stable name of a reason, and its number where it has one.
fn reason_json(reason: Reason) -> String {
    if let Reason::Missing(number @ 1..) = reason {
        return format!("missing: {number}");
    }
    reason_code(reason).to_owned()
}

const PARKED: [Parked; 6] = [
    Parked::No,
    Parked::Waits,
    Parked::Waited,
    Parked::NoRoom,
    Parked::TooOld,
    Parked::Elsewhere,
];

/// The stable name of what became of a message that waits or waited.
pub fn parked_code(parked: Parked) -> Option<&'static str> {
    match parked {
        Parked::No => None,
        Parked::Waits => Some("waits"),
        Parked::Waited => Some("waited"),
        Parked::NoRoom => Some("no-room"),
        Parked::TooOld => Some("too-old"),
        Parked::Elsewhere => Some("elsewhere"),
    }
}

const STATES: [State; 7] = [
    State::Opened,
    State::Sealed,
    State::Rejected,
    State::Gap,
    State::Branch,
    State::Fork,
    State::Replay,
];

/// The stable name of a state.
pub fn state_code(state: State) -> &'static str {
    match state {
        State::Opened => "opened",
        State::Sealed => "sealed",
        State::Rejected => "rejected",
        State::Gap => "gap",
        State::Branch => "branch",
        State::Fork => "fork",
        State::Replay => "replay",
    }
}

const REASONS: [Reason; 11] = [
    Reason::NotGranted,
    Reason::KeyNotHere,
    Reason::UnknownSession,
    Reason::UnknownSender,
    Reason::NotEntitled,
    Reason::AfterRevocation,
    Reason::Malformed,
    Reason::BadSignature,
    Reason::NotAuthentic,
    Reason::WrongSession,
    Reason::Missing(0),
];

fn reason_of(code: &str) -> Option<Reason> {
    if let Some(number) = code.strip_prefix("missing: ") {
        return number.parse().ok().map(Reason::Missing);
    }
    REASONS.into_iter().find(|of| reason_code(*of) == code)
}

/// The stable name of a reason.
pub fn reason_code(reason: Reason) -> &'static str {
    match reason {
        Reason::NotGranted => "not-granted",
        Reason::KeyNotHere => "key-not-here",
        Reason::UnknownSession => "unknown-session",
        Reason::UnknownSender => "unknown-sender",
        Reason::NotEntitled => "not-entitled",
        Reason::AfterRevocation => "after-revocation",
        Reason::Malformed => "malformed",
        Reason::BadSignature => "bad-signature",
        Reason::NotAuthentic => "not-authentic",
        Reason::WrongSession => "wrong-session",
        Reason::Missing(_) => "missing",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use sealcast::{DeviceId, UserId};

    use super::*;

    fn delivery(state: State, payload: Option<&[u8]>, reason: Option<Reason>) -> Delivery {
        Delivery {
            time: Position(1_772_366_400_000),
            publisher: Some(UserId([1; 32])),
            device: Some(DeviceId([2; 16])),
            seq: Some(7),
            topic: None,
            state,
            payload: payload.map(|of| Payload::from(of.to_vec())),
            reason,
            parked: Parked::No,
        }
    }

    fn json(delivery: &Delivery) -> serde_json::Value {
        let base64 = base64_of(delivery);
        serde_json::to_value(DeliveryLine::of(delivery, base64.as_ref())).unwrap()
    }

    #[test]
    fn a_line_of_json_has_the_keys_of_the_contract_in_order() {
        let opened = delivery(State::Opened, Some(b"hi"), None);
        let line = serde_json::to_string(&DeliveryLine::of(&opened, None));
        let user = UserId([1; 32]);
        assert_eq!(
            line.unwrap(),
            format!(
                r#"{{"time":"2026-03-01T12:00:00.000Z","publisher":"{user}","device":"{}","seq":7,"state":"opened","text":"hi"}}"#,
                "02".repeat(16)
            )
        );
    }

    #[test]
    fn what_is_not_utf8_is_base64_and_what_is_empty_is_text() {
        let binary = json(&delivery(State::Opened, Some(b"\xff\x00"), None));
        assert_eq!(binary["base64"], "/wA=");
        assert!(binary.get("text").is_none());
        let empty = json(&delivery(State::Opened, Some(b""), None));
        assert_eq!(empty["text"], "");
    }

    #[test]
    fn what_was_not_opened_has_a_reason_and_no_payload() {
        let sealed = json(&delivery(State::Sealed, None, Some(Reason::NotGranted)));
        assert_eq!(sealed["reason"], "not-granted");
        assert!(sealed.get("text").is_none() && sealed.get("base64").is_none());
        let gap = json(&delivery(State::Gap, None, Some(Reason::Missing(3))));
        assert_eq!(
            (&gap["state"], &gap["reason"]),
            (&"gap".into(), &"missing: 3".into())
        );
    }

    #[test]
    fn every_delivery_comes_back_from_its_line() {
        let mut all = vec![
            delivery(State::Opened, Some(b"text"), None),
            delivery(State::Opened, Some(b""), None),
            delivery(State::Opened, Some(b"\xff\x00"), None),
            delivery(State::Gap, None, Some(Reason::Missing(3))),
            Delivery {
                topic: "plant/7 \"a\"".parse().ok(),
                ..delivery(State::Opened, Some(b"21.5 C"), None)
            },
            Delivery {
                publisher: None,
                device: None,
                seq: None,
                ..delivery(State::Rejected, None, Some(Reason::Malformed))
            },
        ];
        all.extend(STATES.map(|state| delivery(state, None, None)));
        all.extend(PARKED.map(|parked| Delivery {
            parked,
            ..delivery(State::Sealed, None, Some(Reason::KeyNotHere))
        }));
        all.extend(REASONS.map(|reason| delivery(State::Sealed, None, Some(reason))));
        for delivery in all {
            let line = serde_json::to_vec(&json(&delivery)).unwrap();
            match StreamLine::read(&line) {
                Ok(StreamLine::Delivery(read)) => assert_eq!(read, delivery),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_line_that_says_nothing_known_is_refused() {
        for line in [
            "",
            "{}",
            "[]",
            r#"{"time":"2026-03-01T12:00:00Z"}"#,
            r#"{"time":"2026-03-01T12:00:00Z","state":"new"}"#,
            r#"{"time":"2026-03-01T12:00:00Z","state":"opened","text":"a","base64":"YQ=="}"#,
            r#"{"time":"2026-03-01T12:00:00Z","state":"sealed","reason":"new"}"#,
        ] {
            assert_eq!(
                StreamLine::read(line.as_bytes()).err(),
                Some(LineError),
                "{line}"
            );
        }
    }
}
