//! Sealing and opening: single messages and frames.

use std::hint::black_box;
use std::time::Duration;

use anyhow::Context as _;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use sealcast_crypto::{SecretBytes, SigningKey, bulk_digest, digest};
use sealcast_protocol::{ENVELOPE_OVERHEAD, Frame, Records};
use vodozemac::megolm::{GroupSession, SessionConfig};

use crate::clock::timed;
use crate::contest::{Contest, Outcome};
use crate::floors::Floors;
use crate::lane::{Opener, START, Sealer};
use crate::megolm::{self, Received};
use crate::report::Page;
use crate::scale::Scale;

/// What a sensor says.
const RECORD: [u8; 100] = [42; 100];
/// Messages that are sealed at once, as many as share a signature.
const AT_ONCE: usize = 16;
/// Records of a small frame.
const RECORDS: usize = 64;
/// Bytes of a large frame, as publishers fill them.
const FRAME_BYTES: usize = (64 << 10) + 512;
/// What the cipher alone is given.
const CIPHER_BYTES: usize = 64 << 10;
/// Small envelopes that are opened in one pass, with keys that are derived anew.
const PASS: usize = 512;
/// Envelopes after which a sender's key surely has its table.
const KNOWN_AFTER: usize = 32;
/// Large envelopes that are opened in one pass, few enough to stay in the cache.
const LARGE_PASS: usize = 16;

/// Single messages beside Megolm.
pub(crate) fn singles(page: &mut Page, floors: &mut Floors, scale: Scale) -> anyhow::Result<()> {
    page.heading("Single messages of 100 bytes");
    let mut group = GroupSession::new(SessionConfig::version_1());
    let seal = Contest::default()
        .enter("Megolm, encrypt", |count| {
            megolm::encrypt(&mut group, count, &RECORD)
        })
        .enter("seal, all in one millisecond", |count| {
            seal_singles(count, 0)
        })
        .enter("seal, each a millisecond later", |count| {
            seal_singles(count, 1)
        })
        .enter("seal, sixteen at once", seal_batches);
    let received = Received::new(&RECORD);
    let (same, later) = (sealed_singles(0)?, sealed_singles(1)?);
    let at_once = sealed_batches(PASS / AT_ONCE)?;
    let open = Contest::default()
        .enter("Megolm, decrypt", |count| received.decrypt(count))
        .enter("open, all in one millisecond", |count| {
            open_all(&same, count, false)
        })
        .enter("open, each a millisecond later", |count| {
            open_all(&later, count, false)
        })
        .enter("open, sixteen with one signature", |count| {
            open_all(&at_once, count, false)
        });
    page.head(&["one message", "CPU µs", "times as fast as Megolm"]);
    let (seal, open) = (seal.run(scale)?, open.run(scale)?);
    page.contest(&seal);
    page.contest(&open);
    floors.at_least("single messages, seal beside Megolm", 1.5, slowest(&seal));
    floors.at_least("single messages, open beside Megolm", 0.9, slowest(&open));
    page.paragraph(
        "Both are limited by Ed25519: one signature to seal, one verification to open. The key tree, \
         the cipher and the digests together are about a quarter of a seal. Messages that are sealed at \
         once share a signature, sixteen at most, and a reader checks it once. Here and below, what is \
         opened comes from a sender whose key has a table, as it has after sixteen envelopes; the \
         first ones take as long as the verification among the parts of a large frame.",
    );
    Ok(())
}

/// Frames of 64 records beside as many Megolm messages.
pub(crate) fn frames(page: &mut Page, floors: &mut Floors, scale: Scale) -> anyhow::Result<()> {
    page.heading("Frames of 64 records of 100 bytes");
    let mut group = GroupSession::new(SessionConfig::version_1());
    let seal = Contest::default()
        .enter("Megolm, encrypt", |count| {
            megolm::encrypt(&mut group, count * RECORDS, &RECORD)
        })
        .enter("seal", |count| seal_frames(count, RECORDS, 8 << 10))
        .enter(
            "seal, with room for 64 KiB as publishers take it",
            |count| seal_frames(count, RECORDS, FRAME_BYTES),
        );
    let received = Received::new(&RECORD);
    let frames = sealed_frames(PASS, RECORDS)?;
    let open = Contest::default()
        .enter("Megolm, decrypt", |count| received.decrypt(count * RECORDS))
        .enter("open", |count| open_all(&frames, count, true));
    page.head(&["one record", "CPU µs", "times as fast as Megolm"]);
    let (seal, open) = (per_record(&seal.run(scale)?), per_record(&open.run(scale)?));
    page.contest(&seal);
    page.contest(&open);
    floors.at_least(
        "frames of 64 records, seal beside Megolm",
        25.0,
        slowest(&seal),
    );
    floors.at_least(
        "frames of 64 records, open beside Megolm",
        25.0,
        slowest(&open),
    );
    page.paragraph(
        "One signature, one key and one call of the cipher serve 64 records. Sealing is limited by \
         the signature and by collecting the records, opening by the verification. Of a frame's room \
         only what was used is wiped.",
    );
    Ok(())
}

