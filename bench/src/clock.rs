//! CPU time, and what the kernel says about this process.

use std::fs;
use std::hint::black_box;
use std::time::Duration;

use anyhow::Context as _;
use rustix::time::{ClockId, clock_gettime};

/// CPU time of this thread.
pub(crate) fn thread_cpu() -> Duration {
    read(ClockId::ThreadCPUTime)
}

/// CPU time of all threads of this process.
pub(crate) fn process_cpu() -> Duration {
    read(ClockId::ProcessCPUTime)
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanos)
}

/// CPU time that this thread takes for a job.
pub(crate) fn timed<T>(job: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<Duration> {
    let before = thread_cpu();
    let result = job()?;
    let spent = thread_cpu() - before;
    drop(black_box(result));
    Ok(spent)
}

/// A figure from `/proc/self/status`, in MiB: `VmRSS` now, `VmHWM` at most.
pub(crate) fn memory_mib(field: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|text| text.trim().strip_suffix("kB"));
    let kib: f64 = kib
        .context("the kernel does not tell the memory")?
        .trim()
        .parse()?;
    Ok(kib / 1024.0)
}
