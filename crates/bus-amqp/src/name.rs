//! What things are called on the server: spec/bus-amqp.md, section 2.

use sealcast_bus::Topic;

/// Bytes of a topic that fit into a name beside everything else.
const TOPIC_BYTES_MAX: usize = 160;
/// Behind a topic that was cut; no topic has it.
const CUT: char = '#';

/// The names that one bus has on its server.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    prefix: String,
}

impl Names {
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    /// The stream queue where a log lies.
    pub(crate) fn queue(&self, topic: &Topic) -> String {
        format!("{}.log.{}", self.prefix, key(topic))
    }

    /// The exchange that hands on what is sent on ephemeral topics.
    pub(crate) fn exchange(&self) -> String {
        format!("{}.now", self.prefix)
    }

    /// The queue of one listener.
    pub(crate) fn ear(&self, id: u128) -> String {
        format!("{}.ear.{id:032x}", self.prefix)
    }
}

/// What an ephemeral topic is called on the exchange. Long topics with one beginning share it, as they
/// share a queue; each message says which topic it is of.
pub(crate) fn key(topic: &Topic) -> String {
    let name: &str = topic.as_ref();
    match name.get(..TOPIC_BYTES_MAX) {
        Some(beginning) if name.len() > TOPIC_BYTES_MAX => format!("{beginning}{CUT}"),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_only_long_topics_share_them() {
        let prefix = "p".repeat(64);
        let names = Names::new(&prefix);
        let queue = |name: &str| names.queue(&Topic::new(name).unwrap());
        assert_eq!(queue("s/1f00/data"), format!("{prefix}.log.s/1f00/data"));
        let (fits, longer) = ("x".repeat(160), "x".repeat(161));
        assert_eq!(queue(&fits), format!("{prefix}.log.{fits}"));
        assert_eq!(queue(&longer), format!("{prefix}.log.{fits}#"));
        let longest = "x".repeat(Topic::BYTES_MAX);
        assert_eq!(queue(&longest), queue(&longer));
        assert!(queue(&longest).len() <= 255 && names.ear(u128::MAX).len() <= 255);
    }
}
