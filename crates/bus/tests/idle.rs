//! What a tail and a listener cost while nothing happens. Alone in its file: it measures the whole process.
#![cfg(test)]
#![cfg(target_os = "linux")]

use std::fs;
use std::pin::pin;
use std::time::Duration;

use sealcast_bus::{Bus, FileBus, Offset, Topic};

const SECONDS: u64 = 4;
/// Half of a per cent of one core is what they may cost; the rest is for a runner that is slow and busy.
const CPU_MS_MAX: u64 = SECONDS * 20;

#[tokio::test]
async fn an_idle_tail_and_listener_take_next_to_no_cpu_time() {
    let folder = tempfile::tempdir().unwrap();
    let bus = FileBus::open(folder.path()).await.unwrap();
    let topics = (0..100)
        .map(|number| (Topic::new(&format!("t/{number}")).unwrap(), Offset(0)))
        .collect();
    let mut tail = bus.tail(topics);
    let ask = Topic::new("ask").unwrap();
    let mut listener = bus.listen(vec![ask]).await.unwrap();
    let mut either = pin!(async {
        tokio::select! {
            brought = tail.next() => format!("{brought:?}"),
            heard = listener.next() => format!("{heard:?}"),
        }
    });
    // Past what the start costs.
    let early = tokio::time::timeout(Duration::from_millis(200), &mut either).await;
    assert!(early.is_err(), "an empty bus brought {early:?}");

    let before = cpu_ms();
    let waited = tokio::time::timeout(Duration::from_secs(SECONDS), &mut either).await;
    let spent = cpu_ms() - before;
    assert!(waited.is_err(), "an empty bus brought {waited:?}");
    assert!(spent <= CPU_MS_MAX, "{spent} ms of CPU time in {SECONDS} s");
}

/// CPU time of this process: fields 14 and 15 of its `stat`, in ticks of 10 ms.
fn cpu_ms() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = |index: usize| -> u64 {
        fields
            .split_whitespace()
            .nth(index)
            .unwrap()
            .parse()
            .unwrap()
    };
    (ticks(11) + ticks(12)) * 10
}
