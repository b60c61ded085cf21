//! Tries the cases of `vectors/` through the APIs that readers use. How they are made is not known
//! here.
//!
//! [`check`] tries one case, [`check_folder`] all of them. It is the same code that runs natively
//! and in WebAssembly, where nothing but key files is left out, for they need the store.

mod asking;
mod case;
mod control;
mod folder;
mod formats;
mod homes;
mod key_nodes;
mod keys;
#[cfg(not(target_family = "wasm"))]
mod locked;
mod logs;
mod nodes;
mod pairing;

pub use case::Case;
pub use folder::check_folder;

use case::{Given, Outcome};

type Read = fn(&mut Given) -> Outcome;

/// The areas, and what tries their cases.
const READERS: &[(&str, Read)] = &[
    ("access-log", control::access_log),
    ("bulk-digest", keys::bulk_digests),
    ("bundle", control::bundles),
    ("claim", asking::claims),
    ("cover", keys::covers),
    ("deal", nodes::deals),
    ("dealing", key_nodes::dealings),
    ("device-list", control::device_list),
    ("digest", keys::digests),
    ("envelope", formats::envelopes),
    ("export", formats::exports),
    ("fallback-key", control::fallback_key),
    ("frame", formats::frames),
    ("id", formats::ids),
    ("item", formats::items),
    #[cfg(not(target_family = "wasm"))]
    ("key-file", locked::key_file),
    ("keys-read-by", homes::read_by),
    ("log-state", logs::state),
    ("message", keys::messages),
    ("node-answer", key_nodes::answers),
    ("node-refusal", nodes::refusals),
    ("audit-entry", nodes::audit_entries),
    ("node-request", nodes::requests),
    ("pairing-code", pairing::codes),
    ("pairing-item", pairing::items),
    ("quorum", key_nodes::quorums),
    ("receipt", asking::receipts),
    ("refusal", asking::refusals),
    ("revocation-proof", control::revocation_proof),
    ("sealed-answer", nodes::answers),
    ("segment", key_nodes::segment),
    ("segment-records", nodes::records),
    ("segments", key_nodes::intervals),
    ("session", control::sessions),
    ("share", key_nodes::shares),
    ("signature", keys::signatures),
    ("solicitation", asking::solicitations),
    ("store", formats::store),
    ("ticket", formats::tickets),
    ("tree", keys::tree),
    ("wrap", keys::wraps),
    ("wrap-key", keys::wrap_keys),
];

/// The areas that this build tries.
pub fn areas() -> impl Iterator<Item = &'static str> {
    READERS.iter().map(|(area, _)| *area)
}

/// Tries one case, the text of a file.
///
/// # Errors
///
/// Says how it comes out otherwise than it expects, or that there is no such area here.
pub fn check(area: &str, text: &str) -> Result<(), String> {
    let found = READERS.iter().find(|(own, _)| *own == area);
    let (_, read) = found.ok_or(format!("no such area: {area}"))?;
    let Case {
        mut given,
        expect,
        comes_out,
    } = Case::parse(text)?;
    let outcome = read(&mut given);
    if let [(key, _), ..] = given.rest() {
        return Err(format!("nobody read `{key}` ({outcome:?})"));
    }
    match outcome {
        Ok(lines) if expect == "ok" && lines == comes_out => Ok(()),
        Err(failure) if failure == expect && comes_out.is_empty() => Ok(()),
        outcome => Err(format!(
            "expected {expect} {comes_out:?}, and there came {outcome:?}"
        )),
    }
}
