//! The benchmark still runs. What it measures is not looked at.
#![cfg(test)]

use std::process::Command;

#[test]
fn every_section_runs_and_is_on_the_page() {
    let output = Command::new(env!("CARGO_BIN_EXE_sealcast-bench"))
        .arg("--glance")
        .output()
        .unwrap();
    let (page, talk) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(output.status.success(), "{talk}");
    for heading in [
        "What is promised",
        "Single messages",
        "Frames of 64 records",
        "Frames of 64 KiB",
        "Bytes on the bus",
        "A grant: one session",
        "A grant of two years",
        "Key nodes",
        "The program: ",
        "The program on NATS: ",
        "The program on NATS that syncs always: ",
        "The program on PostgreSQL",
        "The program on RabbitMQ",
        "The program on mosquitto",
        "Over a link of 1 Gbit/s",
        "Each by itself on mosquitto",
        "What sealing adds",
        "The library's whole pipeline",
        "From publishing to delivery",
        "Memory",
    ] {
        assert!(
            page.contains(&format!("\n## {heading}")),
            "{heading}\n{page}"
        );
    }
}

#[test]
fn help_names_every_section_and_measures_nothing() {
    let output = Command::new(env!("CARGO_BIN_EXE_sealcast-bench"))
        .arg("--help")
        .output()
        .unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for word in [
        "--glance",
        "flood N",
        "crowd SECONDS",
        "nats-syncing",
        "linked",
        "delay",
        "memory",
    ] {
        assert!(page.contains(word), "{word}\n{page}");
    }
}

#[test]
fn a_section_that_does_not_exist_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_sealcast-bench"))
        .arg("everything")
        .output()
        .unwrap();
    assert!(!output.status.success());
}

#[test]
fn a_flood_of_messages_arrives_once_and_in_order_and_memory_stays_flat() {
    let output = Command::new(env!("CARGO_BIN_EXE_sealcast-bench"))
        .args(["flood", "100000"])
        .output()
        .unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{talk}");
}
