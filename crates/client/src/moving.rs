//! Having a home use another bus.

use sealcast_bus::BusUrl;
use sealcast_protocol::{Name, Ticket};

use crate::archive::{BusCopy, same_bus};
use crate::blocking::off_thread;
use crate::error::Error;
use crate::home::{Home, StreamInfo};
use crate::stream::Stream;

impl Home {
    /// The ticket of a stream, by its local name. The bus is not asked.
    ///
    /// # Errors
    ///
    /// Fails when this home knows no such stream.
    pub fn ticket(&self, name: &Name) -> Result<Ticket, Error> {
        let known = self.inner.vault.memberships()?;
        let found = known.into_iter().find(|of| of.name == *name);
        let found = found.ok_or_else(|| Error::NoStream(name.to_string()))?;
        Ticket::parse(&found.ticket).map_err(Error::Ticket)
    }

    /// The streams of this home that are on a bus. Reads the store on the calling thread.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read.
    pub fn streams_on(&self, bus: &BusUrl) -> Result<Vec<StreamInfo>, Error> {
        let mut streams = self.streams()?;
        streams.retain(|of| same_bus(&of.bus, bus));
        Ok(streams)
    }

    /// Has this home use the bus that a stream was copied to from now on. Others of the stream go on
    /// where they are until they join with a ticket that names the other bus, and so do processes that
    /// run.
    ///
    /// # Errors
    ///
    /// Fails when that bus does not show how the stream begins, or cannot be reached.
    pub async fn switch_stream(&self, name: &Name, copy: &BusCopy) -> Result<Stream, Error> {
        let ticket = self.ticket(name)?;
        let (url, bus) = copy.arrived(&ticket).await?;
        self.inner.adopt(url, bus.clone());
        let (stream, owner, proposed) = (ticket.stream(), ticket.owner(), ticket.name().clone());
        let ticket = Ticket::new(&url.to_string(), stream, owner, proposed);
        self.join(&ticket.map_err(Error::Ticket)?, Some(name)).await
    }

    /// Has this home make new streams on another bus. Holds when the home is opened next.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be written.
    pub async fn switch_bus(&self, bus: &BusUrl) -> Result<(), Error> {
        let (vault, bus) = (self.inner.vault.clone(), bus.to_string());
        off_thread(move || vault.put_bus(bus)).await?
    }
}
