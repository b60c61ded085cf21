//! One case of `vectors/`: a file, taken apart, and lines that come out.

/// What must come out: lines, or the name of a failure. What is wrong with the file itself is a
/// failure too, one that no file expects.
pub(crate) type Outcome = Result<Vec<(String, String)>, String>;

/// A case, taken apart.
#[derive(Debug)]
pub struct Case {
    pub(crate) given: Given,
    /// `ok`, or the name of a failure.
    pub expect: String,
    pub(crate) comes_out: Vec<(String, String)>,
}

/// The lines above `expect`, each to be taken once.
#[derive(Debug)]
pub(crate) struct Given(Vec<(String, String)>);

impl Case {
    /// Takes the text of a file apart.
    ///
    /// # Errors
    ///
    /// Says what is no line of a case, or that nothing is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = Vec::new();
        for line in text.lines() {
            let (key, value) = line.split_once(':').ok_or(format!("no colon: {line}"))?;
            lines.push((key.to_owned(), value.trim_start().to_owned()));
        }
        let at = lines.iter().position(|(key, _)| key == "expect");
        let comes_out = lines.split_off(at.ok_or("nothing expected")? + 1);
        let (_, expect) = lines.pop().ok_or("nothing expected")?;
        lines.retain(|(key, _)| key != "about");
        Ok(Self {
            given: Given(lines),
            expect,
            comes_out,
        })
    }
}

impl Given {
    /// What nobody has taken.
    pub(crate) fn rest(&self) -> &[(String, String)] {
        &self.0
    }

    pub(crate) fn maybe_text(&mut self, key: &str) -> Option<String> {
        let at = self.0.iter().position(|(own, _)| own == key)?;
        Some(self.0.remove(at).1)
    }

    pub(crate) fn text(&mut self, key: &str) -> Result<String, String> {
        self.maybe_text(key).ok_or(format!("no line `{key}`"))
    }

    pub(crate) fn number<T: std::str::FromStr>(&mut self, key: &str) -> Result<T, String> {
        let text = self.text(key)?;
        text.parse().map_err(|_| format!("no number: {text}"))
    }

    pub(crate) fn maybe_number(&mut self, key: &str) -> Result<Option<u64>, String> {
        let parse = |text: String| text.parse().map_err(|_| format!("no number: {text}"));
        self.maybe_text(key).map(parse).transpose()
    }

    pub(crate) fn bytes(&mut self, key: &str) -> Result<Vec<u8>, String> {
        unhex(&self.text(key)?)
    }

    pub(crate) fn array<const N: usize>(&mut self, key: &str) -> Result<[u8; N], String> {
        array(&self.bytes(key)?)
    }

    pub(crate) fn maybe_bytes(&mut self, key: &str) -> Result<Option<Vec<u8>>, String> {
        self.maybe_text(key).map(|text| unhex(&text)).transpose()
    }

    pub(crate) fn maybe_array<const N: usize>(
        &mut self,
        key: &str,
    ) -> Result<Option<[u8; N]>, String> {
        let bytes = self.maybe_bytes(key)?;
        bytes.map(|bytes| array(&bytes)).transpose()
    }

    /// Every line with this key, in order.
    pub(crate) fn each(&mut self, key: &str) -> Result<Vec<Vec<u8>>, String> {
        let mut all = Vec::new();
        while let Some(bytes) = self.maybe_bytes(key)? {
            all.push(bytes);
        }
        Ok(all)
    }
}

/// Lines that come out, in order.
#[derive(Default)]
pub(crate) struct Lines(Vec<(String, String)>);

impl Lines {
    pub(crate) fn text(mut self, key: &str, value: impl ToString) -> Self {
        self.0.push((key.to_owned(), value.to_string()));
        self
    }

    pub(crate) fn hex(self, key: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.text(key, hex(bytes.as_ref()))
    }

    pub(crate) fn each<T>(
        self,
        of: impl IntoIterator<Item = T>,
        add: impl Fn(Self, T) -> Self,
    ) -> Self {
        of.into_iter().fold(self, add)
    }

    pub(crate) fn done(self) -> Outcome {
        Ok(self.0)
    }
}

pub(crate) fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], String> {
    bytes
        .try_into()
        .map_err(|_| format!("{} bytes instead of {N}", bytes.len()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).map(|digit| digit as u8))
        .collect();
    let digits = digits.ok_or(format!("not hexadecimal: {text}"))?;
    match digits.as_chunks() {
        (pairs, []) => Ok(pairs.iter().map(|[high, low]| high << 4 | low).collect()),
        (_, _) => Err(format!("half a byte: {text}")),
    }
}

/// What the spec calls an error, by the beginning of how the error shows itself in tests.
pub(crate) fn named<'a>(
    names: &'a [(&'a str, &'a str)],
) -> impl Fn(&dyn std::fmt::Debug) -> String + 'a {
    move |error| {
        let shown = format!("{error:?}");
        let kind = shown.split(" {").next().unwrap_or_default();
        let found = names.iter().find(|(own, _)| *own == kind);
        found.map_or(format!("without a name: {shown}"), |(_, name)| {
            (*name).to_owned()
        })
    }
}

/// What holds of every good case, whatever it says.
pub(crate) fn must(holds: bool, otherwise: &str) -> Result<(), String> {
    match holds {
        true => Ok(()),
        false => Err(otherwise.to_owned()),
    }
}
