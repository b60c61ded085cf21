//! A broker that does not let a home subscribe to all that it asks for.

use std::path::{Path, PathBuf};

use sealcast_brokers::mosquitto::Server;
use sealcast_bus::{Bus, BusError, Offset};

use crate::rig::{Home, all, put, topic, wait_for};

/// The plugin of mosquitto that refuses subscriptions, by the rights that a file says.
fn plugin() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let plugin = |folder: &Path| folder.join("mosquitto_dynamic_security.so");
    let mut plugins = folders.map(|folder| plugin(&folder.path()));
    let found = plugins.find(|plugin| plugin.exists());
    found.expect("the plugin of Debian's package mosquitto")
}

/// Nobody may subscribe to one filter, and everybody may do all else.
fn all_but(filter: &str) -> String {
    format!(
        r#"{{
            "defaultACLAccess": {{
                "publishClientSend": true, "publishClientReceive": true,
                "subscribe": true, "unsubscribe": true
            }},
            "clients": [],
            "groups": [{{ "groupname": "all", "roles": [{{ "rolename": "all-but" }}] }}],
            "anonymousGroup": "all",
            "roles": [{{
                "rolename": "all-but",
                "acls": [{{ "acltype": "subscribeLiteral", "topic": "{filter}", "allow": false }}]
            }}]
        }}"#
    )
}

/// A broker with these rights, in a file.
fn with_rights(file: &Path, filter: &str) -> Server {
    std::fs::write(file, all_but(filter)).unwrap();
    Server::start_with(&format!(
        "allow_anonymous true\nplugin {}\nplugin_opt_config_file {}",
        plugin().display(),
        file.display()
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_broker_refuses_is_told_and_the_rest_goes_on_until_the_right_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let rights = folder.path().join("rights.json");
    let mut server = with_rights(&rights, "x/log/s/2f/#");
    let (home, other) = (Home::on(&server, "x").await, Home::on(&server, "x").await);
    let (open, shut) = (topic("s/1f/data"), topic("s/2f/data"));
    assert_eq!(home.bus.end(&open).await.unwrap(), Offset(0));
    for text in ["one", "two"] {
        let error = home.bus.end(&shut).await.unwrap_err();
        let BusError::Unreachable { cause, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(cause.to_string(), "the broker refused: this user may not");
        put(&other.bus, &open, text).await;
    }
    assert_eq!(wait_for(&home.bus, &open, 2).await, ["one", "two"]);
    server.stop();
    std::fs::write(&rights, all_but("x/log/s/3f/#")).unwrap();
    server.restart();
    put(&other.bus, &shut, "one").await;
    assert_eq!(wait_for(&home.bus, &shut, 1).await, ["one"]);
    put(&other.bus, &shut, "two").await;
    assert_eq!(wait_for(&home.bus, &shut, 2).await, ["one", "two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_home_may_not_have_twice_it_has_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = with_rights(&folder.path().join("rights.json"), "x/log/s/1f/keys/#");
    let (home, other) = (Home::on(&server, "x").await, Home::on(&server, "x").await);
    for log in [topic("s/1f/keys"), topic("s/1f/access/7")] {
        assert_eq!(home.bus.end(&log).await.unwrap(), Offset(0));
        put(&other.bus, &log, "one").await;
        assert_eq!(all(&home.bus, &log).await, ["one"]);
    }
}
