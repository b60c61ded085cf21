//! What must hold when the kills have stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use sealcast_crash::Sent;

use super::agents;
use super::commands::grant_piece;
use super::ledger::{MARK, Record, record};
use super::process::{Fate, PATIENCE, Running};
use super::world::{Step, World, field, now_ms};
use crate::rig::Person;

type Checked = Result<(), String>;

const LOOK: Duration = Duration::from_millis(200);
/// Who of those who follow does so live, and lets everything wait.
const LEE: usize = 3;

/// Where a record lies.
#[derive(Clone, Debug)]
struct Place {
    session: Vec<u8>,
    position: u64,
    device: String,
    seq: u64,
}

/// What is on the bus: every record in its order, and where each lies.
struct Whole {
    order: Vec<Record>,
    places: BTreeMap<Record, Place>,
}

fn holds(is_so: bool, says: impl FnOnce() -> String) -> Checked {
    match is_so {
        true => Ok(()),
        false => Err(says()),
    }
}

/// Looks again and again until something holds.
fn eventually(what: &str, mut look: impl FnMut() -> Checked) -> Checked {
    let since = Instant::now();
    loop {
        match look() {
            Ok(()) => return Ok(()),
            Err(why) if since.elapsed() > PATIENCE => {
                return Err(format!("{what}: not within {PATIENCE:?}: {why}"));
            }
            Err(_) => thread::sleep(LOOK),
        }
    }
}

/// Looks at everything, when nothing dies any more.
pub(super) fn settle(world: &World) -> Checked {
    let homes = [&world.alice, &world.phone, &world.lee];
    let agents = agents::start_all(world, homes)?;
    // Whatever died before it had sent its entry has it sent now.
    for (_, person) in world.people() {
        world.done(person, &["who", "s"])?;
    }
    world.done(&world.alice, &["grant", "s", "lee", "--from", "start"])?;
    let piece = (now_ms() - 20_000, now_ms() - 5_000);
    grant_piece(world, &world.phone, piece, Fate::Lives)?;
    let whole = read_whole(world)?;
    world.note(&format!("{} records are on the bus", whole.order.len()));
    everyone_reads_all(world, &whole)?;
    nobody_else_reads(world, &whole, piece)?;
    followers_have_all(world, &whole)?;
    in_order(world, &whole)?;
    grants_are_there(world)?;
    homes_are_well(world)?;
    bus_is_well(world)?;
    world.settled();
    ended_well(world, agents)
}

fn ended_well(world: &World, agents: Vec<Running>) -> Checked {
    for agent in agents {
        let what = agent.what.clone();
        let ended = agent.meet(world, Fate::Told(Duration::ZERO))?;
        holds(ended.code == Some(0), || {
            format!("{what}: {:?}: {}", ended.code, ended.said)
        })?;
    }
    Ok(())
}

/// Reads the bus as alice does, and finds where each record lies.
fn read_whole(world: &World) -> Result<Whole, String> {
    let lines = world.done(&world.alice, &["read", "s", "--json"])?;
    let mut opened = Vec::new();
    for line in lines {
        match field(&line, "state").as_deref() {
            Some("opened") => opened.push(of_line(&line)?),
            Some("gap" | "branch") => {}
            _ => return Err(format!("alice reads: {line}")),
        }
    }
    let mut whole = Whole {
        order: Vec::new(),
        places: BTreeMap::new(),
    };
    let mut opened = opened.into_iter().peekable();
    for item in world.rig.items(&world.alice.data_topic(), 0) {
        let place = place_of(&item);
        let mut tag = None;
        let is_in = |(record, device, seq): &(Record, String, u64), tag: &Option<String>| {
            let is_of_run = tag.as_ref().is_none_or(|tag| *tag == record.0);
            *device == place.device && *seq == place.seq && is_of_run
        };
        while let Some((record, _, _)) = opened.next_if(|of| is_in(of, &tag)) {
            tag = Some(record.0.clone());
            let is_twice = whole.places.insert(record.clone(), place.clone()).is_some();
            holds(!is_twice, || format!("published twice: {record:?}"))?;
            whole.order.push(record);
        }
        holds(tag.is_some(), || format!("nothing opens at {place:?}"))?;
    }
    holds(opened.next().is_none(), || {
        "more opens than there is".to_owned()
    })?;
    Ok(whole)
}

