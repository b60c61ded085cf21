//! Looking for what is wrong, or will be.

use sealcast_engine::{Alarm, has_other_keyholder};

use crate::backup::BackupState;
use crate::error::Error;
use crate::home::Home;
use crate::stream::Stream;

/// How far ahead a card's end is told, in milliseconds.
const CARD_WARNING_MS: u64 = 60 * 24 * 3600 * 1000;

/// One thing that [`Home::doctor`] looked at.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Whether it needs doing something about.
    pub is_problem: bool,
    /// What was looked at and found.
    pub text: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Finding {
    fn good(text: impl Into<String>) -> Self {
        Self {
            is_problem: false,
            text: text.into(),
            hint: None,
        }
    }

    fn bad(text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            is_problem: true,
            text: text.into(),
            hint: Some(hint.into()),
        }
    }
}

impl Home {
    /// Looks at the home, and at each stream and its bus, for what is wrong or will be.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read.
    pub async fn doctor(&self) -> Result<Vec<Finding>, Error> {
        let mut findings = Vec::from([Finding::good("the store opens")]);
        let mut alone = 0;
        for known in self.streams()? {
            let is_own = known.owner == self.user();
            match self.stream(&known.name).await {
                Ok(stream) => {
                    alone += usize::from(is_own && stream.is_sole_keyholder());
                    findings.extend(stream.examine()?);
                    findings.extend(stream.count_parked().await?);
                }
                Err(error) => findings.push(Finding::bad(
                    format!("stream `{}`: {error}", known.name),
                    format!("see whether its bus is there: {}", known.bus),
                )),
            }
        }
        if alone > 0 {
            findings.push(self.examine_backup(alone)?);
        }
        Ok(findings)
    }

    /// Looks whether the keys of the streams that nobody else holds are in a backup.
    fn examine_backup(&self, alone: usize) -> Result<Finding, Error> {
        let streams = match alone {
            1 => "1 stream".to_owned(),
            _ => format!("{alone} streams"),
        };
        let hint = "keep a copy of them: `sealcast backup FILE`";
        Ok(match self.backup_state()? {
            BackupState::Current(_) => Finding::good(format!(
                "the keys of {streams} are in this home alone, and in its backup"
            )),
            BackupState::Outdated(_) => {
                let says = format!(
                    "the keys of {streams} are in this home alone, some newer than its backup"
                );
                Finding::bad(says, hint)
            }
            BackupState::Never => {
                let says = format!("the keys of {streams} are in this home alone");
                Finding::bad(says, hint)
            }
        })
    }
}

impl Stream {
    fn is_sole_keyholder(&self) -> bool {
        !has_other_keyholder(&self.core.view(), self.core.now())
    }

    /// Says how many messages wait for keys, if any.
    async fn count_parked(&self) -> Result<Option<Finding>, Error> {
        let says = match self.parked().await?.messages {
            0 => return Ok(None),
            1 => "1 message waits for its key".to_owned(),
            number => format!("{number} messages wait for their keys"),
        };
        Ok(Some(Finding::good(format!(
            "stream `{}`: {says}",
            self.name()
        ))))
    }

    fn examine(&self) -> Result<Vec<Finding>, Error> {
        let name = self.name();
        let core = &self.core;
        let view = core.view();
        let mut findings = Vec::new();
        let mut bad = |text: String, hint: &str| findings.push(Finding::bad(text, hint));
        if !view.state().has_begun() {
            bad(
                format!("stream `{name}`: its first access-log entry is not on the bus"),
                "see that the ticket names the right bus, and that the bus kept its data",
            );
        }
        let missing = view.missing_entries();
        if missing > 0 {
            bad(
                format!("stream `{name}`: {missing} access-log entries are missing"),
                "the bus lost them or hides them; nothing is sealed until they are back",
            );
        }
        for (user, device) in view.log().forked_devices() {
            bad(
                format!(
                    "stream `{name}`: device {device} of {user} wrote two entries in one place"
                ),
                "a copy of its home is in use, or someone has its keys: revoke the device",
            );
        }
        let beside = view.state().unsettled_key_nodes().len();
        if beside > 0 {
            let alarm = Alarm::KeyNodesBeside(beside);
            bad(format!("stream `{name}`: {alarm}"), alarm.hint());
        }
        let void = view.state().void_key_nodes().len();
        if void > 0 {
            let alarm = Alarm::KeyNodesVoid(void);
            bad(format!("stream `{name}`: {alarm}"), alarm.hint());
        }
        let lane = core.vault().lane(&core.id())?;
        let ahead = lane.mark.max(view.mark()).0.saturating_sub(core.now().0);
        if ahead > 1_000 {
            bad(
                format!("stream `{name}`: the clock is {ahead} ms behind the newest position"),
                "set the clock of this machine",
            );
        }
        drop(view);
        findings.extend(self.examine_devices());
        let mut bad = |text: String, hint: &str| findings.push(Finding::bad(text, hint));
        for alarm in self.alarms() {
            bad(format!("stream `{name}`: {alarm}"), alarm.hint());
        }
        if findings.is_empty() {
            findings.push(Finding::good(format!(
                "stream `{name}`: log, clock and keys are in order"
            )));
        }
        Ok(findings)
    }

    /// Whether this device, and the user's others, are what the stream takes them for.
    fn examine_devices(&self) -> Vec<Finding> {
        let (name, core) = (self.name(), &self.core);
        let view = core.view();
        let mut findings = Vec::new();
        let mut bad = |text: String, hint: &str| findings.push(Finding::bad(text, hint));
        let (user, device) = view.me();
        let devices = view.list(&user).into_iter().flat_map(|list| list.devices());
        for (other, _) in devices.filter(|(_, of)| of.revoked.is_some()) {
            if *other == device {
                bad(
                    format!("stream `{name}`: this device was revoked"),
                    "use another device of yours; this one is given no more keys",
                );
            } else if !view.state().is_out(&user, other) {
                bad(
                    format!(
                        "stream `{name}`: it does not know yet that a device is revoked: {other}"
                    ),
                    "finish it with `sealcast device revoke`",
                );
            }
        }
        let card = view.list(&user).and_then(|list| list.device(&device));
        if let Some(end) = card.map(|of| of.expires)
            && end.0.saturating_sub(core.now().0) < CARD_WARNING_MS
        {
            bad(
                format!("stream `{name}`: the card of this device ends within 60 days"),
                "use sealcast on the device that holds the root key, which renews it",
            );
        }
        findings
    }
}
