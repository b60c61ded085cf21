//! Who approved that key nodes release to whom, and what is missing.

use sealcast::{Demand, Position, ReaderApprovals, UserId};
use serde::Serialize;

use super::condition::demand_text;
use crate::context::Names;
use crate::error::CommandError;
use crate::time::rfc3339;
use crate::ui::Ui;

/// How a reader stands.
#[derive(Serialize)]
pub(super) struct ReaderLine {
    user: String,
    approved: Vec<ApprovedLine>,
    releases: bool,
    missing: Vec<Vec<MissingLine>>,
}

#[derive(Serialize)]
struct ApprovedLine {
    by: String,
    until: Option<String>,
}

/// One thing that has to come about; none but the one that is meant is there.
#[derive(Default, Serialize)]
struct MissingLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    approvals: Option<u8>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    of: Vec<String>,
}

impl From<&ReaderApprovals> for ReaderLine {
    fn from(reader: &ReaderApprovals) -> Self {
        let approved = reader.approved.iter().map(|(by, until)| ApprovedLine {
            by: by.to_string(),
            until: (*until != Position::END).then(|| rfc3339(*until)),
        });
        let missing = reader
            .missing
            .iter()
            .map(|all| all.iter().map(missing_line));
        Self {
            user: reader.user.to_string(),
            approved: approved.collect(),
            releases: reader.releases,
            missing: missing.map(Iterator::collect).collect(),
        }
    }
}

fn missing_line(demand: &Demand) -> MissingLine {
    match demand {
        Demand::After(time) | Demand::Before(time) => MissingLine {
            after: Some(rfc3339(*time)),
            ..MissingLine::default()
        },
        Demand::Approved(approvers) => MissingLine {
            approvals: Some(approvers.needed),
            of: approvers.of.iter().map(ToString::to_string).collect(),
            ..MissingLine::default()
        },
    }
}

/// Shows readers, and what of approvals and time there is and is missing for each.
pub(super) fn show(
    ui: &Ui,
    names: &Names,
    readers: &[ReaderApprovals],
) -> Result<(), CommandError> {
    let call = |user: &UserId| names.call(user);
    let mut rows = vec![["READER", "APPROVED BY", "WAITS FOR"].map(str::to_owned)];
    rows.extend(readers.iter().map(|reader| {
        let approved = approved_text(&reader.approved, call);
        let approved = if approved.is_empty() {
            "nobody".to_owned()
        } else {
            approved
        };
        [call(&reader.user), approved, missing_text(reader, call)]
    }));
    ui.table(&rows)
}

/// Who approves, and until when.
pub(super) fn approved_text(
    approved: &[(UserId, Position)],
    call: impl Fn(&UserId) -> String,
) -> String {
    let said = approved.iter().map(|(by, until)| match *until {
        Position::END => call(by),
        until => format!("{} until {}", call(by), rfc3339(until)),
    });
    said.collect::<Vec<_>>().join(", ")
}

/// What has to come about before key nodes release to a reader.
pub(super) fn missing_text(reader: &ReaderApprovals, call: impl Fn(&UserId) -> String) -> String {
    if reader.releases {
        return "nothing".to_owned();
    }
    let any = reader.missing.iter().map(|all| {
        let all = all.iter().map(|demand| match demand {
            Demand::After(time) => rfc3339(*time),
            Demand::Approved(some) if some.of.len() == usize::from(some.needed) => {
                let of: Vec<_> = some.of.iter().map(&call).collect();
                of.join(" and ")
            }
            Demand::Approved(_) | Demand::Before(_) => demand_text(demand, &call),
        });
        all.collect::<Vec<_>>().join(", and ")
    });
    let any: Vec<_> = any.collect();
    match any.is_empty() {
        true => "its time is over".to_owned(),
        false => any.join("; or "),
    }
}
