//! How a handle comes to its server.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::{
    CreateStreamErrorKind, GetStreamErrorKind, RequestError, RequestErrorKind,
};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, Context, ErrorCode};
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use sealcast_bus::{BusError, Credentials, ServerAddress, ServerOptions, jittered};
use tokio::sync::watch;

use crate::fault::Fault;
use crate::server::{ANSWER_TIMEOUT, Server};
use crate::subject::Subjects;

/// Payloads of one subscription that wait to be taken over, which is done as they come.
const SUBSCRIPTION_CAPACITY: usize = 4_096;
/// Between two attempts to connect anew, at first and at last.
const RECONNECT: Duration = Duration::from_millis(100);
const RECONNECT_MAX: Duration = Duration::from_secs(8);
/// How often the connection is tried when nothing comes over it. When the third is due and none was answered, another
/// is made: before a call gives up that began when nothing came any more.
const PING: Duration = Duration::from_secs(8);
/// Servers that take less in a message cannot carry what is sent on ephemeral topics.
pub(crate) const MESSAGE_MIN: usize = 128 << 10;

pub(crate) async fn open(
    address: &ServerAddress,
    options: &ServerOptions,
) -> Result<Arc<Server>, BusError> {
    let place = address.to_string();
    let opened = async {
        let (client, misses) = connect(address, options).await?;
        check_messages(&client)?;
        let context = jetstream::new(client.clone());
        let subjects = Subjects::new(address.name());
        let info = match find(&context, &subjects).await? {
            Some(info) => info,
            None => create(&context, &subjects, options.replicas.unwrap_or(1)).await?,
        };
        check(&info, &subjects)?;
        server(client, context, subjects, place.clone(), misses).await
    };
    opened.await.map_err(|fault| fault.at(&place))
}

/// A server on which the stream of the bus is.
pub(crate) async fn server(
    client: Client,
    context: Context,
    subjects: Subjects,
    place: String,
    misses: watch::Receiver<u64>,
) -> Result<Arc<Server>, Fault> {
    let stream = context.get_stream_no_info(subjects.stream()).await;
    let stream = stream.map_err(Fault::no_answer)?;
    Ok(Server::new(
        client, context, stream, subjects, place, misses,
    ))
}

/// Whether the server takes messages as long as those of ephemeral topics.
pub(crate) fn check_messages(client: &Client) -> Result<(), Fault> {
    let max_payload = client.max_payload();
    match max_payload < MESSAGE_MIN {
        true => Err(Fault::SmallMessages { max_payload }),
        false => Ok(()),
    }
}

/// Connects; what comes with it changes whenever something may have been missed.
pub(crate) async fn connect(
    address: &ServerAddress,
    options: &ServerOptions,
) -> Result<(Client, watch::Receiver<u64>), Fault> {
    let (misses, missed) = watch::channel(0);
    let was_connected = missed.clone();
    let mut connecting = ConnectOptions::new()
        .name("sealcast")
        .request_timeout(Some(ANSWER_TIMEOUT))
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .ping_interval(PING)
        .require_tls(options.require_tls || options.certificates.is_some())
        .reconnect_delay_callback(move |attempt| match *was_connected.borrow() {
            0 => first_delay(attempt),
            _ => reconnect_delay(attempt),
        })
        .event_callback(move |event| {
            if matches!(event, Event::Connected | Event::SlowConsumer(_)) {
                misses.send_modify(|count| *count += 1);
            }
            std::future::ready(())
        });
    if let Some(certificates) = &options.certificates {
        connecting = connecting.add_root_certificates(certificates.clone());
    }
    connecting = match &options.credentials {
        Credentials::None => connecting,
        Credentials::File(path) => {
            let with_file = connecting.credentials_file(path).await;
            with_file.map_err(|cause| Fault::CredentialsFile {
                path: path.clone(),
                cause,
            })?
        }
        Credentials::Password { user, password } => {
            connecting.user_and_password(user.clone(), password.clone())
        }
        Credentials::Token(token) => connecting.token(token.clone()),
    };
    let servers = address.servers().iter().map(|server| server.parse());
    let servers: Vec<ServerAddr> = servers
        .collect::<Result<_, _>>()
        .map_err(Fault::no_answer)?;
    let connected = connecting.connect(servers).await;
    Ok((connected.map_err(Fault::no_answer)?, missed))
}

