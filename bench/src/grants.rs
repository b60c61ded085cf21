//! Giving keys: what a grant weighs and costs, whatever was published.

use std::hint::black_box;
use std::time::Duration;

use anyhow::Context as _;
use getrandom::SysRng;
use rand_core::{Rng as _, UnwrapErr};
use sealcast::{Bound, Clock};
use sealcast_crypto::{Cover, SessionRoot, SigningKey, UnwrapKey, cover};
use sealcast_protocol::{
    Bundle, BundleContext, CoverSpec, DeviceId, Interval, KeyUse, LogHash, Position, SessionId,
    StreamId, Unverified, UserId, open_bundle, seal_bundle, sign, wrap_key_hash,
};

use crate::clock::timed;
use crate::contest::{Contest, Spread};
use crate::floors::Floors;
use crate::lane::{START, root};
use crate::megolm::Givers;
use crate::report::Page;
use crate::scale::Scale;
use crate::stage::{Stage, stopwatch};

const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;
const MINUTE_MS: u64 = 60 * 1000;
/// Intervals of one kind, so that no lucky one decides.
const INTERVALS: usize = 64;

fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

/// Intervals of about a year that begin at a random time.
fn years(step_ms: u64, is_open: bool) -> Vec<Interval> {
    let number = || rng().next_u64();
    let one = || {
        let from = START.after(number() % YEAR_MS / step_ms * step_ms);
        let until = from.after((YEAR_MS + number() % YEAR_MS) / step_ms * step_ms);
        let until = if is_open { Position::END } else { until };
        let round = |position: Position| Position(position.0 / step_ms * step_ms);
        Interval {
            from: round(from),
            until: round(until),
        }
    };
    (0..INTERVALS).map(|_| one()).collect()
}

/// Both sides of a grant to one device, for one session.
struct Exchange {
    root: SessionRoot,
    giver: SigningKey,
    taker: UnwrapKey,
    intervals: Vec<Interval>,
}

impl Exchange {
    fn new(intervals: Vec<Interval>) -> Self {
        Self {
            root: root(),
            giver: SigningKey::from_seed(&[3; 32]),
            taker: UnwrapKey::from_seed(&[4; 32]),
            intervals,
        }
    }

    /// Cuts the cover, wraps and signs it.
    fn give(&self, number: usize) -> anyhow::Result<Vec<u8>> {
        let interval = self.intervals[number % self.intervals.len()];
        let cut = Cover::from_root(&self.root, interval.from.0, interval.until.0);
        let to = self.taker.wrap_key();
        let context = BundleContext {
            stream: StreamId([1; 32]),
            lane: UserId([2; 32]),
            giver_user: UserId([2; 32]),
            giver_device: DeviceId([5; 16]),
            user: UserId([6; 32]),
            device: DeviceId([7; 16]),
            key: KeyUse::LongLived,
            wrap_key_hash: wrap_key_hash(&to),
            heads: vec![LogHash([8; 32])],
            request: [0; 16],
            covers: vec![CoverSpec {
                session: SessionId([4; 16]),
                interval,
            }],
        };
        let bundle = seal_bundle(&mut rng(), context, &[&cut], &to)?;
        Ok(sign(&self.giver, bundle)?.wire().to_vec())
    }

    /// Verifies and opens it.
    fn take(&self, bytes: &[u8]) -> anyhow::Result<Vec<(SessionId, Cover)>> {
        let bundle = Unverified::<Bundle>::decode(bytes)?.verify(&self.giver.verifying_key())?;
        Ok(open_bundle(bundle.body(), &self.taker)?)
    }

    fn give_many(&self, count: usize) -> anyhow::Result<Duration> {
        timed(|| {
            for number in 0..count {
                black_box(self.give(number)?);
            }
            Ok(())
        })
    }

    fn take_many(&self, count: usize) -> anyhow::Result<Duration> {
        let bundles = (0..self.intervals.len().min(count)).map(|number| self.give(number));
        let bundles: Vec<_> = bundles.collect::<Result<_, _>>()?;
        timed(|| {
            for number in 0..count {
                black_box(self.take(&bundles[number % bundles.len()])?);
            }
            Ok(())
        })
    }

    fn nodes(&self) -> Spread {
        let nodes = |of: &Interval| cover(of.from.0, of.until.0).len() as f64;
        Spread::of(self.intervals.iter().map(nodes).collect())
    }

    fn bytes(&self) -> anyhow::Result<Spread> {
        let lens = (0..INTERVALS).map(|number| Ok(self.give(number)?.len() as f64));
        Ok(Spread::of(lens.collect::<anyhow::Result<_>>()?))
    }
}

