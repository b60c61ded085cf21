use clap::Args;
use serde::Serialize;

use crate::context::Context;
use crate::error::CommandError;
use crate::ui::Ui;

/// Look for what is wrong or will be
///
/// Prints a line for each thing looked at, `ok` or `problem`. Problems do not change the exit
/// code; with `--json` each line says whether it is one.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast doctor
  sealcast doctor --json")]
pub(crate) struct DoctorArgs {}

#[derive(Serialize)]
struct Line {
    problem: bool,
    text: String,
    hint: Option<String>,
}

pub(crate) async fn run(ui: &Ui, context: &Context, _: &DoctorArgs) -> Result<(), CommandError> {
    let home = context.open().await?;
    let findings = home.doctor().await?;
    let problems = findings.iter().filter(|finding| finding.is_problem).count();
    for finding in findings {
        if ui.is_json() {
            ui.json(&Line {
                problem: finding.is_problem,
                text: finding.text,
                hint: finding.hint,
            })?;
            continue;
        }
        let mark = if finding.is_problem {
            "problem"
        } else {
            "ok     "
        };
        ui.data(format!("{mark}  {}", finding.text))?;
        if let Some(hint) = finding.hint {
            ui.data(format!("         hint: {hint}"))?;
        }
    }
    ui.flush()?;
    ui.talk(match problems {
        0 => "Nothing is wrong.".to_owned(),
        1 => "There is 1 problem.".to_owned(),
        _ => format!("There are {problems} problems."),
    });
    Ok(())
}
