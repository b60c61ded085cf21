//! What this machine does right now, as its kernel counts it.

use std::fs;

use crate::time::{now, rfc3339};

/// Reads load, memory and network counters. A system that shows none of them is told so.
pub(super) fn sample() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let parts = [
        load(&read("/proc/loadavg")),
        memory(&read("/proc/meminfo")),
        network(&read("/proc/net/dev")),
    ];
    let shown: Vec<String> = parts.into_iter().flatten().collect();
    let what = match shown.is_empty() {
        true => "this system shows no counters".to_owned(),
        false => shown.join(", "),
    };
    format!("live {} {what}", rfc3339(now()))
}

fn load(text: &str) -> Option<String> {
    let one = text.split_whitespace().next()?;
    Some(format!("load {one}"))
}

fn memory(text: &str) -> Option<String> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(format!("memory {} available", line.trim()))
}

/// Sums what every interface received and sent.
fn network(text: &str) -> Option<String> {
    let mut sums: Option<(u64, u64)> = None;
    for line in text.lines() {
        let Some((_, counters)) = line.split_once(':') else {
            continue;
        };
        let counters: Vec<u64> = counters.split_whitespace().flat_map(str::parse).collect();
        if let (Some(received), Some(sent)) = (counters.first(), counters.get(8)) {
            let (all_received, all_sent) = sums.unwrap_or_default();
            sums = Some((all_received + received, all_sent + sent));
        }
    }
    let (received, sent) = sums?;
    Some(format!("network {received} bytes in, {sent} bytes out"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_as_the_kernel_prints_them() {
        assert_eq!(
            load("0.52 0.40 0.30 1/123 4567\n").as_deref(),
            Some("load 0.52")
        );
        let text = "MemTotal:       49368128 kB\nMemAvailable:   40000000 kB\n";
        assert_eq!(
            memory(text).as_deref(),
            Some("memory 40000000 kB available")
        );
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes\n\
                    lo: 10 1 0 0 0 0 0 0 20 1 0 0 0 0 0 0\n\
                    eth0: 100 1 0 0 0 0 0 0 200 1 0 0 0 0 0 0\n";
        assert_eq!(
            network(text).as_deref(),
            Some("network 110 bytes in, 220 bytes out")
        );
    }

    #[test]
    fn a_system_without_counters_is_told_so() {
        assert_eq!((load(""), memory(""), network("")), (None, None, None));
        assert!(sample().starts_with("live 2"));
    }
}
