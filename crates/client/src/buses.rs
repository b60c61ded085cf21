//! Opening a bus of any kind.

use std::path::Path;
use std::sync::Arc;

use sealcast_bus::{Bus, BusError, BusUrl, FileBus, Place, ServerAddress};
use sealcast_bus_nats::NatsBus;

use crate::error::Error;
use crate::servers;

/// Opens the bus that a URL names, for the home in a folder: what else there is to say to a server
/// stands there, so that a URL can be handed on.
pub(crate) async fn open(url: &BusUrl, home: &Path) -> Result<Arc<dyn Bus>, Error> {
    Ok(match url.place() {
        Place::File(folder) => Arc::new(FileBus::open(folder).await?),
        Place::Nats(address) => {
            let options = servers::options(home, address)?;
            Arc::new(NatsBus::open(address, &options).await?)
        }
        Place::Mqtt(address) | Place::Amqp(address) | Place::Postgres(address) => {
            return Err(not_in_this_build(address).into());
        }
    })
}

fn not_in_this_build(address: &ServerAddress) -> BusError {
    BusError::Unreachable {
        place: address.to_string(),
        cause: "this build has no such bus".into(),
    }
}