/// What the slowest contestant reaches of the baseline's rate.
fn slowest(outcomes: &[Outcome]) -> f64 {
    let Some((baseline, others)) = outcomes.split_first() else {
        return f64::NAN;
    };
    let ratios = others.iter().map(|own| own.against(baseline).median);
    ratios.fold(f64::INFINITY, f64::min)
}

fn per_record(outcomes: &[Outcome]) -> Vec<Outcome> {
    outcomes
        .iter()
        .map(|outcome| outcome.per(RECORDS))
        .collect()
}

/// Frames of 64 KiB beside the cipher alone.
pub(crate) fn large_frames(
    page: &mut Page,
    floors: &mut Floors,
    scale: Scale,
) -> anyhow::Result<()> {
    page.heading("Frames of 64 KiB");
    let payload = vec![42; CIPHER_BYTES];
    let seal = Contest::default()
        .enter("AES-256-GCM-SIV alone, seal", raw_seal)
        .enter("seal", |count| seal_payloads(count, &payload))
        .enter(
            "seal, filling a frame with records of 100 bytes included",
            |count| seal_frames(count, usize::MAX, FRAME_BYTES),
        );
    let mut sealer = Sealer::new();
    let single: Vec<_> = (0..LARGE_PASS)
        .map(|_| sealer.seal(&payload))
        .collect::<Result<_, _>>()?;
    let frames = sealed_frames(LARGE_PASS, usize::MAX)?;
    let open = Contest::default()
        .enter("AES-256-GCM-SIV alone, open", raw_open)
        .enter("open", |count| open_all(&single, count, false))
        .enter("open, finding its records of 100 bytes included", |count| {
            open_all(&frames, count, true)
        });
    page.head(&["one frame", "CPU µs", "times as fast as the cipher"]);
    let (seal, open) = (seal.run(scale)?, open.run(scale)?);
    page.contest(&seal);
    page.contest(&open);
    floors.at_least(
        "frames of 64 KiB, seal beside the cipher",
        0.4,
        slowest(seal.get(..2).unwrap_or_default()),
    );
    floors.at_least(
        "frames of 64 KiB, open beside the cipher",
        0.25,
        slowest(open.get(..2).unwrap_or_default()),
    );
    page.paragraph(
        "The cipher runs with a fresh key each time. A seal adds to it the digest of all bytes, one copy \
         and a signature; filling a frame that was used before, as publishers do, adds \
         another copy and wiping it. An open adds the \
         digest, one copy, a verification and wiping the plaintext. The parts:",
    );
    page.head(&["part of it", "CPU µs"]);
    for outcome in parts(&payload, scale)? {
        page.row(&[&outcome.name, &outcome.spread().over(1_000.0)]);
    }
    Ok(())
}

fn parts(payload: &[u8], scale: Scale) -> anyhow::Result<Vec<Outcome>> {
    let key = SigningKey::from_seed(&[3; 32]);
    let of = digest("sealcast.v1 bench", &[b"a frame"]);
    let signature = key.sign(&of);
    let public = key.verifying_key();
    let each = |count: usize, job: &mut dyn FnMut()| {
        timed(|| {
            (0..count).for_each(|_| job());
            Ok(())
        })
    };
    Contest::default()
        .enter("digest of 64 KiB", |count| {
            each(count, &mut || {
                black_box(bulk_digest("sealcast.v1 bench", black_box(payload)));
            })
        })
        .enter("copy of 64 KiB", |count| {
            each(count, &mut || drop(black_box(payload.to_vec())))
        })
        .enter("wiping 64 KiB", |count| wipe(count, payload))
        .enter("signature", |count| {
            each(count, &mut || {
                black_box(key.sign(black_box(&of)));
            })
        })
        .enter("verification", |count| {
            each(count, &mut || {
                black_box(public.verify(black_box(&of), &signature).is_ok());
            })
        })
        .run(scale)
}

