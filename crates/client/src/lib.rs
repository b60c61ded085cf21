//! End-to-end encryption for publish/subscribe and stored streams: *publish sealed, give the keys
//! later.*
//!
//! A [`Home`] is one device of one user: a folder with its keys, contacts and streams. A [`Stream`]
//! is opened from it by name. Publishers seal onto a bus that nobody needs to trust; a grant gives
//! the keys of an interval of time, whenever it is made, and nothing is encrypted again:
//!
//! ```
//! use sealcast::{
//!     Bound, BusUrl, GrantOptions, Home, InitOptions, Interval, Passphrase, Roles, State,
//!     StreamOptions,
//! };
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let bus = BusUrl::file(&folder.path().join("bus"))?;
//! let options = |bus: &BusUrl| InitOptions {
//!     name: None,
//!     bus: Some(bus.clone()),
//!     passphrase: Passphrase::None,
//! };
//! let alice = Home::init(&folder.path().join("alice"), options(&bus)).await?;
//! let bob = Home::init(&folder.path().join("bob"), options(&bus)).await?;
//!
//! // Alice publishes, and does not know who will read.
//! let kitchen = alice.create_stream(&"kitchen".parse()?, StreamOptions::default()).await?;
//! kitchen.publish(b"20.9 C").await?;
//! let second = kitchen.publish(b"21.5 C").await?;
//!
//! // Bob joins with her ticket. Later she grants him what was sealed from the second message on.
//! let joined = bob.join(kitchen.ticket(), None).await?;
//! kitchen
//!     .grant(GrantOptions {
//!         user: bob.user(),
//!         roles: Roles::READER,
//!         from: Bound::At(second.position),
//!         until: Bound::At(second.position.after(1)),
//!         reshare: false,
//!     })
//!     .await?;
//!
//! let mut reader = joined.read(Interval::ALL).await?;
//! let mut opened = Vec::new();
//! while let Some(delivery) = reader.next().await? {
//!     if delivery.state == State::Opened {
//!         opened.extend(delivery.payload);
//!     }
//! }
//! assert_eq!(opened.last().map(|of| &of[..]), Some(&b"21.5 C"[..]));
//! # Ok(())
//! # }
//! ```
//!
//! # How calls behave
//!
//! Everything that is `async` must run on a tokio runtime. Blocking work is done on threads of its
//! own; only the calls that are not `async` read the store where they are called.
//!
//! Several processes may use one home at once, and one process may open a stream several times.
//! Dropping a future that publishes or writes to the access log does not take back what it began.
//! [`Reader::next`], [`Subscription::next`] and [`Publisher::send`] may be given up and called again
//! without losing anything.
//!
//! Whatever lies on the bus is a [`Delivery`] or an [`Alarm`], never an error: an [`Error`] says that
//! this home, its store or its bus could not do what was asked. Each has a stable
//! [`code`](Error::code).
//!
//! # What is not promised
//!
//! What was read cannot be taken back. A bus sees sizes, times, ids and who is granted, and may
//! withhold what it likes: gaps are told, but a revocation that a bus hides from a publisher reaches
//! the publisher only when it is shown. Whoever seizes a keyholder's device opens the history.

mod access;
mod archive;
mod asking;
mod attend;
mod backfill;
mod backup;
mod blocking;
mod buses;
mod clock;
mod config_file;
mod core;
mod damage;
mod delivery;
mod device_store;
mod devices;
mod doctor;
mod error;
mod fallback;
mod gaps;
mod ground;
mod home;
mod inspect;
mod judging;
mod key_nodes;
mod keys;
mod lookout;
mod moving;
mod opener;
mod options;
mod outbox;
mod own_list;
mod pairing;
mod parking;
mod place;
mod publisher;
mod queue;
mod read;
mod rollback;
mod seal;
mod sealed_file;
mod servers;
mod session;
mod share;
mod shelf;
mod singles;
mod stream;
mod subscribe;
mod tailing;
mod taking_out;
mod tend;
mod values;
mod vault;

pub use access::{GrantInfo, GrantStatus, Granted, Revoked};
pub use archive::{Archive, Archived, BusCopy, StreamCopy};
pub use asking::{
    AnswerOptions, Answered, Answering, AskedFor, AskerStanding, AskingCounts, AskingOptions,
    Decision, NodesAsked, NodesSaid, OthersAsked, Policy, Question, RequestOptions, Requested,
    Verdict,
};
pub use attend::{Attendant, Attended};
pub use backfill::Backfill;
pub use backup::{Backup, BackupState};
pub use buses::{check as check_bus, setup as setup_bus};
#[doc(hidden)]
pub use clock::Clock;
pub use config_file::{ConfigError, WrongLine, line_of, line_of_key};
pub use delivery::{Delivery, Lent, Payload, Reason, State};
pub use devices::{Applicant, DeviceInfo, StreamOutcome};
pub use doctor::Finding;
pub use error::Error;
#[doc(hidden)]
pub use ground::Ground;
pub use home::{Home, StreamInfo};
pub use inspect::{EnvelopeFacts, EnvelopeJudgement, Sight, inspect};
pub use key_nodes::{
    AskedOfNode, Audit, AuditLine, AuditedEvent, KeyNodeInfo, KeyNodesInfo, LaneDealt, LaneRecords,
    NamingOptions, NodeStanding, OwnKeyNode, ReaderApprovals, RefusalCounts, ReleaseCounts,
    ReleaseOptions, Releasing,
};
pub use keys::{ExportedKeys, ImportedKeys};
pub use opener::{Carried, Opener, OpenerOptions};
pub use options::{Bound, GrantOptions, InitOptions, Passphrase, StreamOptions, SubscribeOptions};
pub use pairing::{Joined, Joining};
pub use parking::ParkedState;
pub use publisher::{Acks, Published, Publisher};
pub use read::Reader;
pub use seal::SealedMessage;
pub use sealcast_bus::{
    Aspect, BusError, BusReport, BusSetup, BusUrl, BusUrlError, Place, ServerAddress, Standing,
    TopicFilter, UsersTopics, Warning,
};
pub use sealcast_crypto::SecretBytes;
pub use sealcast_engine::{Alarm, Arrival, ControlTopic, End as RequestEnd, Parked, ParkingLimits};
pub use sealcast_protocol::{
    Approvers, AuditFault, CodeError, Condition, DataTopic, DataTopicError, DecodeError, Demand,
    DeviceId, EnvelopeHash, IdError, InstanceId, Interval, KeyNode, LogHash as GrantId, Name,
    NameError, NodeRefusalReason, PairingCode, Position, RefusalReason, RequestId, Roles,
    SessionId, Sharing, StreamId, Ticket, TicketError, UserId, WrongRoot,
};
pub use sealcast_store::{KeyFileError, StoreError};
pub use sealed_file::{
    FileKey, FileLock, FileNeeds, Identities, IdentityError, Recipient, RecipientError, SealedFile,
};
pub use servers::{SERVERS_FILE, ServersError};
pub use shelf::{Shelf, ShelfChange, ShelfLabel, ShelfLabels, ShelfOwner};
pub use stream::Stream;
pub use subscribe::Subscription;
pub use values::{parse_duration, parse_size};
