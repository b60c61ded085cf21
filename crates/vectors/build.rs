//! Lists the cases for programs that cannot read a folder.

use std::fs;
use std::io::Error;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Error> {
    let var = |name| std::env::var_os(name).ok_or(Error::other(name));
    let folder = Path::new(&var("CARGO_MANIFEST_DIR")?).join("../../vectors");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut list = String::from("[\n");
    if var("CARGO_CFG_TARGET_OS")? == "unknown" {
        for area in entries(&folder)?.iter().filter(|path| path.is_dir()) {
            for case in entries(area)? {
                let area = area.file_name().unwrap_or_default();
                list += &format!("    ({area:?}, include_str!({case:?})),\n");
            }
        }
    }
    list.push_str("]\n");
    fs::write(Path::new(&var("OUT_DIR")?).join("cases.rs"), list)
}

/// What lies in a folder, in order.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let found = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut found = found.collect::<Result<Vec<_>, Error>>()?;
    found.sort();
    Ok(found)
}