fn wipe(count: usize, payload: &[u8]) -> anyhow::Result<Duration> {
    let mut spent = Duration::ZERO;
    for _ in 0..count {
        let secret = SecretBytes::from(payload.to_vec());
        spent += timed(|| {
            drop(secret);
            Ok(())
        })?;
    }
    Ok(spent)
}

fn seal_singles(count: usize, gap_ms: u64) -> anyhow::Result<Duration> {
    let mut sealer = Sealer::new();
    timed(|| {
        for _ in 0..count {
            black_box(sealer.seal(black_box(&RECORD))?);
            sealer.wait(gap_ms);
        }
        Ok(())
    })
}

fn seal_batches(count: usize) -> anyhow::Result<Duration> {
    let mut sealer = Sealer::new();
    timed(|| {
        for _ in (0..count).step_by(AT_ONCE) {
            black_box(sealer.seal_batch(black_box(&[RECORD.as_slice(); AT_ONCE]))?);
            sealer.wait(1);
        }
        Ok(())
    })
}

fn sealed_batches(count: usize) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut sealer = Sealer::new();
    let mut next = || {
        let sealed = sealer.seal_batch(&[RECORD.as_slice(); AT_ONCE]);
        sealer.wait(1);
        sealed
    };
    let batches: anyhow::Result<Vec<_>> = (0..count).map(|_| next()).collect();
    Ok(batches?.concat())
}

fn seal_payloads(count: usize, payload: &[u8]) -> anyhow::Result<Duration> {
    let mut sealer = Sealer::new();
    timed(|| {
        for _ in 0..count {
            black_box(sealer.seal(black_box(payload))?);
            sealer.wait(1);
        }
        Ok(())
    })
}

fn seal_frames(count: usize, records: usize, capacity: usize) -> anyhow::Result<Duration> {
    let (mut sealer, mut frame) = (Sealer::new(), Frame::with_capacity(capacity));
    timed(|| {
        for _ in 0..count {
            frame.clear();
            fill(&mut frame, records);
            black_box(sealer.seal_frame(&frame)?);
            sealer.wait(1);
        }
        Ok(())
    })
}

/// A frame of so many records, or as many as there is room for.
fn filled(records: usize, capacity: usize) -> Frame {
    let mut frame = Frame::with_capacity(capacity);
    fill(&mut frame, records);
    frame
}

fn fill(frame: &mut Frame, records: usize) {
    while frame.len() < records && frame.push(START, black_box(&RECORD)).is_ok() {}
}

fn sealed_singles(gap_ms: u64) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut sealer = Sealer::new();
    let mut next = || {
        let sealed = sealer.seal(&RECORD);
        sealer.wait(gap_ms);
        sealed
    };
    (0..PASS).map(|_| next()).collect()
}

fn sealed_frames(count: usize, records: usize) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut sealer = Sealer::new();
    let mut next = || {
        let sealed = sealer.seal_frame(&filled(records, FRAME_BYTES));
        sealer.wait(1);
        sealed
    };
    (0..count).map(|_| next()).collect()
}

/// A reader that has read from this sender for a while.
fn known_sender(envelopes: &[Vec<u8>]) -> anyhow::Result<Opener> {
    let mut opener = Opener::new();
    for bytes in envelopes.iter().cycle().take(KNOWN_AFTER) {
        opener.rewind();
        opener.open(bytes)?;
    }
    Ok(opener)
}

/// Opens `count` envelopes, and finds their records where they are frames.
fn open_all(envelopes: &[Vec<u8>], count: usize, frames: bool) -> anyhow::Result<Duration> {
    let (mut spent, mut opener) = (Duration::ZERO, known_sender(envelopes)?);
    for done in (0..count).step_by(envelopes.len()) {
        opener.rewind();
        let some = envelopes.iter().take(count - done);
        spent += timed(|| {
            for bytes in some {
                let (header, plaintext) = opener.open(bytes)?;
                if frames {
                    let records = Records::decode(plaintext.expose(), header.position, true)?;
                    records.for_each(|record| {
                        black_box(record);
                    });
                }
                black_box(&plaintext);
            }
            Ok(())
        })?;
    }
    Ok(spent)
}

