//! Storms of three sizes, and whether what they cost grows with the number of devices.

use sealcast_sim::{Amount, Storm, StormReport, storm};

use crate::{cpu, numbers};

/// Devices where nobody says how many.
const DEVICES: u64 = 2_000;
/// Bundles that one asker gets, at most.
const BUNDLES_MAX: u64 = 2;

struct Orders {
    devices: u64,
    seed: u64,
}

impl Orders {
    fn parse(words: &[&str]) -> Result<Self, String> {
        let mut orders = Self {
            devices: DEVICES,
            seed: 1,
        };
        let places = &mut [
            ("--devices", &mut orders.devices),
            ("--seed", &mut orders.seed),
        ];
        numbers::read(words, places)?;
        Ok(orders)
    }
}

/// Lets storms of a quarter, of half and of all of the devices come, prints what they came to, and
/// fails where one grew by more than its devices.
pub(crate) fn run(words: &[&str]) -> Result<(), String> {
    let orders = Orders::parse(words)?;
    let mut reports: Vec<StormReport> = Vec::new();
    for part in [4, 2, 1] {
        let (seed, devices) = (orders.seed, (orders.devices / part).max(1));
        let devices = usize::try_from(devices).map_err(|_| "too many devices")?;
        let report = storm(&Storm { seed, devices }).map_err(|why| why.to_string())?;
        reports.push(report);
    }
    tell(&reports);
    if let Some(seconds) = cpu::seconds() {
        println!("{seconds:.1} CPU seconds in all");
    }
    for report in &reports {
        if report.bundles_max > BUNDLES_MAX {
            return Err(format!("{} bundles went to one device", report.bundles_max));
        }
    }
    let outgrown = reports.windows(2).find_map(|pair| match pair {
        [less, more] => more.outgrows(less),
        _ => None,
    });
    match outgrown {
        Some(what) => Err(format!("{what} grow faster than the devices")),
        None => Ok(()),
    }
}

fn tell(reports: &[StormReport]) {
    let line = |name: &str, cell: &dyn Fn(&StormReport) -> String| {
        let cells = reports.iter().map(|of| format!("{:>26}", cell(of)));
        println!("{name:>18}{}", cells.collect::<String>());
    };
    line("devices", &|of| of.askers.to_string());
    for (name, amount) in StormReport::AMOUNTS {
        line(name, &|of| {
            let Amount { items, bytes } = amount(of);
            format!("{items} {bytes:>13} B")
        });
    }
    line("bundles at most", &|of| of.bundles_max.to_string());
    line("checks", &|of| of.checked.to_string());
    line("waiting, open", &|of| format!("{:?}", of.queue_max));
    line("half after", &|of| format!("{} ms", of.wait_ms(500)));
    line("all but 1 %", &|of| format!("{} ms", of.wait_ms(10)));
    line("last after", &|of| format!("{} ms", of.wait_ms(0)));
}
