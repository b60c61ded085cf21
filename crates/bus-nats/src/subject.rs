//! Where things are on the server: spec/bus-nats.md, section 2.

use sealcast_bus::Topic;

/// Stands for a dot in a subject, where a dot ends a token.
const DOT: &str = "%";

/// The names that one bus has on its server.
#[derive(Clone, Debug)]
pub(crate) struct Subjects {
    prefix: String,
}

impl Subjects {
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    /// The JetStream stream that stores the bus.
    pub(crate) fn stream(&self) -> &str {
        &self.prefix
    }

    /// What that stream takes in.
    pub(crate) fn stored(&self) -> Vec<String> {
        ["log", "part"]
            .map(|kind| format!("{}.{kind}.>", self.prefix))
            .to_vec()
    }

    /// Where the messages of a log are.
    pub(crate) fn log(&self, topic: &Topic) -> String {
        self.of("log", topic)
    }

    /// Where the parts of a large append to a log are.
    pub(crate) fn part(&self, topic: &Topic) -> String {
        self.of("part", topic)
    }

    /// Where it is said that a log has grown.
    pub(crate) fn new_end(&self, topic: &Topic) -> String {
        self.of("new", topic)
    }

    /// Where an ephemeral topic is.
    pub(crate) fn now(&self, topic: &Topic) -> String {
        self.of("now", topic)
    }

    fn of(&self, kind: &str, topic: &Topic) -> String {
        let tokens = topic.as_ref().replace('.', DOT).replace('/', ".");
        format!("{}.{kind}.{tokens}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(name: &str) -> String {
        Subjects::new("x").log(&Topic::new(name).unwrap())
    }

    #[test]
    fn topics_become_subjects_without_collisions() {
        assert_eq!(log("s/1f00/data"), "x.log.s.1f00.data");
        assert_eq!(log("a.b"), "x.log.a%b");
        assert_eq!(log("a/b"), "x.log.a.b");
        assert_eq!(log("../."), "x.log.%%.%");
        assert_eq!(log("A-z_0~"), "x.log.A-z_0~");
    }
}
