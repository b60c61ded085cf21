use sealcast_crash::Chance;
use sealcast_protocol::Sharing;

/// What a seed comes to: how many take part, for how long, and what goes wrong how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Everything else is drawn from it.
    pub seed: u64,
    /// Users besides the owner.
    pub users: usize,
    /// Devices besides each user's first.
    pub more_devices: usize,
    /// Steps before the faults stop.
    pub steps: usize,
    /// Envelopes that a step seals, at most.
    pub batch_max: u64,
    /// Of a hundred steps, so many come with a fault.
    pub faults: u64,
    /// Whether homes are put back to older states.
    pub restores: bool,
    /// Whether the bus forgets or withholds what it has.
    pub forgets: bool,
    /// When keys are handed out.
    pub sharing: Sharing,
    /// Of a hundred devices, so many are gone for good before all comes to rest, where nothing is
    /// lost with them that others could miss.
    pub leave: u64,
}

impl Plan {
    /// What a seed comes to. One in 200 seals some 10,000 messages, one in 20 has up to 30 devices,
    /// one in 10 meets no fault but crashes.
    pub fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed ^ 0x5ea1_ca57);
        let mut below = |end| chance.below(end) as usize;
        let small = Self {
            seed,
            users: 1 + below(6),
            more_devices: below(4),
            steps: 40 + below(60),
            batch_max: 3,
            faults: 10 + below(30) as u64,
            restores: below(3) == 0,
            forgets: below(2) == 0,
            sharing: match below(2) {
                0 => Sharing::Active,
                _ => Sharing::OnRequest,
            },
            leave: [0, 0, 20, 50][below(4)],
        };
        let small = Self {
            restores: small.restores && small.forgets,
            ..small
        };
        match seed {
            _ if seed % 200 == 77 => Self {
                users: 1 + below(2),
                more_devices: 0,
                steps: 120,
                batch_max: 400,
                ..small
            },
            _ if seed % 20 == 3 => Self {
                users: 10 + below(10),
                more_devices: below(9),
                steps: 60,
                ..small
            },
            _ if seed.is_multiple_of(10) => Self {
                faults: 0,
                restores: false,
                forgets: false,
                ..small
            },
            _ => small,
        }
    }
}
