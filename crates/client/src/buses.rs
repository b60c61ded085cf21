//! Opening, checking and setting up a bus of any kind.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sealcast_bus::{Bus, BusReport, BusSetup, BusUrl, FileBus, Place, Standing};
use sealcast_bus_amqp::AmqpBus;
use sealcast_bus_mqtt::MqttBus;
use sealcast_bus_nats::NatsBus;
use sealcast_bus_postgres::PostgresBus;
use sealcast_crypto::digest;

use crate::error::Error;
use crate::servers;

/// Below a home, where the mirrors are of buses that need one.
const MIRRORS: &str = "mirrors";
/// Names the folder of a mirror.
const MIRROR_LABEL: &str = "sealcast.v1 mirror";

/// Opens the bus that a URL names, for the home in a folder: what else there is to say to a server
/// stands there, so that a URL can be handed on.
pub(crate) async fn open(url: &BusUrl, home: &Path) -> Result<Arc<dyn Bus>, Error> {
    Ok(match url.place() {
        Place::File(folder) => Arc::new(FileBus::open(folder).await?),
        Place::Nats(address) => {
            let options = servers::options(home, address)?;
            Arc::new(NatsBus::open(address, &options).await?)
        }
        Place::Postgres(address) => {
            let options = servers::options(home, address)?;
            Arc::new(PostgresBus::open(address, &options).await?)
        }
        Place::Mqtt(address) => {
            let options = servers::options(home, address)?;
            Arc::new(MqttBus::open(address, &options, mirror(url, home)).await?)
        }
        Place::Amqp(address) => {
            let options = servers::options(home, address)?;
            Arc::new(AmqpBus::open(address, &options).await?)
        }
    })
}

/// Opens a bus that must be there already.
pub(crate) async fn open_there(url: &BusUrl, home: &Path) -> Result<Arc<dyn Bus>, Error> {
    let place = url.to_string();
    match check(url, home).await?.standing {
        Standing::Ready => open(url, home).await,
        Standing::Missing => Err(Error::NoBus(place)),
        Standing::Unusable(why) => Err(Error::BusUnusable { place, why }),
    }
}

/// Says what the bus that a URL names offers, and what it lacks; makes nothing. What there is to say to
/// its servers stands in the folder `home`, which need not hold a home.
///
/// # Errors
///
/// Fails when it cannot be reached. That there is no bus, or cannot be one, is said in the report.
pub async fn check(url: &BusUrl, home: &Path) -> Result<BusReport, Error> {
    Ok(match url.place() {
        Place::File(folder) => FileBus::check(folder).await?,
        Place::Nats(address) => {
            let options = servers::options(home, address)?;
            NatsBus::check(address, &options).await?
        }
        Place::Postgres(address) => {
            let options = servers::options(home, address)?;
            PostgresBus::check(address, &options).await?
        }
        Place::Mqtt(address) => {
            let options = servers::options(home, address)?;
            MqttBus::check(address, &options).await?
        }
        Place::Amqp(address) => {
            let options = servers::options(home, address)?;
            AmqpBus::check(address, &options).await?
        }
    })
}

/// Makes what is missing of the bus that a URL names, and leaves alone what is there. What there is to
/// say to its servers stands in the folder `home`, which need not hold a home.
///
/// # Errors
///
/// Fails when it cannot be reached, or there cannot be a bus as things are.
pub async fn setup(url: &BusUrl, home: &Path) -> Result<BusSetup, Error> {
    Ok(match url.place() {
        Place::File(folder) => FileBus::setup(folder).await?,
        Place::Nats(address) => {
            let options = servers::options(home, address)?;
            NatsBus::setup(address, &options).await?
        }
        Place::Postgres(address) => {
            let options = servers::options(home, address)?;
            PostgresBus::setup(address, &options).await?
        }
        Place::Mqtt(address) => {
            let options = servers::options(home, address)?;
            MqttBus::setup(address, &options).await?
        }
        Place::Amqp(address) => {
            let options = servers::options(home, address)?;
            AmqpBus::setup(address, &options).await?
        }
    })
}

/// The folder of the mirror of a bus: one for each bus of a home.
fn mirror(url: &BusUrl, home: &Path) -> PathBuf {
    let name = digest(MIRROR_LABEL, &[url.to_string().as_bytes()]);
    let digits = name.as_bytes().iter().take(16);
    let digits: String = digits.map(|byte| format!("{byte:02x}")).collect();
    home.join(MIRRORS).join(digits)
}