/// Nobody waits before the first attempt of all. Attempts are counted from 1 on.
fn first_delay(attempt: usize) -> Duration {
    match attempt {
        0 | 1 => Duration::ZERO,
        _ => reconnect_delay(attempt - 1),
    }
}

/// Longer and longer, and never at the moment at which all the others come back.
fn reconnect_delay(attempt: usize) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
    jittered(RECONNECT_MAX.min(RECONNECT * 2_u32.saturating_pow(doublings.min(16))))
}

/// The stream of that name, if there is one.
pub(crate) async fn find(context: &Context, subjects: &Subjects) -> Result<Option<Info>, Fault> {
    let error = match context.get_stream(subjects.stream()).await {
        Ok(stream) => return Ok(Some(stream.cached_info().clone())),
        Err(error) => error,
    };
    match error.kind() {
        GetStreamErrorKind::JetStream(said) if said.error_code() == ErrorCode::STREAM_NOT_FOUND => {
            Ok(None)
        }
        GetStreamErrorKind::JetStream(said) => Err(Fault::said(said)),
        GetStreamErrorKind::Request
        | GetStreamErrorKind::EmptyName
        | GetStreamErrorKind::InvalidStreamName => Err(unanswered(error)),
    }
}

pub(crate) async fn create(
    context: &Context,
    subjects: &Subjects,
    replicas: usize,
) -> Result<Info, Fault> {
    let config = Config {
        name: subjects.stream().to_owned(),
        description: Some("a sealcast bus".into()),
        subjects: subjects.stored(),
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        num_replicas: replicas,
        // Whoever has appended must read it, and only the leader knows it for sure.
        allow_direct: false,
        ..Config::default()
    };
    match context.create_stream(config).await {
        Ok(stream) => Ok(stream.cached_info().clone()),
        Err(error) => match error.kind() {
            CreateStreamErrorKind::JetStream(said) => Err(Fault::said(said)),
            CreateStreamErrorKind::EmptyStreamName
            | CreateStreamErrorKind::InvalidStreamName
            | CreateStreamErrorKind::DomainAndExternalSet
            | CreateStreamErrorKind::JetStreamUnavailable
            | CreateStreamErrorKind::TimedOut
            | CreateStreamErrorKind::Response
            | CreateStreamErrorKind::NotFound
            | CreateStreamErrorKind::ResponseParse => Err(unanswered(error)),
        },
    }
}

/// Whether a stream can be that of a bus.
pub(crate) fn check(info: &Info, subjects: &Subjects) -> Result<(), Fault> {
    let config = &info.config;
    let has_all = subjects
        .stored()
        .iter()
        .all(|subject| config.subjects.contains(subject));
    match has_all && config.retention == RetentionPolicy::Limits {
        true => Ok(()),
        false => Err(Fault::ForeignStream),
    }
}

fn unanswered(error: impl StdError + Send + Sync + 'static) -> Fault {
    let request = error
        .source()
        .and_then(|source| source.downcast_ref::<RequestError>());
    match request.map(RequestError::kind) {
        Some(RequestErrorKind::NoResponders) => Fault::NoJetStream,
        _ => Fault::no_answer(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_attempt_of_all_waits_for_nothing_and_the_first_after_a_loss_does() {
        assert_eq!(first_delay(1), Duration::ZERO);
        assert!(first_delay(2) >= RECONNECT / 2);
        assert!(reconnect_delay(1) >= RECONNECT / 2);
    }
}
