use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io};

use sealcast::Position;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::time::sleep;

use super::actor::{Actor, failed};
use super::live;
use super::search::Needles;
use super::stage::Stage;
use super::synthetic::{self, Measurement, PER_DAY, PER_YEAR};
use crate::error::CommandError;
use crate::time::{now, rfc3339};
use crate::ui::{count, thousands};

const STREAM: &str = "boiler-room";
/// The week that is granted begins this many days into the year.
const WEEK_BEGINS_DAY: usize = 200;
const WEEK: usize = 7 * PER_DAY;
const LIVE_SAMPLES: usize = 10;
const LIVE_PAUSE: Duration = Duration::from_millis(300);
const WELCOME: &str = "after the grant: Bob may read this one too";
const FAREWELL: &str = "after the revocation: Bob may not read this one";

const BY_HAND: &str = "\
Alice                                       Bob
  sealcast init                               sealcast init
  sealcast stream create boiler               sealcast id
  sealcast pub boiler -m '61.4 C'             sealcast join TICKET
  sealcast grant boiler BOB-ID --from -7d     sealcast read boiler
  sealcast who boiler                         sealcast sub boiler
  sealcast revoke boiler BOB-ID

On one machine, each takes a home of its own with `--home DIR`, and both a bus that both can
reach, with `sealcast init --bus file:DIR`. `sealcast --help` shows the rest.";

/// Everything that happens.
pub(super) async fn play(stage: &mut Stage<'_>, folder: &Path) -> Result<(), CommandError> {
    let began = Instant::now();
    let mut play = Play::new(folder)?;
    stage.say("sealcast: publish sealed, give the keys later.")?;
    let ticket = play.two_people(stage).await?;
    play.a_year(stage).await?;
    play.this_machine(stage).await?;
    play.bob_opens_nothing(stage, &ticket).await?;
    play.alice_grants_a_week(stage).await?;
    play.bob_reads_the_week(stage).await?;
    play.alice_revokes(stage).await?;
    play.the_folder_tells_nothing(stage)?;
    let seconds = began.elapsed().as_secs().max(1);
    stage.say(&format!("\nAll of this took {seconds} seconds."))?;
    stage.step("By hand")?;
    stage.say(BY_HAND)
}

struct Play<'f> {
    folder: &'f Path,
    alice: Actor,
    bob: Actor,
    year: Vec<Measurement>,
    /// Every other text that was published.
    texts: Vec<String>,
}

impl<'f> Play<'f> {
    fn new(folder: &'f Path) -> Result<Self, CommandError> {
        Ok(Self {
            folder,
            alice: Actor::new("alice", folder)?,
            bob: Actor::new("bob", folder)?,
            year: synthetic::year(now()),
            texts: Vec::new(),
        })
    }

    async fn two_people(&self, stage: &mut Stage<'_>) -> Result<String, CommandError> {
        stage.step("Two people and a folder")?;
        stage.say(
            "Alice and Bob have a home each. All that they share is a folder, the bus. Whoever\n\
             can look into it sees every byte that goes over it.\n\n",
        )?;
        let bus = &["--bus", "file:bus", "--no-passphrase"][..];
        self.alice
            .does(stage, &[&["init", "--name", "alice"], bus].concat())
            .await?;
        let made = self
            .alice
            .does(stage, &["stream", "create", STREAM])
            .await?;
        self.bob
            .does(stage, &[&["init", "--name", "bob"], bus].concat())
            .await?;
        Ok(made.data.trim().to_owned())
    }

    async fn a_year(&self, stage: &mut Stage<'_>) -> Result<(), CommandError> {
        stage.step("A year of measurements")?;
        let (first, last) = (self.year.first(), self.year.last());
        let date = |one: Option<&Measurement>| one.map_or(String::new(), |one| day(one.time));
        stage.say(&format!(
            "Alice brings in {}, one every ten minutes from {} to {}.\n\
             They are synthetic: a generator with a fixed seed made them. Each is sealed at its\n\
             own time in the past.\n\n",
            count(self.year.len() as u64, "measurement"),
            date(first),
            date(last)
        ))?;
        let lines = synthetic::lines(&self.year);
        let mut shown: Vec<&str> = lines.lines().take(2).collect();
        shown.push("...");
        shown.extend(lines.lines().last());
        stage.output(&shown.join("\n"))?;
        fs::write(self.folder.join("year.tsv"), &lines).map_err(io_failed)?;
        let args = ["pub", STREAM, "-l", "--backfill"];
        self.alice.does_with(stage, &args, "year.tsv").await?;
        Ok(())
    }

