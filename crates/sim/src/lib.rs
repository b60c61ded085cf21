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
mod approvals;
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
mod lies;
mod lists;
mod model;
mod nodes;
mod outcome;
mod place;
mod plan;
mod plant;
mod released;
mod seeded;
mod settle;
mod steps;
mod storm;
mod trace;
mod violation;
mod world;

pub use nodes::NodePlan;
pub use outcome::{Report, Tally};
pub use plan::Plan;
pub use plant::Plant;
pub use storm::{Amount, Kind, Storm, StormAmount, StormReport, Traffic, storm};
pub use trace::Trace;
pub use violation::Violation;
use world::World;

/// Runs a plan to its end, or to what must never happen.
pub fn run(plan: &Plan, plant: Option<Plant>) -> Report {
    match World::new(*plan, plant) {
        Ok(mut world) => {
            let played = play(&mut world);
            report(plan.seed, world, played)
        }
        Err(stop) => Report::unbegun(plan.seed, stop),
    }
}

/// As [`run`], around a stream whose keys nobody hands out but its key nodes.
pub fn run_nodes(plan: &NodePlan, plant: Option<Plant>) -> Report {
    match nodes::Field::new(*plan, plant) {
        Ok(mut field) => {
            let played = field.play();
            report(plan.seed, field.world, played)
        }
        Err(stop) => Report::unbegun(plan.seed, stop),
    }
}

fn report(seed: u64, world: World, played: Result<Tally, Violation>) -> Report {
    let (tally, violation) = match played {
        Ok(tally) => (tally, None),
        Err(violation) => (Tally::default(), Some(violation)),
    };
    Report {
        seed,
        violation,
        devices: world.devices.len(),
        records: world.around.ground.records(),
        trace: world.around.trace,
        faults: world.around.faults,
        asking: world.around.asking,
        tally,
    }
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
