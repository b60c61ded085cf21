//! The same scenarios on every kind of bus: each is written once, as a function of a rig, and is a test
//! on each of them.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use sealcast_brokers::{mosquitto, nats, postgres, rabbitmq};

/// What can carry a bus.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Amqp,
    File,
    Mqtt,
    Nats,
    Postgres,
}

/// A bus that nobody has used yet.
#[derive(Clone, Debug)]
pub(crate) struct EmptyBus {
    pub(crate) url: String,
    /// What the environment says to its server.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// Whether it has what was before only where somebody keeps it.
    pub(crate) needs_keeper: bool,
}

impl EmptyBus {
    pub(crate) fn of(kind: Kind) -> Self {
        let url = match kind {
            Kind::Amqp => RABBITMQ.url(&fresh_name()),
            Kind::File => "file:bus".to_owned(),
            Kind::Mqtt => MOSQUITTO.url(&fresh_name()),
            Kind::Nats => NATS.url(&fresh_name()),
            Kind::Postgres => POSTGRES.url(&fresh_name()),
        };
        Self {
            url,
            environment: Vec::new(),
            needs_keeper: matches!(kind, Kind::Mqtt),
        }
    }
}

/// One server of a kind for all tests of this program, with which it ends; names keep their buses apart.
pub(crate) static MOSQUITTO: LazyLock<mosquitto::Server> = LazyLock::new(mosquitto::Server::start);
pub(crate) static NATS: LazyLock<nats::Server> = LazyLock::new(nats::Server::start);
/// It does not wait for the disk: nothing here ends the machine.
pub(crate) static POSTGRES: LazyLock<postgres::Server> =
    LazyLock::new(|| postgres::Server::start_with("fsync = off"));
pub(crate) static RABBITMQ: LazyLock<rabbitmq::Server> = LazyLock::new(rabbitmq::Server::start);

fn fresh_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("bus{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Makes each scenario a test on each kind of bus.
macro_rules! on_every_bus {
    ($($scenario:ident),+ $(,)?) => {$(
        mod $scenario {
            use crate::kinds::Kind;
            use crate::rig::Rig;

            #[test]
            fn on_a_file() {
                super::$scenario(&Rig::on(Kind::File));
            }

            #[test]
            fn on_amqp() {
                super::$scenario(&Rig::on(Kind::Amqp));
            }

            #[cfg(target_os = "linux")]
            #[test]
            fn on_mqtt() {
                super::$scenario(&Rig::on(Kind::Mqtt));
            }

            #[test]
            fn on_nats() {
                super::$scenario(&Rig::on(Kind::Nats));
            }

            #[test]
            fn on_postgres() {
                super::$scenario(&Rig::on(Kind::Postgres));
            }
        }
    )+};
}

pub(crate) use on_every_bus;
