//! The exchange of ephemeral topics, by which a bus is known to be there.

use lapin::options::ExchangeDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Channel, ExchangeKind};

use super::{FRAME_SCOUTING_MAX, Server, answered};
use crate::fault::Fault;

impl Server {
    /// Makes the exchange where it is not there; says whether it did.
    pub(crate) async fn find_or_make(&self) -> Result<bool, Fault> {
        if self.is_there().await? {
            return Ok(false);
        }
        let hearing = self.hearing().await?;
        hearing.ear(&self.names.exchange()).await?;
        Ok(true)
    }

    /// Whether an exchange of its name is there.
    pub(crate) async fn is_there(&self) -> Result<bool, Fault> {
        let hearing = self.hearing().await?;
        let mut slot = hearing.asking.lock().await;
        let channel = hearing.asking_on(&mut slot).await?;
        let asked = find_exchange(channel, self.names.exchange());
        let found = hearing.judge(hearing.desk.waited(asked).await)?;
        Ok(found.is_some())
    }

    /// Fails where the exchange that is there is of another kind, or nothing that this user may make. It stays as it is.
    pub(crate) async fn check_exchange(&self) -> Result<(), Fault> {
        let hearing = self.hearing().await?;
        hearing.ear(&self.names.exchange()).await.map(drop)
    }

    /// Whether one of the servers that are named has the exchange; none where no more are named.
    pub(crate) async fn is_there_at(&self, index: usize) -> Option<Result<bool, Fault>> {
        let connected = self.target.connect_at(index, FRAME_SCOUTING_MAX).await?;
        let looked = async {
            let channel = answered(connected?.create_channel()).await?;
            match answered(find_exchange(channel, self.names.exchange())).await {
                Ok(()) => Ok(true),
                Err(Fault::Absent(_)) => Ok(false),
                Err(fault) => Err(fault),
            }
        };
        Some(looked.await)
    }
}

async fn find_exchange(channel: Channel, exchange: String) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions {
        passive: true,
        ..ExchangeDeclareOptions::default()
    };
    let (kind, arguments) = (ExchangeKind::Direct, FieldTable::default());
    let asked = channel.exchange_declare(exchange.into(), kind, options, arguments);
    asked.await
}

pub(super) async fn declare_exchange(channel: &Channel, exchange: &str) -> Result<(), Fault> {
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    let arguments = FieldTable::default();
    answered(channel.exchange_declare(exchange.into(), ExchangeKind::Direct, options, arguments))
        .await
}