fn of_line(line: &str) -> Result<(Record, String, u64), String> {
    let record = record(&field(line, "text").unwrap_or_default())?;
    let device = field(line, "device").unwrap_or_default();
    let value: serde_json::Value = serde_json::from_str(line).map_err(|_| "no JSON".to_owned())?;
    Ok((record, device, value["seq"].as_u64().unwrap_or_default()))
}

/// Reads the header of an envelope.
fn place_of(envelope: &[u8]) -> Place {
    let number = |range: std::ops::Range<usize>| {
        envelope[range]
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    };
    Place {
        session: envelope[4..20].to_vec(),
        position: number(20..28),
        device: envelope[28..44]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        seq: number(52..56),
    }
}

/// What a command opens, in order.
fn opened(world: &World, person: &Person, args: &[&str]) -> Result<Vec<Record>, String> {
    let ended = world.command(person, args, &[0, 3], Fate::Lives)?;
    let mut records = Vec::new();
    for line in &ended.lines {
        let state = field(line, "state").unwrap_or_default();
        let is_bad = matches!(state.as_str(), "rejected" | "fork" | "replay");
        holds(!is_bad, || format!("{args:?}: {line}"))?;
        records.extend(field(line, "text").map(|text| record(&text)).transpose()?);
    }
    Ok(records)
}

/// Whoever may read all reads exactly what was acknowledged and, of what was not, no more than the
/// beginning; all read the same, in the same order, from the bus and through their agents.
fn everyone_reads_all(world: &World, whole: &Whole) -> Checked {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for (tag, number) in &whole.order {
        let next = counts.entry(tag).or_default();
        holds(number == next, || {
            format!("{tag} {number} stands where {next} belongs")
        })?;
        *next += 1;
    }
    for (tag, run) in &world.ledger().0 {
        let there = counts.get(tag.as_str()).copied().unwrap_or_default();
        let is_whole = (run.stored..=run.written).contains(&there);
        holds(is_whole, || {
            format!("{tag}: {there} lines are there of {run:?}")
        })?;
    }
    let count = whole.order.len().max(1).to_string();
    for person in [&world.alice, &world.phone, &world.bob, &world.lee] {
        let name = person.home().display();
        for args in [
            &["read", "s", "--json"][..],
            &["sub", "s", "--json", "--from", "start", "--count", &count],
        ] {
            let compare = || {
                let mut found = opened(world, person, args)?;
                let is_read = args[0] == "read";
                if !is_read {
                    found.sort_unstable();
                }
                let sorted = whole.places.keys();
                let is_same = match is_read {
                    true => found == whole.order,
                    false => sorted.eq(&found),
                };
                holds(is_same, || difference(&found, whole))
            };
            // The last keys may be on their way.
            eventually(&format!("{name}: {args:?}"), compare)?;
        }
    }
    Ok(())
}

fn difference(found: &[Record], whole: &Whole) -> String {
    let there: BTreeSet<_> = found.iter().collect();
    let lacks = whole.places.keys().filter(|of| !there.contains(of));
    let lacks: Vec<_> = lacks.take(5).map(|of| (of, &whole.places[of])).collect();
    format!(
        "{} of {} opened; not: {lacks:?}",
        found.len(),
        whole.order.len()
    )
}

