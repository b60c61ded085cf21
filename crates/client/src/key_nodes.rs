//! Key nodes, `spec/key-nodes.md`: naming them, dealing to them, and being one. Asking them is a part of
//! [`asking`](crate::asking).

mod audit;
mod dealing;
mod naming;
mod releasing;

pub use audit::{AskedOfNode, Audit, AuditLine, OwnKeyNode};
pub use naming::{KeyNodeInfo, KeyNodesInfo, LaneDealt, NamingOptions, NodeStanding};
pub use releasing::{ReleaseCounts, Releasing};
