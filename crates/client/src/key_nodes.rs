//! Key nodes, `spec/key-nodes.md`: naming them, dealing to them, and being one. Asking them is a part of
//! [`asking`](crate::asking).

mod approving;
mod audit;
mod counts;
mod dealing;
mod naming;
mod records;
mod releasing;
mod replies;

pub use approving::ReaderApprovals;
pub use audit::{AskedOfNode, Audit, AuditLine, AuditedEvent, OwnKeyNode};
pub use counts::{RefusalCounts, ReleaseCounts};
pub use naming::{KeyNodeInfo, KeyNodesInfo, LaneDealt, NamingOptions, NodeStanding};
pub use records::LaneRecords;
pub use releasing::{ReleaseOptions, Releasing};
