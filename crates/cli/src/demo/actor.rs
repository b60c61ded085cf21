use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, Command};

use super::stage::Stage;
use crate::error::{CommandError, Kind};

/// Somebody with a home of their own, who runs commands.
#[derive(Debug)]
pub(super) struct Actor {
    name: &'static str,
    program: PathBuf,
    /// The folder that commands run in; the home is below it.
    folder: PathBuf,
}

/// What a command came to.
#[derive(Debug)]
pub(super) struct Ran {
    /// The exit code; −1 when it was ended from outside.
    pub(super) exit_code: i32,
    /// What it printed as data.
    pub(super) data: String,
    /// What it said.
    pub(super) talk: String,
}

impl Actor {
    /// Somebody whose home is below a folder.
    pub(super) fn new(name: &'static str, folder: &Path) -> Result<Self, CommandError> {
        let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            name,
            program,
            folder: folder.to_owned(),
        })
    }

    /// Runs a command, shows it and all that it printed, and insists that it was done.
    pub(super) async fn does(&self, stage: &Stage<'_>, args: &[&str]) -> Result<Ran, CommandError> {
        stage.command(self.name, &line(args))?;
        let ran = self.runs(args, None).await?;
        stage.output(&ran.data)?;
        stage.output(&ran.talk)?;
        self.insist(args, ran)
    }

    /// Runs a command whose standard input is a file, and insists that it was done.
    pub(super) async fn does_with(
        &self,
        stage: &Stage<'_>,
        args: &[&str],
        file_name: &str,
    ) -> Result<Ran, CommandError> {
        stage.command(self.name, &format!("{} < {file_name}", line(args)))?;
        let ran = self.runs(args, Some(file_name)).await?;
        stage.output(&ran.talk)?;
        self.insist(args, ran)
    }

    /// Shows and runs a command, whatever it comes to; shows what it said, and its exit code.
    pub(super) async fn tries(
        &self,
        stage: &Stage<'_>,
        args: &[&str],
    ) -> Result<Ran, CommandError> {
        stage.command(self.name, &line(args))?;
        let ran = self.runs(args, None).await?;
        stage.output(&ran.talk)?;
        stage.output(&format!("(exit code {})", ran.exit_code))?;
        Ok(ran)
    }

    /// Runs a command without showing it.
    pub(super) async fn runs_quietly(&self, args: &[&str]) -> Result<Ran, CommandError> {
        self.runs(args, None).await
    }

    /// Starts a command that takes lines as they come.
    pub(super) fn starts(&self, stage: &Stage<'_>, args: &[&str]) -> Result<Child, CommandError> {
        stage.command(self.name, &line(args))?;
        let mut command = self.command(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().map_err(|error| failed(error.to_string()))
    }

    async fn runs(&self, args: &[&str], input: Option<&str>) -> Result<Ran, CommandError> {
        let mut command = self.command(args);
        match input {
            None => command.stdin(Stdio::null()),
            Some(name) => {
                let path = self.folder.join(name);
                let file = File::open(&path).map_err(|error| CommandError::file(&path, &error))?;
                command.stdin(file)
            }
        };
        let output = command
            .output()
            .await
            .map_err(|error| failed(error.to_string()))?;
        Ok(Ran {
            exit_code: output.status.code().unwrap_or(-1),
            data: String::from_utf8_lossy(&output.stdout).into_owned(),
            talk: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .current_dir(&self.folder)
            .env("SEALCAST_HOME", self.folder.join(self.name))
            .env_remove("SEALCAST_PASSPHRASE_FILE")
            .kill_on_drop(true);
        command
    }

    fn insist(&self, args: &[&str], ran: Ran) -> Result<Ran, CommandError> {
        match ran.exit_code {
            0 => Ok(ran),
            code => Err(failed(format!(
                "`{}` of {} ended with exit code {code}: {}",
                line(args),
                self.name,
                ran.talk.trim()
            ))),
        }
    }
}

/// The demo cannot go on.
pub(super) fn failed(says: impl Into<String>) -> CommandError {
    CommandError::new(Kind::Internal, "demo.failed", says)
}

/// A command as it would be typed.
fn line(args: &[&str]) -> String {
    let mut line = "sealcast".to_owned();
    for arg in args {
        line.push(' ');
        let text = match arg.len() {
            0..60 => (*arg).to_owned(),
            _ => format!("{}...", arg.chars().take(24).collect::<String>()),
        };
        match arg.contains(' ') {
            true => line.push_str(&format!("'{text}'")),
            false => line.push_str(&text),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_they_would_be_typed() {
        assert_eq!(
            line(&["pub", "boiler", "-m", "too hot"]),
            "sealcast pub boiler -m 'too hot'"
        );
        let ticket = "sealcast1:".to_owned() + &"x".repeat(100);
        assert_eq!(
            line(&["join", &ticket]),
            "sealcast join sealcast1:xxxxxxxxxxxxxx..."
        );
    }
}
