//! Finds traces of secrets: in the memory of a running program, in what it printed, in its files.
//!
//! A copy of a secret is seldom found whole. Part of it may have been overwritten, or it was
//! printed, encoded, cut. [`Needles`] therefore knows every eight bytes in a row of every secret, as
//! they are, in hexadecimal, in base64 and as a list of numbers, and finds them in one pass.
//!
//! For tests only. A search that finds nothing proves little until it has found what was planted.

mod needles;
#[cfg(target_os = "linux")]
mod pipe;
#[cfg(target_os = "linux")]
mod stopped;

use std::fs;
use std::io;
use std::path::Path;

pub use needles::{Form, Needles, Trace};
#[cfg(target_os = "linux")]
pub use pipe::full_pipe;
#[cfg(target_os = "linux")]
pub use stopped::{Stopped, is_idle, search_memory};

/// Searches every file below a folder.
///
/// # Errors
///
/// Fails when one of them cannot be read.
pub fn search_files(needles: &Needles, folder: &Path) -> io::Result<Vec<Trace>> {
    let mut traces = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => traces.extend(search_files(needles, &path)?),
            false => {
                let place = path.display().to_string();
                traces.extend(needles.search(&place, &fs::read(&path)?));
            }
        }
    }
    Ok(traces)
}
