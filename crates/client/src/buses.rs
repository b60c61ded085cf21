//! Opening a bus of any kind.

use std::env;
use std::error::Error as StdError;
use std::path::PathBuf;
use std::sync::Arc;

use sealcast_bus::{
    Bus, BusError, BusUrl, Credentials, FileBus, Place, ServerAddress, ServerOptions,
};
use sealcast_bus_nats::NatsBus;

/// Opens the bus that a URL names. What else there is to say to a server stands in the environment,
/// so that a URL can be handed on.
pub(crate) async fn open(url: &BusUrl) -> Result<Arc<dyn Bus>, BusError> {
    Ok(match url.place() {
        Place::File(folder) => Arc::new(FileBus::open(folder).await?),
        Place::Nats(address) => Arc::new(NatsBus::open(address, &options(address)?).await?),
        Place::Mqtt(address) | Place::Amqp(address) | Place::Postgres(address) => {
            let says = "this build has no such bus";
            return Err(unreachable(address, says));
        }
    })
}

fn options(address: &ServerAddress) -> Result<ServerOptions, BusError> {
    let options = read_options(|name| env::var(name).ok());
    options.map_err(|says| unreachable(address, says))
}

fn unreachable(address: &ServerAddress, says: &'static str) -> BusError {
    BusError::Unreachable {
        place: address.to_string(),
        cause: Box::<dyn StdError + Send + Sync>::from(says),
    }
}

/// Reads the variables that `docs/reference/servers.md` lists; else says what is wrong, without
/// repeating it.
fn read_options(variable: impl Fn(&str) -> Option<String>) -> Result<ServerOptions, &'static str> {
    let given = |name| variable(name).filter(|value| !value.is_empty());
    let file = given("SEALCAST_BUS_CREDENTIALS");
    let (user, password) = (given("SEALCAST_BUS_USER"), given("SEALCAST_BUS_PASSWORD"));
    let token = given("SEALCAST_BUS_TOKEN");
    let mut options = ServerOptions::default();
    options.credentials = match (file, user, password, token) {
        (None, None, None, None) => Credentials::None,
        (Some(file), None, None, None) => Credentials::File(file.into()),
        (None, Some(user), Some(password), None) => Credentials::Password { user, password },
        (None, None, None, Some(token)) => Credentials::Token(token),
        _ => {
            return Err(
                "set SEALCAST_BUS_CREDENTIALS, or SEALCAST_BUS_USER and SEALCAST_BUS_PASSWORD, \
                 or SEALCAST_BUS_TOKEN, and nothing else of these",
            );
        }
    };
    options.certificates = given("SEALCAST_BUS_CA").map(PathBuf::from);
    options.require_tls = match given("SEALCAST_BUS_TLS").as_deref() {
        None => false,
        Some("require") => true,
        Some(_) => return Err("SEALCAST_BUS_TLS may say `require`, and nothing else"),
    };
    options.replicas = match given("SEALCAST_BUS_REPLICAS").as_deref() {
        None => None,
        Some("1") => Some(1),
        Some("3") => Some(3),
        Some("5") => Some(5),
        Some(_) => return Err("SEALCAST_BUS_REPLICAS may be 1, 3 or 5"),
    };
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(set: &[(&str, &str)]) -> Result<ServerOptions, &'static str> {
        read_options(|name| {
            let found = set.iter().find(|(of, _)| *of == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn credentials_come_from_the_environment_in_one_way_only() {
        let (user, password) = (("SEALCAST_BUS_USER", "kim"), ("SEALCAST_BUS_PASSWORD", "p"));
        let token = ("SEALCAST_BUS_TOKEN", "secret");
        let file = ("SEALCAST_BUS_CREDENTIALS", "/creds");
        let kind = |set: &[_]| options(set).map(|of| format!("{:?}", of.credentials));
        for (set, expected) in [
            (&[][..], "None"),
            (&[("SEALCAST_BUS_TOKEN", "")], "None"),
            (&[file], "File"),
            (&[user, password], "Password"),
            (&[token], "Token"),
        ] {
            assert_eq!(kind(set).as_deref(), Ok(expected));
        }
        for set in [
            &[user][..],
            &[password],
            &[token, file],
            &[user, password, token],
        ] {
            let said = kind(set).unwrap_err();
            assert!(said.contains("nothing else of these") && !said.contains("secret"));
        }
    }

    #[test]
    fn what_else_is_said_of_a_server_is_read_or_refused() {
        let all = options(&[
            ("SEALCAST_BUS_CA", "/ca.pem"),
            ("SEALCAST_BUS_TLS", "require"),
            ("SEALCAST_BUS_REPLICAS", "3"),
        ])
        .unwrap();
        assert_eq!(all.certificates, Some("/ca.pem".into()));
        assert_eq!((all.require_tls, all.replicas), (true, Some(3)));
        assert!(options(&[("SEALCAST_BUS_TLS", "no")]).is_err());
        assert!(options(&[("SEALCAST_BUS_REPLICAS", "2")]).is_err());
    }
}
