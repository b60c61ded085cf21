//! The agent of the home, where one runs.

use sealcast::Position;
use sealcast_agent::{
    API, AgentClient, Approved, ClientError, Fault, HomeInfo, Messages, PendingRequest, Requests,
    Status,
};

use crate::context::{Context, Names};
use crate::error::{BUS_DAMAGED, CommandError, Kind};

/// An agent that answers.
#[derive(Debug)]
pub(crate) struct Running {
    client: AgentClient,
    home: HomeInfo,
}

/// The agent of the home; `None` where none runs.
pub(crate) async fn of(context: &Context) -> Result<Option<Running>, CommandError> {
    let client = AgentClient::of(&context.home_path()?);
    match client.get::<HomeInfo>("/home").await {
        Ok(home) if home.api == API => Ok(Some(Running { client, home })),
        Ok(_) => Err(lost(ClientError::Unintelligible)),
        Err(ClientError::NotRunning) => Ok(None),
        Err(error) => Err(lost(error)),
    }
}

/// How the agent of the home is; `None` where none runs.
pub(crate) async fn status(context: &Context) -> Result<Option<Status>, CommandError> {
    let client = AgentClient::of(&context.home_path()?);
    match client.get::<Status>("/status").await {
        Ok(status) => Ok(Some(status)),
        Err(ClientError::NotRunning) => Ok(None),
        Err(error) => Err(lost(error)),
    }
}

impl Running {
    /// The user whose home it serves.
    pub(crate) fn user(&self) -> &str {
        &self.home.user
    }

    /// What the home calls people.
    pub(crate) fn names(&self) -> Result<Names, CommandError> {
        let odd = || lost(ClientError::Unintelligible);
        let own = self.home.user.parse().map_err(|_| odd())?;
        let contacts = self.home.contacts.iter().map(|of| {
            let name = of.name.parse().map_err(|_| odd())?;
            Ok((name, of.user.parse().map_err(|_| odd())?))
        });
        Ok(Names::told(
            own,
            contacts.collect::<Result<_, CommandError>>()?,
        ))
    }

    /// The requests that wait for a person.
    pub(crate) async fn requests(&self) -> Result<Requests, CommandError> {
        self.client.get("/requests").await.map_err(lost)
    }

    /// Says yes to one of them.
    pub(crate) async fn approve(&self, id: &str) -> Result<Approved, CommandError> {
        let path = format!("/requests/{id}/approve");
        self.client.post(&path).await.map_err(lost)
    }

    /// Says no to one of them.
    pub(crate) async fn deny(&self, id: &str) -> Result<PendingRequest, CommandError> {
        let path = format!("/requests/{id}/deny");
        self.client.post(&path).await.map_err(lost)
    }

    /// Follows a stream; `None` where the agent has ended meanwhile.
    pub(crate) async fn messages(
        &self,
        stream: &str,
        from: Option<Position>,
        count: Option<u64>,
    ) -> Result<Option<Messages>, CommandError> {
        let messages = self
            .client
            .messages(stream, from.map(|of| of.0), count)
            .await;
        match messages {
            Ok(messages) => Ok(Some(messages)),
            Err(ClientError::NotRunning) => Ok(None),
            Err(error) => Err(lost(error)),
        }
    }
}

/// Why the agent did not do what it was asked.
pub(crate) fn lost(error: ClientError) -> CommandError {
    let hint = "`sealcast agent status` says whether it runs; restart it after an update";
    match error {
        ClientError::Refused(fault) => ended(fault),
        ClientError::NotRunning => missing(),
        error @ (ClientError::Io(_) | ClientError::Unintelligible) => {
            CommandError::new(Kind::Bus, "agent.failed", error.to_string())
                .because(&error)
                .with_hint(hint)
        }
    }
}

/// Why the agent ended an answer.
pub(crate) fn ended(fault: Fault) -> CommandError {
    match fault.code.as_str() {
        "agent.stopping" => {
            CommandError::new(Kind::Bus, "agent.stopping", "the agent was told to stop")
                .with_hint("without an agent the same command does its work by itself")
        }
        _ => CommandError::told(fault.code, fault.message),
    }
}

/// The agent said that the bus of a stream is damaged.
pub(crate) fn bus_damaged() -> CommandError {
    let says = "the bus failed: bus is damaged";
    CommandError::new(Kind::Bus, "bus.failed", says).with_hint(BUS_DAMAGED)
}

/// No agent runs.
pub(crate) fn missing() -> CommandError {
    CommandError::new(
        Kind::Missing,
        "agent.missing",
        "no agent runs for this home",
    )
    .with_hint("start one with `sealcast agent`")
}