    async fn this_machine(&mut self, stage: &mut Stage<'_>) -> Result<(), CommandError> {
        stage.step("This machine, live")?;
        stage
            .say("Now real ones: this machine's load, memory and network, as they are read.\n\n")?;
        let mut publisher = self.alice.starts(stage, &["pub", STREAM, "-l"])?;
        let pid = publisher.id().unwrap_or_default();
        let mut input = publisher
            .stdin
            .take()
            .ok_or_else(|| failed("no way to write lines"))?;
        for _ in 0..LIVE_SAMPLES {
            let line = live::sample();
            stage.output(&line)?;
            input
                .write_all(format!("{line}\n").as_bytes())
                .await
                .map_err(io_failed)?;
            self.texts.push(line);
            sleep(LIVE_PAUSE).await;
        }
        drop(input);
        let ended = publisher.wait_with_output().await.map_err(io_failed)?;
        stage.output(&String::from_utf8_lossy(&ended.stderr))?;
        stage.claim(
            &format!("the publisher, process {pid}, has published its lines and ended"),
            ended.status.success(),
        )
    }

    async fn bob_opens_nothing(
        &self,
        stage: &mut Stage<'_>,
        ticket: &str,
    ) -> Result<(), CommandError> {
        stage.step("Bob joins, and can read none of it")?;
        self.bob.does(stage, &["join", ticket]).await?;
        let read = self.bob.tries(stage, &["read", STREAM]).await?;
        let published = (self.year.len() + self.texts.len()) as u64;
        stage.claim(
            &format!(
                "of {} on the bus Bob opened {}",
                count(published, "message"),
                read.data.lines().count()
            ),
            read.data.is_empty() && read.exit_code == 3,
        )
    }

    async fn alice_grants_a_week(&self, stage: &mut Stage<'_>) -> Result<(), CommandError> {
        stage.step("Alice grants a week of the past")?;
        stage.say(
            "No publisher is running any more. Nothing is encrypted again, and nothing that was\n\
             published is touched: Alice seals keys of that week for Bob's device.\n\n",
        )?;
        let bob = self.bob.does(stage, &["id"]).await?;
        self.alice
            .does(stage, &["contact", "add", "bob", bob.data.trim()])
            .await?;
        let (from, until) = self.week();
        let args = ["grant", STREAM, "bob", "--from", &from, "--until", &until];
        self.alice.does(stage, &args).await?;
        stage.say(&format!(
            "That is all that {} need to open.",
            count(WEEK as u64, "message")
        ))
    }

    async fn bob_reads_the_week(&self, stage: &mut Stage<'_>) -> Result<(), CommandError> {
        stage.step("Bob reads that week, and nothing else")?;
        let read = self.bob.tries(stage, &["read", STREAM]).await?;
        let lines: Vec<&str> = read.data.lines().collect();
        if let (Some(first), Some(last)) = (lines.first(), lines.last()) {
            stage.output(&format!("{first}\n...\n{last}"))?;
        }
        let week = self.bob_reads_again_the_week().await?;
        let granted = self.granted();
        if let (Some((first, _)), Some((last, _))) = (week.opened.first(), week.opened.last()) {
            stage.say(&format!("The first is of {first}, the last of {last}."))?;
        }
        stage.claim(
            &format!(
                "Bob opened exactly the {} of that week, and nothing else",
                count(WEEK as u64, "measurement")
            ),
            lines.iter().eq(granted.iter().map(|(_, text)| text))
                && read.exit_code == 3
                && week.opened == granted
                && week.sealed == 0,
        )
    }

