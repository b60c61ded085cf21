//! How what a reader is told is printed, counted and summed up.

use std::collections::BTreeMap;

use sealcast::{Delivery, Lent, Parked, Reason, State};
use sealcast_agent::{DeliveryLine, base64_of, parked_code, reason_code, state_code};

use crate::context::Names;
use crate::error::{CommandError, Outcome};
use crate::shell::quoted;
use crate::time::rfc3339;
use crate::ui::{Bar, Ui, count};

/// Prints deliveries and counts what was not opened.
#[derive(Debug)]
pub(crate) struct Printer<'a> {
    ui: &'a Ui,
    names: Names,
    /// The reader's own id, for the hint to whoever may grant.
    user: String,
    stream: String,
    /// Messages told, whatever became of them.
    messages: u64,
    /// How often each state came for each reason.
    not_opened: BTreeMap<(&'static str, &'static str), u64>,
    /// How often each state came for each reason of what does not wait any more.
    not_kept: BTreeMap<&'static str, u64>,
    waits: u64,
}

impl<'a> Printer<'a> {
    /// Nothing is counted yet.
    pub(crate) fn new(ui: &'a Ui, names: Names, user: String, stream: String) -> Self {
        Self {
            ui,
            names,
            user,
            stream,
            messages: 0,
            not_opened: BTreeMap::new(),
            not_kept: BTreeMap::new(),
            waits: 0,
        }
    }

    /// Messages told so far, whatever became of them. Notes about the stream do not count.
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    /// Prints one delivery.
    pub(crate) fn print(&mut self, delivery: &Delivery, bar: &Bar) -> Result<(), CommandError> {
        match delivery.state {
            State::Opened => self.messages += 1,
            State::Sealed | State::Rejected => {
                self.messages += 1;
                self.note_unopened(delivery, bar);
            }
            State::Gap | State::Branch | State::Fork | State::Replay => self.note(delivery, bar),
        }
        if self.ui.is_json() {
            let base64 = base64_of(delivery);
            return self.ui.json(&DeliveryLine::of(delivery, base64.as_ref()));
        }
        match &delivery.payload {
            Some(payload) => self.ui.data(payload),
            None => Ok(()),
        }
    }

    /// As [`print`](Self::print), for a record that was opened and need not be copied.
    pub(crate) fn print_lent(&mut self, lent: &Lent<'_>, bar: &Bar) -> Result<(), CommandError> {
        if self.ui.is_json() {
            return self.print(&lent.to_delivery(), bar);
        }
        self.messages += 1;
        self.ui.data(lent.payload())
    }

    /// Counts what was not opened; what waits is counted when all is over.
    fn note_unopened(&mut self, delivery: &Delivery, bar: &Bar) {
        match delivery.parked {
            Parked::Waits => {
                self.waits += 1;
                if is_round(self.waits) {
                    let number = count(self.waits, "message");
                    bar.aside(|| self.ui.talk(waits_text(&number, self.waits)));
                }
                return;
            }
            Parked::NoRoom | Parked::TooOld | Parked::Elsewhere => {
                let parked = parked_code(delivery.parked).unwrap_or_default();
                *self.not_kept.entry(parked).or_default() += 1;
            }
            Parked::No | Parked::Waited => (),
        }
        if delivery.parked != Parked::Elsewhere {
            self.count(delivery.state, delivery.reason, 1);
        }
    }

    fn count(&mut self, state: State, reason: Option<Reason>, number: u64) {
        let reason = reason.map_or("unknown", reason_code);
        let counted = self.not_opened.entry((state_code(state), reason));
        *counted.or_default() += number;
    }

    /// Sums up what was not opened, and what of it waits.
    pub(crate) fn finish_waiting(mut self, waiting: &[(Reason, u64)]) -> Outcome {
        for (reason, number) in waiting {
            let state = match matches!(reason, Reason::NotGranted | Reason::KeyNotHere) {
                true => State::Sealed,
                false => State::Rejected,
            };
            self.count(state, Some(*reason), *number);
        }
        let outcome = self.finish();
        let total = waiting.iter().map(|(_, number)| number).sum();
        if total > 0 {
            let stream = quoted(&self.stream);
            let (waits, prints) = match total {
                1 => ("waits", "it when its key has"),
                _ => ("wait", "them when their keys have"),
            };
            let number = count(total, "message");
            self.ui.talk(format!(
                "{number} {waits} here: `sealcast sub {stream}` prints {prints} come"
            ));
        }
        outcome
    }

    /// Sums up what was not opened.
    pub(crate) fn finish(&self) -> Outcome {
        for ((state, reason), number) in &self.not_opened {
            let says = reason_text(reason);
            let number = count(*number, "message");
            self.ui.talk(format!("{number} {state}: {says}"));
        }
        for (parked, number) in &self.not_kept {
            let number = count(*number, "message");
            self.ui.talk(format!("{number}: {}", not_kept_text(parked)));
        }
        for hint in self.hints() {
            self.ui.hint(hint);
        }
        match self.not_opened.is_empty() {
            true => Outcome::Done,
            false => Outcome::NotAllOpened,
        }
    }

