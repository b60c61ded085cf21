//! `docs/reference/config.md` says what the code does.
#![cfg(test)]

use std::fmt::Write as _;
use std::path::Path;

use crate::config::Config;

const HEAD: &str = "# The config file

`config.toml` in the folder of the home, or the file that `sealcast agent --config FILE` names. It is
read when the agent starts. Without it everything stands at its default.

A duration is a whole number and `ms`, `s`, `m`, `h`, `d` or `w`: `\"30s\"`. A size is a whole number and
`B`, `KiB`, `MiB` or `GiB`: `\"256 MiB\"`. An option that is not known here, or a value that makes no
sense, is refused with its line. Written by a test of `crates/agent`, which also reads it back.

`[parking]` is for those who follow through the agent. `[decisions]` has a
[guide](../guides/answer-requests-from-a-program.md), with the form of question and answer.
";

/// One option: its section, its key, its default as the file would say it or nothing, and what it is.
const OPTIONS: &[(&str, &str, &str, &str)] = &[
    (
        "agent",
        "listen",
        "\"127.0.0.1:9464\"",
        "Where to answer `/metrics` and `/healthz`: a loopback address and a port, 0 for any that is free, or `\"off\"`. Other addresses are refused.",
    ),
    (
        "agent",
        "archive",
        "",
        "The bus that all streams are copied to, still sealed: `file:` and a folder that there is, below the home if relative, or `amqp:`, `nats:` or `postgres:` and servers. Not set, nothing is copied. `--archive` goes before it.",
    ),
    (
        "agent",
        "log",
        "\"info\"",
        "From which level on to log: `\"error\"`, `\"warn\"`, `\"info\"`, `\"debug\"` or `\"trace\"`. Names and addresses are in `\"debug\"` and `\"trace\"` only, keys and messages in none.",
    ),
    (
        "agent",
        "log_format",
        "\"text\"",
        "`\"text\"`, or `\"json\"` for one object a line.",
    ),
    (
        "asking",
        "subscriptions_ask",
        "true",
        "Whether those who follow through the agent ask for the keys of what does not open.",
    ),
    (
        "asking",
        "key_request_timeout",
        "\"30s\"",
        "How long to wait for the answer to a request for keys.",
    ),
    (
        "asking",
        "max_key_requests_per_second",
        "20",
        "Requests for keys a second, at most, that leave in all streams together; and that are taken of one user in a stream.",
    ),
    (
        "asking",
        "answers",
        "true",
        "Whether requests of others are answered.",
    ),
    (
        "parking",
        "bytes_max",
        "\"256 MiB\"",
        "Bytes of messages that wait for their keys in one stream, at most. Each counts 4 KiB more than it has.",
    ),
    (
        "parking",
        "publisher_bytes_max",
        "\"64 MiB\"",
        "Bytes of one publisher, counted so, at most.",
    ),
    (
        "parking",
        "age_max",
        "\"30d\"",
        "How long a message waits, at most.",
    ),
    (
        "decisions",
        "policy",
        "\"log\"",
        "Who decides when somebody without a grant asks: `\"log\"` (the access log, so nobody gets one), `\"ask\"` (a person), `\"exec\"` (a program) or `\"url\"` (a server). No answer in time is a no.",
    ),
    (
        "decisions",
        "ask_timeout",
        "\"1d\"",
        "How long a request waits for a person, and how long a no of theirs holds.",
    ),
    (
        "decisions",
        "exec",
        "",
        "The program: its whole path, then its arguments, as an array.",
    ),
    (
        "decisions",
        "exec_timeout",
        "\"10s\"",
        "How long the program has.",
    ),
    (
        "decisions",
        "url",
        "",
        "Where the question is posted: a URL that begins with `https://`, or on this machine with `http://`. A redirection is not followed.",
    ),
    (
        "decisions",
        "url_ca",
        "",
        "A file with the certificates, in PEM, that the server's must chain to, below the home if relative. Not set, those of the system.",
    ),
    (
        "decisions",
        "url_timeout",
        "\"10s\"",
        "How long the server has.",
    ),
];

const SECTIONS: [&str; 4] = ["agent", "asking", "parking", "decisions"];

fn page() -> String {
    let mut page = HEAD.to_owned();
    for section in SECTIONS {
        write!(
            page,
            "\n## `[{section}]`\n\n| option | default | what it is |\n|---|---|---|\n"
        )
        .unwrap();
        for (_, key, default, says) in OPTIONS.iter().filter(|of| of.0 == section) {
            let default = match default.is_empty() {
                true => "not set".to_owned(),
                false => format!("`{default}`"),
            };
            writeln!(page, "| `{key}` | {default} | {says} |").unwrap();
        }
    }
    page
}

/// `SEALCAST_BLESS=1 cargo test -p sealcast-agent` writes the page anew.
#[test]
fn the_page_of_the_config_file_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/config.md");
    if std::env::var_os("SEALCAST_BLESS").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, page(), "write it anew with SEALCAST_BLESS=1");
}

#[test]
fn the_defaults_of_the_page_are_those_of_the_code() {
    let mut text = String::new();
    for section in SECTIONS {
        writeln!(text, "[{section}]").unwrap();
        let of_section = OPTIONS
            .iter()
            .filter(|of| of.0 == section && !of.2.is_empty());
        for (_, key, default, _) in of_section {
            writeln!(text, "{key} = {default}").unwrap();
        }
    }
    assert_eq!(Config::parse(&text, Path::new("/")), Ok(Config::default()));
    // Those that have an effect with a policy only.
    let ask = format!("{text}\n").replace("policy = \"log\"", "policy = \"ask\"");
    let same = Config::parse("[decisions]\npolicy = \"ask\"", Path::new("/"));
    assert_eq!(Config::parse(&ask, Path::new("/")), same);
    for (policy, option) in [("exec", "exec = [\"/x\"]"), ("url", "url = \"https://h\"")] {
        let policy = format!("policy = \"{policy}\"\n{option}");
        let whole = text.replace("policy = \"log\"", &policy);
        let short = Config::parse(&format!("[decisions]\n{policy}"), Path::new("/"));
        assert_eq!(Config::parse(&whole, Path::new("/")), short);
    }
}

#[test]
fn the_page_names_every_option_and_no_other() {
    for section in SECTIONS {
        let text = format!("[{section}]\nno_such_option = 1");
        let (_, said) = Config::parse(&text, Path::new("/")).unwrap_err();
        let (_, known) = said.split_once("expected ").unwrap();
        let known: Vec<_> = known.split('`').skip(1).step_by(2).collect();
        let named = OPTIONS.iter().filter(|of| of.0 == section).map(|of| of.1);
        assert_eq!(known, named.collect::<Vec<_>>(), "{section}");
    }
}
