//! `sealcast-vectors FOLDER` tries the cases of a folder and prints how many there were.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command prints"
)]

use std::path::Path;
use std::process::ExitCode;

use sealcast_vectors::{Counted, LEFT_OUT, check_folder};

fn main() -> ExitCode {
    let Some(folder) = std::env::args().nth(1) else {
        eprintln!("usage: sealcast-vectors FOLDER");
        return ExitCode::FAILURE;
    };
    match check_folder(Path::new(&folder)) {
        Ok(counted) => {
            print(&counted);
            ExitCode::SUCCESS
        }
        Err(faults) => {
            eprintln!("{faults}");
            ExitCode::FAILURE
        }
    }
}

fn print(counted: &Counted) {
    for (area, count) in &counted.tried {
        println!("{count:>5}  {area}");
    }
    for (area, count) in &counted.left_out {
        let needs = LEFT_OUT.iter().find(|(own, _)| own == area);
        let needs = needs.map_or("", |(_, needs)| needs);
        println!("{count:>5}  {area}: LEFT OUT, for it needs {needs}");
    }
    let tried: usize = counted.tried.values().sum();
    println!("{tried:>5}  cases on {}", std::env::consts::ARCH);
}