/// One session to one device, beside Olm carrying one Megolm session key.
pub(crate) fn bundles(page: &mut Page, scale: Scale) -> anyhow::Result<()> {
    page.heading("A grant: one session for one device");
    let kinds = [
        (
            "exact to the millisecond, one to two years",
            years(1, false),
        ),
        ("the same in whole minutes", years(MINUTE_MS, false)),
        ("from now on", years(1, true)),
    ];
    let kinds = kinds.map(|(name, intervals)| (name, Exchange::new(intervals)));
    let (mut giver, mut taker) = (Givers::new(), Givers::new());
    let give =
        Contest::default().enter("Olm, a Megolm session key", |count| giver.give_many(count));
    let take =
        Contest::default().enter("Olm, a Megolm session key", |count| taker.take_many(count));
    let give = kinds.iter().fold(give, |contest, (name, of)| {
        contest.enter(*name, |count| of.give_many(count))
    });
    let take = kinds.iter().fold(take, |contest, (name, of)| {
        contest.enter(*name, |count| of.take_many(count))
    });
    let (give, take) = (give.run(scale)?, take.run(scale)?);
    page.head(&[
        "interval",
        "nodes",
        "bytes",
        "CPU µs to give",
        "CPU µs to take",
        "give, beside Olm",
        "take, beside Olm",
    ]);
    let (baseline_give, baseline_take) = give.first().zip(take.first()).context("no baseline")?;
    let micros = |of: &crate::contest::Outcome| of.spread().over(1_000.0);
    page.row(&[
        &baseline_give.name,
        &"",
        &giver_len()?,
        &micros(baseline_give),
        &micros(baseline_take),
        &"1",
        &"1",
    ]);
    for ((name, of), (give, take)) in kinds.iter().zip(give.iter().zip(&take).skip(1)) {
        let cells: [&dyn std::fmt::Display; 7] = [
            name,
            &of.nodes(),
            &of.bytes()?,
            &micros(give),
            &micros(take),
            &give.against(baseline_give),
            &take.against(baseline_take),
        ];
        page.row(&cells);
    }
    page.paragraph(
        "Limited by X-Wing: Olm does the X25519 part of it three times over, but no ML-KEM-768. The keys \
         of the nodes are the weight, 32 bytes each and padded to 256 bytes, with 1.1 KiB that X-Wing \
         asks for. What Olm gives has no end: it opens one Megolm session from one message on. A \
         whole minute is 1,875 times 32 ms, so that whole minutes save few nodes.",
    );
    Ok(())
}

fn giver_len() -> anyhow::Result<usize> {
    Givers::new().message_len()
}

/// One grant through the client.
struct Granting {
    give_ms: f64,
    take_ms: f64,
    weight: (usize, usize),
    /// Reads of the bus to grant, and to take the keys in.
    reads: (u64, u64),
}

/// The clock stands still: how many nodes a cover has follows from when its session began.
async fn grant_over(at: Position, records: u64, sessions: usize) -> anyhow::Result<Granting> {
    let stage = Stage::set_by(Clock::new(move || at), None).await?;
    for _ in 1..sessions {
        stage.alice.rekey().await?;
    }
    stage.publish(records).await?;
    let from = Position(at.0 - YEAR_MS - 1);
    let (reads, stop) = (stage.bus_reads(), stopwatch());
    let granted = stage.grant(Bound::At(from), at.after(YEAR_MS)).await?;
    let give_ms = stop().cpu.as_secs_f64() * 1_000.0;
    let (between, stop) = (stage.bus_reads(), stopwatch());
    stage.bob.sync().await?;
    Ok(Granting {
        give_ms,
        take_ms: stop().cpu.as_secs_f64() * 1_000.0,
        weight: (granted.bundles, granted.bundle_bytes),
        reads: (between - reads, stage.bus_reads() - between),
    })
}

/// Grants over many sessions, and over many messages, through the client.
pub(crate) async fn through_client(
    page: &mut Page,
    floors: &mut Floors,
    scale: Scale,
) -> anyhow::Result<()> {
    page.heading("A grant of two years through the client");
    page.head(&[
        "published before",
        "sessions",
        "bundles",
        "bytes",
        "bus reads to grant",
        "to take in",
        "CPU ms to grant",
        "CPU ms to take in",
    ]);
    let (few, many, at) = (scale.lines / 1_000, scale.lines, Clock::system().now());
    let mut weights = Vec::new();
    for (records, sessions) in [(few, 1), (many, 1), (few, 10), (few, 100)] {
        let (mut give, mut take, mut last) = (Vec::new(), Vec::new(), None);
        for _ in 0..scale.long_rounds {
            let granting = grant_over(at, records, sessions).await?;
            give.push(granting.give_ms);
            take.push(granting.take_ms);
            last = Some(granting);
        }
        let last = last.context("there is a round")?;
        page.row(&[
            &format_args!("{records} records"),
            &sessions,
            &last.weight.0,
            &last.weight.1,
            &last.reads.0,
            &last.reads.1,
            &Spread::of(give),
            &Spread::of(take),
        ]);
        weights.push(last);
    }
    page.paragraph(
        "What was published does not count: a grant looks at session records, not at messages. Each \
         session has keys of its own, so bytes grow with the sessions; one bundle carries sixteen \
         covers. With few sessions the cost is that of writing the log entry and of reading the \
         stream's control topics, not of the keys.",
    );
    let [few, many, ..] = weights.as_slice() else {
        anyhow::bail!("two grants are compared");
    };
    let bytes = few.weight.1.max(many.weight.1);
    floors.at_most(
        "bundles of a grant, one session and one device",
        1.0,
        many.weight.0 as f64,
    );
    floors.at_most("bytes of that bundle", 4096.0, bytes as f64);
    let more = |of: fn(&Granting) -> f64| (of(many) - of(few)).abs();
    floors.at_most(
        "bytes more or less for a million messages than for a thousand",
        0.0,
        more(|of| of.weight.1 as f64),
    );
    floors.at_most(
        "bus reads more or less for a million messages",
        0.0,
        more(|of| (of.reads.0 + of.reads.1) as f64),
    );
    Ok(())
}
