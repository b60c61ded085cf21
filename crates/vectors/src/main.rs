//! `sealcast-vectors FOLDER` tries the cases of a folder and prints how many there were. Where there are no
//! folders, in a browser's machine, the cases are in the program, and it gives back which area failed.

#[cfg(target_os = "unknown")]
mod inside;
#[cfg(not(target_os = "unknown"))]
mod outside;

#[cfg(target_os = "unknown")]
use inside as cases;
#[cfg(not(target_os = "unknown"))]
use outside as cases;

fn main() -> std::process::ExitCode {
    cases::try_all()
}
