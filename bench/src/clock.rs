//! CPU time, and what the kernel says about this process.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rustix::param::clock_ticks_per_second;
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

/// CPU time of all children that ended, in ticks of the kernel.
pub(crate) fn children_cpu() -> anyhow::Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // What stands in brackets may hold anything; the 14th and 15th field behind it are ours.
    let fields = stat
        .rsplit_once(')')
        .context("the kernel tells no times")?
        .1;
    let ticks = fields.split_whitespace().skip(13).take(2);
    let ticks = ticks.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_secs(ticks) / u32::try_from(clock_ticks_per_second())?)
}

/// A figure about this process, in MiB: `VmRSS` now, `VmHWM` at most.
pub(crate) fn memory_mib(field: &str) -> anyhow::Result<f64> {
    memory_of(Path::new("/proc/self/status"), field)
}

/// A figure from a process's `status`, in MiB.
pub(crate) fn memory_of(status: &Path, field: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(status)?;
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
