//! Another config file for a proxy that runs.

use std::sync::Arc;

use crate::certificates::CertificatesError;
use crate::config::Config;
use crate::listeners::{Hall, Way, Ways};
use crate::sealing::Sealing;
use crate::standing::Watched;

/// What may be changed of a proxy while it runs; from [`Proxy::control`](crate::Proxy::control).
#[derive(Clone)]
pub struct Control {
    pub(crate) hall: Arc<Hall>,
    /// How clients come in by each listener.
    pub(crate) ways: Vec<Arc<Ways>>,
    /// What it goes by.
    pub(crate) config: Arc<Config>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Control {
    /// Goes by other rules from the next message of each client on, and has the next clients come in by certificates, keys and origins
    /// as they are now. Names the options that were changed and hold only from the next start on.
    ///
    /// # Errors
    ///
    /// Fails when certificates or keys cannot be used; then all is as it was.
    pub fn reload(
        &self,
        config: Config,
        sealing: Arc<dyn Sealing>,
    ) -> Result<Vec<&'static str>, CertificatesError> {
        let mut ways = Vec::new();
        for of in &self.ways {
            let same = config.listeners.iter().find(|other| of.is(other));
            ways.push(same.map(Way::of).transpose()?);
        }
        for (of, way) in self.ways.iter().zip(ways) {
            if let Some(way) = way {
                of.replace(way);
            }
        }
        let later = later(&self.config, &config, &self.ways);
        self.hall.standing.name(&config.rules);
        let standing = Arc::clone(&self.hall.standing);
        let sealing = Arc::new(Watched { sealing, standing });
        let ruling = &self.hall.shared.ruling;
        ruling.replace(config.rules, sealing);
        Ok(later)
    }
}

/// The options that are other than those of a running proxy, and cannot be changed in it.
fn later(running: &Config, config: &Config, ways: &[Arc<Ways>]) -> Vec<&'static str> {
    let (old, new) = (&running.limits, &config.limits);
    let is_of_a_way = |of| ways.iter().any(|way| way.is(of));
    let are_same = config.listeners.len() == ways.len() && config.listeners.iter().all(is_of_a_way);
    let options = [
        ("listen", are_same),
        ("upstream", running.upstream == config.upstream),
        ("upstream_ca", running.upstream_ca == config.upstream_ca),
        ("metrics", running.metrics == config.metrics),
        ("packet_max", old.packet_max == new.packet_max),
        (
            "connections_max",
            old.connections_max == new.connections_max,
        ),
        (
            "address_connections_max",
            old.address_connections_max == new.address_connections_max,
        ),
        (
            "connect_timeout",
            old.connect_timeout == new.connect_timeout,
        ),
        (
            "park_messages_max",
            old.park.messages_max == new.park.messages_max,
        ),
        ("park_bytes_max", old.park.bytes_max == new.park.bytes_max),
        ("park_age_max", old.park.age_max == new.park.age_max),
        ("log", running.log == config.log),
        ("log_format", running.log_format == config.log_format),
    ];
    let changed = options.into_iter().filter(|(_, is_same)| !is_same);
    changed.map(|(option, _)| option).collect()
}