/// An envelope of 64 such records.
fn frame_of(record: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut frame = Frame::with_capacity(FRAME_BYTES);
    for _ in 0..RECORDS {
        frame.push(START, record)?;
    }
    Sealer::new().seal_frame(&frame)
}

fn cipher(number: usize) -> anyhow::Result<LessSafeKey> {
    let mut key = [7; 32];
    key[..8].copy_from_slice(&number.to_le_bytes());
    Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &key)?))
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

fn raw_seal(count: usize) -> anyhow::Result<Duration> {
    let mut buffer = vec![42; CIPHER_BYTES];
    timed(|| {
        for number in 0..count {
            let tag =
                cipher(number)?.seal_in_place_separate_tag(nonce(), Aad::empty(), &mut buffer);
            let _ = black_box(tag?);
        }
        Ok(())
    })
}

fn raw_open(count: usize) -> anyhow::Result<Duration> {
    let plaintext = vec![42; CIPHER_BYTES];
    let mut sealed = plaintext.clone();
    let tag = cipher(0)?.seal_in_place_separate_tag(nonce(), Aad::empty(), &mut sealed)?;
    let mut buffer = sealed.clone();
    let mut spent = Duration::ZERO;
    for _ in 0..count {
        buffer.copy_from_slice(&sealed);
        spent += timed(|| {
            let key = cipher(black_box(0))?;
            key.open_in_place_separate_tag(nonce(), Aad::empty(), tag.as_ref(), &mut buffer)?;
            Ok(())
        })?;
    }
    anyhow::ensure!(buffer == plaintext, "opened to something else");
    Ok(spent)
}

/// Bytes that travel.
pub(crate) fn sizes(page: &mut Page, floors: &mut Floors) -> anyhow::Result<()> {
    page.heading("Bytes on the bus");
    let single = sealed_singles(0)?.pop().context("no envelope")?;
    let overhead = single.len() - RECORD.len();
    anyhow::ensure!(
        overhead == ENVELOPE_OVERHEAD,
        "an envelope adds {overhead} bytes"
    );
    page.head(&[
        "message",
        "bytes for 100 bytes of payload",
        "of which added",
    ]);
    let mut row = |name: &str, len: usize, records: usize| {
        let each = len as f64 / records as f64;
        page.row(&[
            &name,
            &format_args!("{each:.1}"),
            &format_args!("{:.1}", each - 100.0),
        ]);
    };
    row("single", single.len(), 1);
    let of_batch = sealed_batches(1)?.pop().context("no envelope")?;
    row("one of sixteen sealed at once", of_batch.len(), 1);
    let frame = sealed_frames(1, RECORDS)?.pop().context("no frame")?;
    row("one of 64 in a frame", frame.len(), RECORDS);
    let short = RECORD.get(1..).unwrap_or_default();
    let added = frame_of(short)?.len() - RECORDS * short.len();
    floors.at_most(
        "bytes that an envelope with a signature of its own adds",
        176.0,
        overhead as f64,
    );
    let each = added as f64 / RECORDS as f64;
    floors.at_most(
        "bytes added to each of 64 short records, all told",
        4.0,
        each,
    );
    let records = filled(usize::MAX, FRAME_BYTES).len();
    let frame = sealed_frames(1, usize::MAX)?.pop().context("no frame")?;
    row(
        &format!("one of {records} in a frame of 64 KiB"),
        frame.len(),
        records,
    );
    row("Megolm", Received::new(&RECORD).message_len(), 1);
    page.paragraph(
        "An envelope adds 176 bytes, most of which are the signature (64) and the header (72) that \
         names sender, session, position and predecessor; one that shares its signature has 32 bytes more for \
         each doubling of their number, and 2, which a frame of fewer than 128 records never does; a frame adds one byte \
         or two to each record, its length, and two or three for each millisecond. Megolm's message does not say who sent it in which \
         session: Matrix adds that outside, in JSON.",
    );
    Ok(())
}
