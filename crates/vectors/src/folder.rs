//! All cases of a folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{areas, check};

/// Files beside the areas.
const BESIDE: &[&str] = &["README.md", "check.py", "requirements.txt"];

/// Tries every case of a folder that is laid out as `vectors/` is, and counts them by area.
///
/// # Errors
///
/// Names the cases that come out otherwise than they say. Fails too when anything is found that is
/// neither a case nor a known file beside them, and when an area is missing or empty.
pub fn check_folder(folder: &Path) -> Result<BTreeMap<String, usize>, String> {
    let mut tried = BTreeMap::new();
    let mut faults = Vec::new();
    for path in entries(folder)? {
        let name = name(&path);
        if path.is_dir() {
            let cases = entries(&path)?;
            faults.extend(cases.iter().filter_map(|case| fault(&name, case)));
            tried.insert(name, cases.len());
        } else if !BESIDE.contains(&name.as_str()) {
            faults.push(format!("{}: what is this?", path.display()));
        }
    }
    for area in areas() {
        if tried.get(area).is_none_or(|count| *count == 0) {
            faults.push(format!("{area}: no cases"));
        }
    }
    match faults.is_empty() {
        true => Ok(tried),
        false => Err(faults.join("\n")),
    }
}

fn fault(area: &str, path: &Path) -> Option<String> {
    let outcome = match path.extension().is_some_and(|extension| extension == "txt") {
        true => fs::read_to_string(path)
            .map_err(|error| error.to_string())
            .and_then(|text| check(area, &text)),
        false => Err("what is this?".to_owned()),
    };
    outcome
        .err()
        .map(|fault| format!("{}: {fault}", path.display()))
}

/// What lies in a folder, in order.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let found = fs::read_dir(folder).and_then(|entries| {
        entries
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<PathBuf>, std::io::Error>>()
    });
    let mut found = found.map_err(|error| format!("{}: {error}", folder.display()))?;
    found.sort();
    Ok(found)
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