    async fn alice_revokes(&mut self, stage: &mut Stage<'_>) -> Result<(), CommandError> {
        stage.step("Alice lets Bob follow, then takes it back")?;
        let lately = ["read", STREAM, "--from", "-10m"];
        self.alice
            .does(stage, &["grant", STREAM, "bob", "--from", "now"])
            .await?;
        self.alice
            .does(stage, &["pub", STREAM, "-m", WELCOME])
            .await?;
        self.texts.push(WELCOME.to_owned());
        let read = self.bob.tries(stage, &lately).await?;
        stage.output(&read.data)?;
        let before = self.bob_reads(&lately).await?;
        stage.claim(
            "Bob opened the new message",
            read.data.trim_end() == WELCOME,
        )?;

        self.alice.does(stage, &["revoke", STREAM, "bob"]).await?;
        self.alice
            .does(stage, &["pub", STREAM, "-m", FAREWELL])
            .await?;
        self.texts.push(FAREWELL.to_owned());
        let read = self.bob.tries(stage, &lately).await?;
        stage.output(&read.data)?;
        let after = self.bob_reads(&lately).await?;
        stage.claim(
            "Bob cannot open what came after",
            after.opened == before.opened && after.sealed == before.sealed + 1,
        )?;
        let week = self.bob_reads_again_the_week().await?;
        stage.claim(
            "the week that Bob was given still opens",
            week.opened == self.granted(),
        )?;
        self.alice.does(stage, &["who", STREAM]).await?;
        Ok(())
    }

    fn the_folder_tells_nothing(&self, stage: &mut Stage<'_>) -> Result<(), CommandError> {
        stage.step("What the folder tells")?;
        let published = self.year.iter().map(|one| &one.text).chain(&self.texts);
        let texts: Vec<&str> = published
            .map(String::as_str)
            .chain([STREAM, "alice"])
            .collect();
        let needles = Needles::new(texts.iter().copied());
        let searched = needles
            .search(&self.folder.join("bus"))
            .map_err(io_failed)?;
        stage.claim(
            &format!(
                "searched {} of the bus for all {} texts and names: found {}",
                count(searched.bytes, "byte"),
                thousands(texts.len() as u64),
                searched.found
            ),
            searched.found == 0 && searched.bytes > 0,
        )?;
        let plain = self.folder.join("plain");
        fs::create_dir(&plain).map_err(io_failed)?;
        fs::write(plain.join("texts"), texts.join("\n")).map_err(io_failed)?;
        let control = needles.search(&plain).map_err(io_failed)?;
        stage.claim(
            &format!(
                "the same search in a plain copy finds {}",
                thousands(control.found)
            ),
            control.found == texts.len() as u64,
        )
    }

    async fn bob_reads_again_the_week(&self) -> Result<Reading, CommandError> {
        let (from, until) = self.week();
        self.bob_reads(&["read", STREAM, "--from", &from, "--until", &until])
            .await
    }

    /// What a reading of Bob's comes to, as a program sees it.
    async fn bob_reads(&self, args: &[&str]) -> Result<Reading, CommandError> {
        let quiet = self.bob.runs_quietly(&[args, &["--json"]].concat()).await?;
        let mut reading = Reading::default();
        for line in quiet.data.lines() {
            let line: Value = serde_json::from_str(line).map_err(|e| failed(e.to_string()))?;
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            match line["state"].as_str() {
                Some("opened") => reading.opened.push((text("time"), text("text"))),
                Some("sealed") => reading.sealed += 1,
                _ => return Err(failed(format!("Bob was told something else: {line}"))),
            }
        }
        Ok(reading)
    }

    /// What Bob was granted of the year: time and text.
    fn granted(&self) -> Vec<(String, String)> {
        let week = self.year.iter().skip(WEEK_BEGINS_DAY * PER_DAY).take(WEEK);
        week.map(|one| (rfc3339(one.time), one.text.clone()))
            .collect()
    }

    /// The dates between which the week lies.
    fn week(&self) -> (String, String) {
        let date = |days: usize| {
            let at = (days * PER_DAY).min(PER_YEAR - 1);
            self.year.get(at).map_or(String::new(), |one| day(one.time))
        };
        (date(WEEK_BEGINS_DAY), date(WEEK_BEGINS_DAY + 7))
    }
}

/// What a reader was told.
#[derive(Debug, Default)]
struct Reading {
    /// Time and text of what opened.
    opened: Vec<(String, String)>,
    sealed: u64,
}

/// The date of a position.
fn day(position: Position) -> String {
    rfc3339(position)
        .split('T')
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn io_failed(error: io::Error) -> CommandError {
    failed(error.to_string())
}
