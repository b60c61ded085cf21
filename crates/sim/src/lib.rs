//! Many users and devices on a virtual clock, and a bus that does what it likes to them.
//!
//! Everything in a run follows from its seed: who grants what to whom, what is sealed when, what the
//! bus delays, loses, repeats, withholds and forges, and where a program crashes. The engine does
//! what it does in the client, driven by the same steps in the same order, with a crash between any
//! two of them. After every step it is compared with what truly happened, and, when the faults have
//! stopped and nobody has anything left to do, with a model that says who must open what.
//!
//! ```
//! let report = sealcast_sim::run(&sealcast_sim::Plan::new(7), None);
//! assert_eq!(report.violation, None);
//! assert_eq!(report, sealcast_sim::run(&sealcast_sim::Plan::new(7), None));
//! ```

mod air;
mod around;
mod bus;
mod clock;
mod device;
mod faults;
mod forge;
mod ground;
mod home;
mod hostile;
mod judge;
mod lists;
mod model;
mod outcome;
mod place;
mod plan;
mod plant;
mod seeded;
mod settle;
mod steps;
mod storm;
mod trace;
mod violation;
mod world;

use around::Stop;
pub use outcome::{Report, Tally};
pub use plan::Plan;
pub use plant::Plant;
pub use storm::{Amount, Kind, Storm, StormAmount, StormReport, Traffic, storm};
pub use trace::Trace;
pub use violation::Violation;
use world::World;

/// Runs a plan to its end, or to what must never happen.
pub fn run(plan: &Plan, plant: Option<Plant>) -> Report {
    let mut report = Report {
        seed: plan.seed,
        violation: None,
        trace: Trace::default(),
        devices: 0,
        records: 0,
        faults: std::collections::BTreeMap::new(),
        asking: std::collections::BTreeMap::new(),
        tally: Tally::default(),
    };
    match World::new(*plan, plant) {
        Ok(mut world) => {
            match play(&mut world) {
                Ok(tally) => report.tally = tally,
                Err(violation) => report.violation = Some(violation),
            }
            report.devices = world.devices.len();
            report.records = world.around.ground.records();
            report.trace = world.around.trace;
            report.faults = world.around.faults;
            report.asking = world.around.asking;
        }
        Err(Stop::Violated(violation)) => report.violation = Some(violation),
        Err(Stop::Crashed | Stop::Unreachable | Stop::Refused(_)) => {
            report.violation = Some(Violation::Odd("a run that does not begin"));
        }
    }
    report
}

fn play(world: &mut World) -> Result<Tally, Violation> {
    // Before anything can go wrong the owner has seen its stream on the bus.
    world.start(0);
    for _ in 0..world.plan.steps {
        world.step();
        if let Some(violation) = world.around.violation.take() {
            return Err(violation);
        }
    }
    world.settle()?;
    world.invariant_states_agree()?;
    world.invariant_logs_are_whole()?;
    world.ask_for_all()?;
    world.invariant_nothing_parked_is_lost()?;
    world.invariant_no_false_alarm()?;
    world.judge()
}
