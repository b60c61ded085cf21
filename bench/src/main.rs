//! Measures what sealing, granting and carrying cost, beside baselines of the same run, and writes
//! `RESULTS.md`. CPU time only counts; every contest runs in interleaved rounds.
//!
//! With names of sections as arguments it measures and prints these alone, and writes nothing.

mod clock;
mod contest;
mod grants;
mod lane;
mod megolm;
mod messages;
mod pipeline;
mod report;
mod stage;

use std::fs;

use report::Page;

const COMMAND: &str = "cargo run --release -p sealcast-bench";
const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/RESULTS.md");

/// Each section by the name that picks it.
const SECTIONS: &[&str] = &[
    "singles", "frames", "large", "sizes", "bundles", "grants", "pipeline", "memory",
];

#[expect(
    clippy::print_stdout,
    reason = "a program for the terminal shows what it found"
)]
fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let picked: Vec<String> = std::env::args().skip(1).collect();
    if picked == [pipeline::CHILD] {
        println!("{}", runtime.block_on(pipeline::measure_memory())?);
        return Ok(());
    }
    if let Some(other) = picked
        .iter()
        .find(|name| !SECTIONS.contains(&name.as_str()))
    {
        anyhow::bail!("no section `{other}`; there are: {}", SECTIONS.join(" "));
    }
    let mut page = Page::default();
    introduce(&mut page);
    for name in SECTIONS
        .iter()
        .filter(|name| picked.is_empty() || picked.iter().any(|of| of == *name))
    {
        match *name {
            "singles" => messages::singles(&mut page)?,
            "frames" => messages::frames(&mut page)?,
            "large" => messages::large_frames(&mut page)?,
            "sizes" => messages::sizes(&mut page)?,
            "bundles" => grants::bundles(&mut page)?,
            "grants" => runtime.block_on(grants::through_client(&mut page))?,
            "pipeline" => runtime.block_on(pipeline::measure(&mut page))?,
            _ => pipeline::memory(&mut page)?,
        }
    }
    println!("{}", page.text());
    if picked.is_empty() {
        fs::write(RESULTS, page.text())?;
    }
    Ok(())
}

fn introduce(page: &mut Page) {
    page.title("What it costs");
    report::provenance(page, COMMAND);
    page.paragraph(
        "Medians of CPU time, with the first and the last tenth of all rounds in brackets. Ratios \
         compare two contestants round by round; above 1 is faster than the baseline, unless a \
         column says otherwise. Times differ between machines and days, so quote ratios. Megolm and \
         Olm are those of vodozemac 0.11, from and to the bytes that travel.",
    );
}
