//! Seals and opens what unchanged MQTT clients send and receive: `sealcast proxy mqtt`.
//!
//! A [`Proxy`] stands between clients and their broker. Each client has a connection of its own to the broker,
//! so that sessions, acknowledgements, rights and retained messages are the broker's, and packets go on byte for
//! byte. Only messages are taken apart: what [`Rules`] say of the topic is done with them, and one that no rule
//! names goes no further.
//!
//! ```text
//! client ── up ──►  rule? ── seal, or as it is ──► broker
//!    ▲                │ no rule, or it cannot be sealed: refused
//!    └──── down ◄── rule? ◄── open, or as it is ◄──┘
//! ```
//!
//! Nothing here holds a key: what seals and opens is handed in, as [`Sealing`], and [`Streams`] of a home do that. What is logged are numbers and
//! reasons, and topics from the level DEBUG on.

mod ahead;
mod aliases;
mod aside;
mod certificates;
mod config;
mod connection;
mod counts;
mod down;
mod fate;
mod fields;
mod flow;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod json;
mod lane;
mod lasting;
mod late;
mod leaving;
mod listeners;
mod numbers;
mod packet;
mod park;
mod places;
mod proxy;
mod recall;
mod reload;
mod room;
mod rules;
mod ruling;
mod sealing;
mod seats;
mod sent;
mod sockets;
mod standing;
mod streams;
mod subscriptions;
mod told;
mod topics;
mod traffic;
mod up;
mod upgrade;
mod upstream;
mod watch;
mod websocket;
mod wire;

pub use certificates::CertificatesError;
pub use config::{
    Certificates, Config, Instead, Limits, Listener, ListenerError, LogFormat, Transport,
};
pub use counts::{Counts, Exception};
pub use json::{Field, FieldError};
pub use park::{Keeping, NotKept};
pub use proxy::{Proxy, StartError};
pub use reload::Control;
pub use room::ParkLimits;
pub use rules::{Act, Rule, Rules, Undecryptable};
pub use sealing::{
    Envelope, NotOpened, NotSealed, OpenFuture, Opened, Opening, SealFuture, Sealing, Unopened,
    Waiting,
};
pub use streams::Streams;
pub use topics::Topics;
pub use upstream::{UpstreamError, UpstreamUrl, UpstreamUrlError};
