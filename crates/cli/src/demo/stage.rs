use serde::Serialize;

use crate::error::{CommandError, Kind};
use crate::ui::Ui;

/// Longer lines of output are cut.
const OUTPUT_WIDTH: usize = 120;

/// Where the demo is told: narration, commands and what they printed, and claims.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    ui: &'a Ui,
    steps: u32,
    claims: u32,
    broken: u32,
}

#[derive(Serialize)]
struct ClaimLine<'a> {
    claim: &'a str,
    held: bool,
}

impl<'a> Stage<'a> {
    /// An empty stage.
    pub(super) fn new(ui: &'a Ui) -> Self {
        Self {
            ui,
            steps: 0,
            claims: 0,
            broken: 0,
        }
    }

    /// Begins the next step.
    pub(super) fn step(&mut self, title: &str) -> Result<(), CommandError> {
        self.steps += 1;
        let line = format!("{}. {title}", self.steps);
        self.print("")?;
        self.print(&self.ui.paint_data(&line, "1"))?;
        self.print("")
    }

    /// Says something.
    pub(super) fn say(&self, text: &str) -> Result<(), CommandError> {
        text.lines()
            .try_for_each(|line| self.print(&format!("   {line}")))
    }

    /// Shows a command before it runs.
    pub(super) fn command(&self, actor: &str, line: &str) -> Result<(), CommandError> {
        self.print(&format!("   {actor}$ {}", self.ui.paint_data(line, "1")))
    }

    /// Shows what a command printed, long lines cut, and without the hints.
    pub(super) fn output(&self, text: &str) -> Result<(), CommandError> {
        let told = text.lines().filter(|line| !line.starts_with("hint:"));
        for line in told {
            match line.char_indices().nth(OUTPUT_WIDTH) {
                Some((at, _)) => {
                    let cut = line.get(..at).unwrap_or(line);
                    self.print(&format!("     {cut}..."))?;
                }
                None => self.print(&format!("     {line}"))?,
            }
        }
        Ok(())
    }

    /// Says what is so, and checks it.
    pub(super) fn claim(&mut self, text: &str, held: bool) -> Result<(), CommandError> {
        self.claims += 1;
        self.broken += u32::from(!held);
        if self.ui.is_json() {
            self.ui.json(&ClaimLine { claim: text, held })?;
            return self.ui.flush();
        }
        let mark = match held {
            true => self.ui.paint_data("holds:", "1;32"),
            false => self.ui.paint_data("DOES NOT HOLD:", "1;31"),
        };
        self.ui.data(format!("   {mark} {text}"))?;
        self.ui.flush()
    }

    /// Fails when a claim did not hold.
    pub(super) fn finish(&self) -> Result<(), CommandError> {
        match self.broken {
            0 => Ok(()),
            broken => Err(CommandError::new(
                Kind::Internal,
                "demo.failed",
                format!("of {} claims this many did not hold: {broken}", self.claims),
            )),
        }
    }

    fn print(&self, line: &str) -> Result<(), CommandError> {
        if !self.ui.talks() {
            return Ok(());
        }
        self.ui.data(line.trim_end())?;
        self.ui.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_claim_that_does_not_hold_fails_the_demo() {
        let ui = Ui::new(true, true);
        let mut stage = Stage::new(&ui);
        stage.claim("water is wet", true).unwrap();
        assert!(stage.finish().is_ok());
        stage.claim("ice is hot", false).unwrap();
        assert_eq!(stage.finish().unwrap_err().kind().exit_code(), 1);
    }
}