    fn hints(&self) -> Vec<String> {
        let has = |reason: &str| self.not_opened.keys().any(|(_, code)| *code == reason);
        let mut hints = Vec::new();
        if has("not-granted") {
            hints.push(format!(
                "its owner or an admin can grant it: `sealcast grant {} {} --from TIME --until \
                 TIME`",
                quoted(&self.stream),
                self.user
            ));
        }
        if has("key-not-here") {
            hints.push(format!(
                "where keyholders hand keys out by themselves they come with the next command of one; \
                 or ask for them: `sealcast request {}`",
                quoted(&self.stream)
            ));
        }
        if has("not-authentic") {
            hints.push(
                "whoever gave you keys is false, or the publisher; an alarm names who gave keys"
                    .to_owned(),
            );
        }
        let mut not_opened = self.not_opened.keys();
        if not_opened.any(|(state, code)| *state == "rejected" && *code != "not-authentic") {
            hints.push(
                "somebody writes to this bus who may not publish here, or alters what others \
                 published; `--json` shows which"
                    .to_owned(),
            );
        }
        hints
    }

    /// Says what was noticed, as it comes.
    fn note(&self, delivery: &Delivery, bar: &Bar) {
        let publisher = delivery.publisher.as_ref();
        let who = publisher.map_or("somebody".to_owned(), |user| self.names.call(user));
        let when = rfc3339(delivery.time);
        let what = match (delivery.state, delivery.reason) {
            (State::Gap, Some(Reason::Missing(1))) => "one envelope is missing before".to_owned(),
            (State::Gap, Some(Reason::Missing(number))) if number > 0 => {
                format!(
                    "{} are missing before",
                    count(u64::from(number), "envelope")
                )
            }
            (State::Gap, _) => "envelopes are missing before".to_owned(),
            (State::Branch, _) => "two envelopes follow the same one, at".to_owned(),
            (State::Fork, _) => "two envelopes have one number, at".to_owned(),
            (_, _) => "the same envelope came again, of".to_owned(),
        };
        let state = self.ui.paint(state_code(delivery.state), "1;33");
        bar.aside(|| self.ui.warn(format!("{state}: from {who}, {what}: {when}")));
    }
}

/// What is said of messages that wait; `number` is their count as text.
pub(crate) fn waits_text(number: &str, of: u64) -> String {
    match of {
        1 => format!("{number} waits for its key"),
        _ => format!("{number} wait for their keys"),
    }
}

/// Whether a count is worth saying again: a one and zeros.
fn is_round(number: u64) -> bool {
    number.checked_ilog10().map(|power| 10_u64.pow(power)) == Some(number)
}

/// Why a message does not wait any more, for people.
fn not_kept_text(code: &str) -> &'static str {
    match code {
        "no-room" => {
            "no room to wait for keys here; `read` opens them later, if the bus keeps them"
        }
        "too-old" => {
            "waited for keys as long as they may; `read` opens them, if the bus keeps them"
        }
        _ => "waited here, and another program that uses this home printed them",
    }
}

/// What a reason means, for people.
fn reason_text(code: &str) -> &'static str {
    match code {
        "not-granted" => "no grant of yours covers the time",
        "key-not-here" => "you have a grant, but no keyholder has sent the keys yet",
        "unknown-session" => "the session is not known here",
        "unknown-sender" => "the sender is not known here",
        "not-entitled" => "the sender may not publish",
        "after-revocation" => "the sender had been revoked",
        "malformed" => "not a sealed message",
        "bad-signature" => "the signature does not hold",
        "not-authentic" => "the key that is here does not fit",
        "wrong-session" => "the session may not be used at that time",
        _ => "the reason is not known to this version",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_names_every_reason_and_each_has_words() {
        let page = include_str!("../../../docs/reference/command-line.md");
        for reason in [
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
        ] {
            let code = reason_code(reason);
            assert!(page.contains(&format!("`{code}`")), "{code}");
            let is_message = !matches!(reason, Reason::Missing(_));
            assert_eq!(
                reason_text(code) != reason_text("else"),
                is_message,
                "{code}"
            );
        }
    }

    #[test]
    fn the_reference_names_what_becomes_of_what_is_parked() {
        let page = include_str!("../../../docs/reference/command-line.md");
        let parked = [
            Parked::Waits,
            Parked::Waited,
            Parked::NoRoom,
            Parked::TooOld,
            Parked::Elsewhere,
        ];
        for code in parked.map(|of| parked_code(of).unwrap()) {
            assert!(page.contains(&format!("`{code}`")), "{code}");
        }
        assert_eq!(parked_code(Parked::No), None);
    }

    #[test]
    fn only_round_counts_of_what_waits_are_said() {
        let round: Vec<_> = (0..2_000).filter(|of| is_round(*of)).collect();
        assert_eq!(round, [1, 10, 100, 1_000]);
    }
}
