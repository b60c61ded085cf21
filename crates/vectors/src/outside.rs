//! Cases in a folder, and a terminal to say how they came out.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command prints"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use sealcast_vectors::check_folder;

pub(crate) fn try_all() -> ExitCode {
    let Some(folder) = std::env::args().nth(1) else {
        eprintln!("usage: sealcast-vectors FOLDER");
        return ExitCode::FAILURE;
    };
    match check_folder(Path::new(&folder)) {
        Ok(tried) => {
            print(&tried);
            ExitCode::SUCCESS
        }
        Err(faults) => {
            eprintln!("{faults}");
            ExitCode::FAILURE
        }
    }
}

fn print(tried: &BTreeMap<String, usize>) {
    for (area, count) in tried {
        println!("{count:>5}  {area}");
    }
    let all: usize = tried.values().sum();
    println!("{all:>5}  cases on {}", std::env::consts::ARCH);
}