/// Eve opens what was granted and not taken back before it was sealed, all of her last piece, and
/// nothing else; mal opens nothing.
fn nobody_else_reads(world: &World, whole: &Whole, piece: (u64, u64)) -> Checked {
    let read = ["read", "s", "--json"];
    let in_piece = |place: &Place| (piece.0..piece.1).contains(&place.position);
    let due: Vec<_> = whole
        .places
        .iter()
        .filter(|(_, place)| in_piece(place))
        .collect();
    eventually("eve reads what she was granted", || {
        let opened: BTreeSet<_> = opened(world, &world.eve, &read)?.into_iter().collect();
        world.opened_by_eve().extend(opened.iter().cloned());
        let lacks = due.iter().find(|(record, _)| !opened.contains(record));
        holds(lacks.is_none(), || format!("{lacks:?} of {}", due.len()))
    })?;
    for record in &*world.opened_by_eve() {
        let position = whole.places[record].position;
        let revoked_at = world.ledger().0[&record.0].revoked_at;
        let steps = world.steps();
        let later = steps.iter().skip(revoked_at.map_or(0, |at| at + 1));
        let mut grants = later.filter_map(|(step, _)| match step {
            Step::Grant(from, until) => Some(*from..*until),
            Step::Revoke => None,
        });
        let is_granted = grants.any(|of| of.contains(&position));
        holds(is_granted, || {
            format!("eve opened {record:?} at {position}, after step {revoked_at:?} of {steps:?}")
        })?;
    }
    let stolen = opened(world, &world.mal, &read)?;
    holds(stolen.is_empty(), || format!("mal opened {stolen:?}"))
}

/// Those who follow come to have everything that was acknowledged; lee, who follows what comes, all
/// that was said to wait.
fn followers_have_all(world: &World, whole: &Whole) -> Checked {
    for (at, name) in ["alice", "phone", "bob"].into_iter().enumerate() {
        eventually(&format!("{name} follows"), || {
            let missing = world.heard[at].lock().unwrap().missing(&world.ledger());
            holds(missing.is_empty(), || {
                format!("{} are missing: {:?}", missing.len(), missing.first())
            })
        })?;
    }
    eventually("lee is told what waits", || {
        let heard = world.heard[LEE].lock().unwrap();
        let lacks = whole.places.iter().find(|(record, place)| {
            let key = (
                place.device.clone(),
                place.seq,
                super::world::time_text(place.position),
            );
            let was_told = heard
                .seen
                .get(&record.0)
                .is_some_and(|of| of.contains(&record.1));
            heard.waits.contains(&key) && !was_told
        });
        holds(lacks.is_none(), || format!("{lacks:?}"))
    })
}

/// Within each run of one who follows, what a program published comes in its order; what had waited
/// comes in order within its session, where no other program of the home followed meanwhile.
fn in_order(world: &World, whole: &Whole) -> Checked {
    for (who, heard) in world.heard.iter().enumerate() {
        for run in &heard.lock().unwrap().runs {
            let mut last: BTreeMap<(&str, &[u8]), u64> = BTreeMap::new();
            for (at, ((tag, number), waited)) in run.iter().enumerate() {
                if *waited && who != LEE {
                    continue;
                }
                let record = (tag.clone(), *number);
                let place = whole.places.get(&record);
                let place = place.ok_or_else(|| format!("{record:?} is not on the bus"))?;
                let of = match waited {
                    true => &place.session[..],
                    false => &[],
                };
                let before = last.insert((tag, of), *number);
                holds(before.is_none_or(|before| before < *number), || {
                    let first = run.iter().position(|(of, _)| *of == record);
                    let around = &run[at.saturating_sub(30)..(at + 10).min(run.len())];
                    format!(
                        "{who}: {record:?} came at {at}, {waited}, first at {first:?}: {around:?}"
                    )
                })?;
            }
        }
    }
    Ok(())
}

