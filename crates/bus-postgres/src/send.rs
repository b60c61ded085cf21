//! What is said on the channel: spec/bus-postgres.md, section 6.

use sealcast_bus::Topic;
use tokio_postgres::types::ToSql;

use crate::desks::{Ask, Call};
use crate::fault::Fault;
use crate::hidden::Hidden;
use crate::notice::{Notice, TOLD_MAX};
use crate::session::Session;

/// Sends a payload to whoever listens.
#[derive(Debug)]
pub(crate) struct Send<'a> {
    pub(crate) topic: &'a Topic,
    pub(crate) payload: &'a [u8],
    pub(crate) channel: &'a str,
}

impl Ask for Send<'_> {
    type Answer = ();

    async fn ask(&self, session: &Session, call: Call) -> Result<(), Fault> {
        // It was heard, perhaps, and nobody may hear it twice.
        if call.is_open {
            return Err(Fault::Interrupted);
        }
        match self.payload.len() > TOLD_MAX {
            true => self.store(session).await,
            false => self.tell(session).await,
        }
    }
}

impl Send<'_> {
    async fn tell(&self, session: &Session) -> Result<(), Fault> {
        let says = Hidden(Notice::sent(self.topic, self.payload));
        let (client, statements) = session.parts();
        client
            .execute(&statements.send, &[&self.channel, &says])
            .await?;
        Ok(())
    }

    async fn store(&self, session: &Session) -> Result<(), Fault> {
        let says = Notice::stored(self.topic);
        let payload = Hidden(self.payload);
        let parameters: [&(dyn ToSql + Sync); 3] = [&self.channel, &says, &payload];
        let (client, statements) = session.parts();
        client.execute(&statements.store, &parameters).await?;
        Ok(())
    }
}

/// Writes on the channel what only its writer waits for.
#[derive(Debug)]
pub(crate) struct Mark<'a> {
    pub(crate) id: &'a str,
    pub(crate) channel: &'a str,
}

impl Ask for Mark<'_> {
    type Answer = ();

    async fn ask(&self, session: &Session, _: Call) -> Result<(), Fault> {
        let says = Notice::mark(self.id);
        let (client, statements) = session.parts();
        client
            .execute(&statements.tell, &[&self.channel, &says])
            .await?;
        Ok(())
    }
}
