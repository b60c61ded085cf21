//! What is searched for, and the search.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Bytes of a secret that give it away.
const WINDOW: usize = 8;
/// Characters of base64 that hold as much.
const BASE64_WINDOW: usize = 11;
/// Bits of the sieve, which nearly all that is searched falls through.
const SIEVE_BITS: u32 = 23;

/// Secrets to search for.
pub struct Needles {
    names: Vec<String>,
    /// What may be found, by its first eight bytes.
    patterns: HashMap<u64, Vec<Pattern>>,
    sieve: Vec<u64>,
}

#[derive(PartialEq, Eq)]
struct Pattern {
    name: usize,
    form: Form,
    /// Behind the first eight bytes.
    rest: Box<[u8]>,
}

/// How a secret was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// As it is.
    Bytes,
    /// In hexadecimal, of either case.
    Hex,
    /// In base64, of either alphabet and at any alignment.
    Base64,
    /// As a list of decimal numbers.
    Numbers,
}

/// Part of a secret that was found.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trace {
    /// The secret's name.
    pub name: String,
    /// How it was written.
    pub form: Form,
    /// What was searched.
    pub place: String,
    /// How much of it was found there, in windows of eight bytes.
    pub windows: usize,
    /// Where the first one begins.
    pub at: usize,
}

impl Default for Needles {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            patterns: HashMap::new(),
            sieve: vec![0; 1 << (SIEVE_BITS - u64::BITS.ilog2())],
        }
    }
}

impl Needles {
    /// Nothing to search for.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a secret.
    ///
    /// # Panics
    ///
    /// Panics when it is shorter than eight bytes, or has eight equal ones in a row, which would be
    /// found everywhere.
    pub fn add(&mut self, name: impl Into<String>, secret: &[u8]) {
        assert!(secret.len() >= WINDOW, "a secret has eight bytes or more");
        self.names.push(name.into());
        for window in secret.windows(WINDOW) {
            let is_secret = window.iter().any(|byte| *byte != window[0]);
            assert!(is_secret, "eight equal bytes are no secret");
            let hex: String = window.iter().map(|byte| format!("{byte:02x}")).collect();
            let numbers: Vec<_> = window.iter().map(u8::to_string).collect();
            self.put(Form::Bytes, window);
            self.put(Form::Hex, hex.to_uppercase().as_bytes());
            self.put(Form::Hex, hex.as_bytes());
            self.put(Form::Numbers, numbers.join(", ").as_bytes());
        }
        for from in 0..3 {
            let (groups, _) = secret[from..].as_chunks::<3>();
            for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                let text = engine.encode(groups.as_flattened());
                for window in text.as_bytes().windows(BASE64_WINDOW) {
                    self.put(Form::Base64, window);
                }
            }
        }
    }

    /// Whether there is nothing to search for.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    fn put(&mut self, form: Form, pattern: &[u8]) {
        let Some((first, rest)) = pattern.split_first_chunk() else {
            return;
        };
        let first = u64::from_le_bytes(*first);
        let (word, bit) = place_in_sieve(first);
        self.sieve[word] |= bit;
        let pattern = Pattern {
            name: self.names.len() - 1,
            form,
            rest: rest.into(),
        };
        let patterns = self.patterns.entry(first).or_default();
        if !patterns.contains(&pattern) {
            patterns.push(pattern);
        }
    }

    /// Searches at every offset. `place` says what is searched.
    pub fn search(&self, place: &str, bytes: &[u8]) -> Vec<Trace> {
        let mut found = BTreeMap::<(usize, Form), (usize, usize)>::new();
        for (at, window) in bytes.windows(WINDOW).enumerate() {
            let first = window.first_chunk().map_or(0, |of| u64::from_le_bytes(*of));
            let (word, bit) = place_in_sieve(first);
            if self.sieve[word] & bit == 0 {
                continue;
            }
            let behind = bytes.get(at + WINDOW..).unwrap_or_default();
            for pattern in self.patterns.get(&first).into_iter().flatten() {
                if behind.starts_with(&pattern.rest) {
                    let entry = found.entry((pattern.name, pattern.form));
                    entry.or_insert((at, 0)).1 += 1;
                }
            }
        }
        let traces = found
            .into_iter()
            .map(|((name, form), (at, windows))| Trace {
                name: self.names[name].clone(),
                form,
                place: place.to_owned(),
                windows,
                at,
            });
        traces.collect()
    }
}

/// Spreads what text and small numbers have in common.
fn place_in_sieve(first: u64) -> (usize, u64) {
    let hash = first.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SIEVE_BITS);
    ((hash / 64) as usize, 1 << (hash % 64))
}

impl fmt::Debug for Needles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Needles").field(&self.names).finish()
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, form, place) = (&self.name, &self.form, &self.place);
        let (windows, at) = (self.windows, self.at);
        write!(
            f,
            "{name} as {form:?}, {windows} windows, in {place} at {at:#x}"
        )
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    use super::*;

    #[test]
    fn any_eight_bytes_of_a_secret_are_found_and_seven_are_not() {
        let secret = secret();
        for at in 0..=secret.len() - WINDOW {
            let part = &secret[at..at + WINDOW];
            // Not the byte before it in the secret, which would make another window.
            let other = !secret[at.saturating_sub(1)];
            assert_eq!(
                found(&secret, &[&[other], part].concat()),
                [(Form::Bytes, 1)]
            );
            assert_eq!(found(&secret, &part[1..]), []);
            assert_eq!(found(&secret, &part[..7]), []);
        }
        assert_eq!(found(&secret, &secret), [(Form::Bytes, 25)]);
    }

    #[test]
    fn hexadecimal_of_either_case_is_found() {
        let secret = secret();
        let text: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found(&secret, text.as_bytes()), [(Form::Hex, 25)]);
        let text = text.to_uppercase();
        assert_eq!(found(&secret, &text.as_bytes()[10..28]), [(Form::Hex, 2)]);
    }

    #[test]
    fn base64_of_either_alphabet_is_found_wherever_the_secret_begins_in_it() {
        let secret = secret();
        for before in [&b""[..], b"1", b"12", b"123", b"1234"] {
            let text = [before, &secret, b"behind"].concat();
            for text in [STANDARD.encode(&text), URL_SAFE.encode(&text)] {
                let found = found(&secret, text.as_bytes());
                assert!(matches!(found[..], [(Form::Base64, 28..)]), "{found:?}");
            }
        }
    }

    #[test]
    fn what_rust_prints_of_bytes_is_found() {
        let secret = secret();
        let found = found(&secret, format!("{secret:?}").as_bytes());
        assert!(matches!(found[..], [(Form::Numbers, 25..)]), "{found:?}");
    }

    #[test]
    #[should_panic(expected = "eight equal bytes")]
    fn what_would_be_found_everywhere_is_refused() {
        Needles::new().add("zeros", &[0; 32]);
    }

    fn secret() -> Vec<u8> {
        let mut secret = vec![0; 32];
        getrandom::fill(&mut secret).unwrap();
        secret
    }

    fn found(secret: &[u8], searched: &[u8]) -> Vec<(Form, usize)> {
        let mut needles = Needles::new();
        needles.add("secret", secret);
        needles.add("another", &self::secret());
        let traces = needles.search("here", searched);
        assert!(
            traces
                .iter()
                .all(|of| of.name == "secret" && of.place == "here")
        );
        traces.iter().map(|of| (of.form, of.windows)).collect()
    }
}