fn grants_are_there(world: &World) -> Checked {
    let lines = world.done(&world.phone, &["who", "s", "--json"])?;
    let shown: BTreeSet<_> = lines
        .iter()
        .filter(|line| field(line, "state").as_deref() != Some("revoked"))
        .filter_map(|line| field(line, "grant"))
        .collect();
    let lost: Vec<_> = world.grants().difference(&shown).cloned().collect();
    holds(lost.is_empty(), || format!("grants are lost: {lost:?}"))
}

/// Homes open and nothing is wrong in them; agents answer; nothing waits where all may be read; no
/// file is there that does not belong there.
fn homes_are_well(world: &World) -> Checked {
    for (name, person) in world.people() {
        eventually(&format!("{name} is well"), || {
            let lines = world.done(person, &["doctor", "--json"])?;
            let is_bad = |line: &&String| {
                line.contains("\"problem\":true") && !line.contains("in this home alone")
            };
            let waits = lines.iter().find(|line| line.contains("wait"));
            let may_wait = ["pat", "eve", "mal"].contains(&name);
            holds(may_wait || waits.is_none(), || format!("{waits:?}"))?;
            let bad: Vec<_> = lines.iter().filter(is_bad).collect();
            holds(bad.is_empty(), || format!("{bad:?}"))
        })?;
        let strange = strange_files(person.home())?;
        holds(strange.is_empty(), || {
            format!("{name}: strange files: {strange:?}")
        })?;
    }
    for person in [&world.alice, &world.phone, &world.lee] {
        world.done(person, &["agent", "status"])?;
    }
    let devices = world.done(&world.phone, &["device", "list", "--json"])?;
    let live = devices
        .iter()
        .filter(|line| field(line, "state").as_deref() == Some("live"));
    holds(live.count() == 2, || format!("{devices:?}"))
}

/// Files of a home that no home has.
fn strange_files(home: &Path) -> Result<Vec<String>, String> {
    let known = [
        "agent.lock",
        "agent.sock",
        "config.toml",
        "store.key",
        "store.db",
        "store.db-shm",
        "store.db-wal",
    ];
    let entries = fs::read_dir(home).map_err(|error| error.to_string())?;
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    Ok(names
        .filter(|name| !known.contains(&name.as_str()))
        .collect())
}

/// No message key was used twice, nothing is in clear anywhere, and the archive has it all.
fn bus_is_well(world: &World) -> Checked {
    let topic = world.alice.data_topic();
    let items = world.rig.items(&topic, 0);
    let mut sent = Sent::default();
    sent.extend(&topic, &items);
    holds(sent.reused().is_empty(), || format!("{:?}", sent.reused()))?;
    eventually("the archive is whole", || {
        let kept = kept_items(&world.folder("archive/bus.db"), &topic)?;
        let lacks = items.iter().filter(|item| !kept.contains(*item)).count();
        holds(lacks == 0, || {
            format!("it lacks {lacks} of {}", items.len())
        })
    })?;
    for entry in fs::read_dir(world.rig.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            in_clear(&path)?;
        }
    }
    Ok(())
}

fn kept_items(path: &Path, topic: &str) -> Result<BTreeSet<Vec<u8>>, String> {
    let read = || -> rusqlite::Result<BTreeSet<Vec<u8>>> {
        let bus = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let mut select = bus
            .prepare("SELECT payload FROM item, topic WHERE name = ?1 AND key >> 40 = topic.id")?;
        let rows = select.query_map([topic], |row| row.get(0))?;
        rows.collect()
    };
    read().map_err(|error| error.to_string())
}

/// Fails where a file below a folder holds a text that was published.
fn in_clear(folder: &Path) -> Checked {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            in_clear(&path)?;
        } else if path.is_file() {
            let bytes = fs::read(&path).map_err(|error| error.to_string())?;
            let is_there = memchr::memmem::find(&bytes, MARK.as_bytes()).is_some();
            holds(!is_there, || format!("in clear: {}", path.display()))?;
        }
    }
    Ok(())
}
