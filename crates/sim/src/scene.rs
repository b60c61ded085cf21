//! Which simulation a seed is run in.

use sealcast_sim::{NodePlan, Plan, Report};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scene {
    /// Users who hand keys to each other.
    World,
    /// Key nodes.
    Nodes,
}

impl Scene {
    pub(crate) fn run(self, seed: u64) -> Report {
        match self {
            Self::World => sealcast_sim::run(&Plan::new(seed), None),
            Self::Nodes => sealcast_sim::run_nodes(&NodePlan::new(seed), None),
        }
    }

    /// Seeds where nobody says how many.
    pub(crate) fn seeds(self) -> u64 {
        match self {
            Self::World => 20_000,
            Self::Nodes => 5_000,
        }
    }

    /// What a seed comes to.
    pub(crate) fn plan(self, seed: u64) -> String {
        match self {
            Self::World => format!("{:?}", Plan::new(seed)),
            Self::Nodes => format!("{:?}", NodePlan::new(seed)),
        }
    }

    /// How seeds of it are asked for.
    pub(crate) fn option(self) -> &'static str {
        match self {
            Self::World => "",
            Self::Nodes => " --nodes",
        }
    }

    /// What the files of its failed runs are called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::World => "seed",
            Self::Nodes => "nodes",
        }
    }
}
