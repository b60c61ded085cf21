//! What chores are told: `--name N`, in any order.

use anyhow::{Context as _, bail};

/// Puts each number where the name before it says.
pub(crate) fn read(mut words: &[&str], places: &mut [(&str, &mut u64)]) -> anyhow::Result<()> {
    while let [option, value, rest @ ..] = words {
        let place = places.iter_mut().find(|(name, _)| name == option);
        let (_, place) = place.with_context(|| format!("no such option: {option}"))?;
        **place = value
            .parse()
            .with_context(|| format!("no number: {value}"))?;
        words = rest;
    }
    match words {
        [] => Ok(()),
        [word, ..] => bail!("`{word}` lacks its number"),
    }
}
