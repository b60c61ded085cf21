//! What sets of access-log entries add up to.

use sealcast_crypto::VerifyingKey;
use sealcast_protocol::{
    AccessLog, LogEntry, LogState, Standing, StreamId, Unverified, UserId, Verified,
};

use crate::case::{Given, Lines, Outcome, array, hex, must, unhex};

pub(crate) fn state(given: &mut Given) -> Outcome {
    let stream = StreamId(given.array("stream")?);
    let owner = UserId(given.array("owner")?);
    let mut entries = Vec::new();
    while let Some(entry) = given.maybe_text("entry") {
        entries.push(verified(&entry)?);
    }
    let outcome = read(stream, owner, entries.iter());
    let backwards = read(stream, owner, entries.iter().rev());
    must(outcome == backwards, "the order of entries says nothing")?;
    outcome
}

/// A key and an entry that it signed.
fn verified(text: &str) -> Result<Verified<LogEntry>, String> {
    let (key, wire) = text.split_once(' ').ok_or("no key")?;
    let key = VerifyingKey::from_bytes(array(&unhex(key)?)?).map_err(|_| "no key")?;
    let entry = Unverified::<LogEntry>::decode(&unhex(wire)?).map_err(|_| "no entry")?;
    entry.verify(&key).map_err(|_| "signature".to_owned())
}

fn read<'a>(
    stream: StreamId,
    owner: UserId,
    entries: impl Iterator<Item = &'a Verified<LogEntry>>,
) -> Outcome {
    let mut log = AccessLog::new(stream, owner);
    for entry in entries {
        log.insert(entry.clone());
    }
    let state = log.state();
    if !state.has_begun() {
        return Err("no first entry".to_owned());
    }
    let mut grants: Vec<_> = state.grants().iter().collect();
    grants.sort_by_key(|grant| grant.id);
    Lines::default()
        .each(grants, |lines, grant| {
            let fate = match grant.standing {
                Standing::Counts => "stands".to_owned(),
                Standing::Revoked(by) => format!("taken {by}"),
                Standing::Void => "void".to_owned(),
            };
            lines.text("grant", format!("{} {fate}", grant.id))
        })
        .text("mark", state.mark().0)
        .each(state.key_nodes(), |lines, (entry, _)| {
            lines.text("key-nodes", entry)
        })
        .each(approvals(&state, &log), |lines, said| {
            lines.text("approves", said)
        })
        .each(log.missing(), |lines, hash| lines.text("missing", hash))
        .done()
}

/// Who approves of whom, and up to when.
fn approvals(state: &LogState, log: &AccessLog) -> Vec<String> {
    let mut said = Vec::new();
    for user in log.named_users() {
        for (by, until) in state.approvals(&user) {
            let (by, user) = (hex(&by.0), hex(&user.0));
            said.push(format!("{by} {user} {}", until.0));
        }
    }
    said
}
