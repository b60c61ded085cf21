//! What travels: formats, their verification, and the access log.
//!
//! Every control object is deterministic CBOR inside a signed wrapper (`spec/encoding.md`); an
//! envelope is a fixed header and bytes (`spec/envelope.md`). Bytes become trusted in steps, each
//! consuming the one before:
//!
//! ```text
//! &[u8] ── decode ──► Unverified<T> ── verify(key) ──► Verified<T>
//! ```
#![no_std]
extern crate alloc;

mod encoding;
mod ids;
mod signed;
mod v1;

pub use encoding::{DecodeError, decode, encode};
pub use ids::{
    DealId, DeviceId, EnvelopeHash, InstanceId, LogHash, RequestId, SessionId, StreamId,
};
pub use ids::{IdError, Interval, Position, StreamTopics, UserId};
pub use signed::{Signable, Unverified, Verified, VerifyError, claims_newer_version, sign};
pub use v1::asking::{
    AskItem, Claim, REQUEST_LIFETIME_MS_MAX, Receipt, Refusal, RefusalReason, Solicitation,
    WANTS_MAX, Want,
};
pub use v1::audit::{AuditChain, AuditEnd, AuditEntry, AuditEvent, AuditFault, AuditedRequest};
pub use v1::batch::{BATCH_MAX, BATCH_OVERHEAD_MAX};
pub use v1::bundle::{
    Bundle, BundleContext, COVERS_MAX, CoverSpec, KeyUse, OpenBundleError, SealBundleError,
    open_bundle, seal_bundle,
};
pub use v1::deal::{
    Deal, Dealer, SEGMENT_RECORDS_MAX, SealDealError, Segment, SegmentRecord, SegmentRecords,
    ShareWrap, UnwrapShareError,
};
pub use v1::device::{
    CARD_LIFETIME_MS, Card, CardError, CardRevocation, Checkpoint, CheckpointDevice,
    CheckpointStanding, DeviceKeys, ListBody, ListEntry, ListFault, RevokedDevice, wrap_key_hash,
};
pub use v1::device_list::{Applied, CardList, DEVICES_MAX, DeviceState, LIST_ENTRIES_MAX, ListPin};
pub use v1::envelope::{
    BoundEnvelope, Draft, ENVELOPE_OVERHEAD, EnvelopeView, PAYLOAD_MAX, SealError, SealedEnvelope,
    Unsigned, VerifiedEnvelope, seal, seal_unsigned, sign_batch,
};
pub use v1::export::{
    EXPORT_COVERS_ALL_MAX, EXPORT_COVERS_MAX, EXPORT_HOME_LEN_MAX, EXPORT_KEYS_LEN_MAX,
    EXPORT_RECORDS_MAX, EXPORT_SESSIONS_MAX, Export, ExportedCover, ExportedKey, ExportedRecord,
    ExportedSession, HomeExport, KeyExport, WrongRoot,
};
pub use v1::fallback::{FALLBACK_PERIOD_MS, FALLBACK_PERIODS, FallbackKey};
pub use v1::frame::{FRAME_RECORDS_MAX, Frame, OpenFrame, PushError, Record, Records};
pub use v1::header::{Flags, Header, Suite};
pub use v1::item::{DataItem, DataTopic, DataTopicError};
pub use v1::log_approvals::Approval;
pub use v1::log_entry::{
    DeviceTarget, DeviceTips, Genesis, Grant, LIST_MAX, LaneMode, LogBody, LogEntry, Revoke, Roles,
    Settings, Sharing, Targets,
};
pub use v1::log_graph::{AccessLog, Inserted};
pub use v1::log_key_nodes::{
    APPROVERS_MAX, Approvers, CONDITION_MAX, Condition, Demand, KeyNode, KeyNodes,
};
pub use v1::log_state::{GrantState, LogState, PublishRight, Standing, merged};
pub use v1::node_request::{
    NodeAnswer, NodeRefusal, NodeRefusalReason, NodeReplyTo, NodeRequest, OpenAnswerError,
    SEGMENTS_MAX, SealAnswerError,
};
pub use v1::pairing::{
    CodeError, Consent, ListBytes, OpenItemError, PAIRING_ITEMS_MAX, PairingCode, PairingItem,
    PairingRequest, WELCOME_LEN_MAX, Welcome, WelcomeContact, WelcomeDevice, WelcomeStream,
    unwrap_welcome, wrap_welcome,
};
pub use v1::session::{
    RootWrap, RootWrapContext, SessionKind, SessionRecord, UnwrapRootError, WRAPS_MAX, unwrap_root,
    wrap_root,
};
pub use v1::ticket::{BUS_URL_LEN_MAX, NAME_LEN_MAX, Name, NameError, Ticket, TicketError};
