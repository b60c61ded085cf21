//! Numbered lines of which each depends on all before it. What checks them knows no more than this.

use anyhow::ensure;

/// Bytes of a line, its newline left out.
pub(super) const LINE: usize = 64;
/// The parameters of FNV-1a with 64 bits.
const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// Makes the lines, one after the other.
pub(super) struct Chain {
    number: u64,
    sum: u64,
}

impl Chain {
    pub(super) fn new() -> Self {
        Self {
            number: 0,
            sum: BASIS,
        }
    }

    /// How many lines there were.
    pub(super) fn count(&self) -> u64 {
        self.number
    }

    /// The next line, without its newline.
    pub(super) fn next(&mut self) -> String {
        for byte in self.number.to_le_bytes() {
            self.sum = (self.sum ^ u64::from(byte)).wrapping_mul(PRIME);
        }
        let line = format!("{:016} {:016x}", self.number, self.sum);
        self.number += 1;
        format!("{line:.<LINE$}")
    }

    /// A line that is none of the others, and comes behind the last of them.
    pub(super) fn end() -> String {
        format!("{:.<LINE$}", "end")
    }

    /// Checks that a line is the next one: none is missing, none came twice, none is altered.
    pub(super) fn check(&mut self, line: &[u8]) -> anyhow::Result<()> {
        let number = self.number;
        let expected = self.next();
        ensure!(
            line == expected.as_bytes(),
            "line {number} is another: {}",
            String::from_utf8_lossy(line)
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_missing_altered_or_comes_twice_is_noticed() {
        let mut made = Chain::new();
        let lines = [made.next(), made.next(), made.next()];
        let check = |order: &[&String]| {
            let mut chain = Chain::new();
            order
                .iter()
                .try_for_each(|line| chain.check(line.as_bytes()))
        };
        let [one, two, three] = &lines;
        assert!(check(&[one, two, three]).is_ok());
        assert!(check(&[one, three]).is_err());
        assert!(check(&[one, one]).is_err());
        assert!(check(&[two]).is_err());
        assert!(check(&[&Chain::end()]).is_err());
        let altered = three.replace('.', ":");
        assert!(check(&[one, two, &altered]).is_err());
    }
}
