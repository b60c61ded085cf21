//! A place where a program stands still.

use std::io::{self, ErrorKind, PipeReader, PipeWriter, Write as _};

use rustix::io::ioctl_fionbio;

/// A pipe that takes nothing more: whoever writes to it waits until the other end is read.
///
/// # Errors
///
/// Fails when the system has no more pipes.
pub fn full_pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, mut writer) = io::pipe()?;
    ioctl_fionbio(&writer, true)?;
    for some in [&[0; 4096][..], &[0]] {
        loop {
            match writer.write(some) {
                Ok(_) => (),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
    }
    ioctl_fionbio(&writer, false)?;
    Ok((reader, writer))
}
