//! What the program is told: `--name N`, in any order.

/// Puts each number where the name before it says.
pub(crate) fn read(mut words: &[&str], places: &mut [(&str, &mut u64)]) -> Result<(), String> {
    while let [option, value, rest @ ..] = words {
        let place = places.iter_mut().find(|(name, _)| name == option);
        let (_, place) = place.ok_or_else(|| format!("no such option: {option}"))?;
        **place = value.parse().map_err(|_| format!("no number: {value}"))?;
        words = rest;
    }
    match words {
        [] => Ok(()),
        [word, ..] => Err(format!("`{word}` lacks its number")),
    }
}
