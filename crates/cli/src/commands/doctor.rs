use clap::Args;
use sealcast::Finding;
use serde::Serialize;

use crate::agent;
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

/// Whether an agent runs, and is well.
async fn examine_agent(context: &Context) -> Finding {
    let (is_problem, text, hint) = match agent::status(context).await {
        Ok(None) => {
            let says = "no agent runs: keys are handed out while other commands run";
            (false, says.to_owned(), None)
        }
        Ok(Some(status)) if status.problems.is_empty() => (
            false,
            format!("an agent runs: process {}", status.process),
            None,
        ),
        Ok(Some(status)) => {
            let says = format!("the agent is not well: {}", status.problems.join("; "));
            (
                true,
                says,
                Some("`sealcast agent status` says more".to_owned()),
            )
        }
        Err(error) => {
            let hint = error.hint().map(str::to_owned);
            (true, error.message().to_owned(), hint)
        }
    };
    Finding {
        is_problem,
        text,
        hint,
    }
}

pub(crate) async fn run(ui: &Ui, context: &Context, _: &DoctorArgs) -> Result<(), CommandError> {
    let home = context.open().await?;
    let mut findings = home.doctor().await?;
    findings.push(examine_agent(context).await);
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
