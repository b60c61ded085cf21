//! The demo: two people, one folder, a year of measurements and a grant given after the fact.
//!
//! Whoever acts is a process of its own, started from this program's own file, so that "the
//! publisher has ended" is true and every line shown is what a command really printed.

mod actor;
mod live;
mod scratch;
mod search;
mod stage;
mod story;
mod synthetic;

use crate::error::CommandError;
use crate::signals::asked_to_end;
use crate::ui::Ui;

use scratch::Scratch;
use stage::Stage;

/// Plays the demo; fails when something that it claims did not hold.
pub(crate) async fn run(ui: &Ui, keep: bool) -> Result<(), CommandError> {
    let scratch = Scratch::new(keep)?;
    let mut stage = Stage::new(ui);
    let played = tokio::select! {
        played = story::play(&mut stage, scratch.path()) => played,
        ended = asked_to_end() => ended,
    };
    if keep {
        stage.say(&format!(
            "The folders are left in: {}",
            scratch.path().display()
        ))?;
    }
    drop(scratch);
    played?;
    stage.finish()
}
