//! The topics that a rule names.

use std::fmt;
use std::str::FromStr;

use sealcast::TopicFilter;

type FilterError = <TopicFilter as FromStr>::Err;

/// A filter for topics: those of clients, or those that begin with `$`, which a broker has for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    /// Without the `$` of the latter.
    filter: TopicFilter,
    is_of_broker: bool,
}

impl Topics {
    /// Whether a topic matches.
    pub fn matches(&self, topic: &str) -> bool {
        match (self.is_of_broker, topic.strip_prefix('$')) {
            (true, Some(rest)) => self.filter.matches(rest),
            (true, None) => false,
            (false, _) => self.filter.matches(topic),
        }
    }

    /// Whether all topics that others match match these.
    pub fn covers(&self, other: &Self) -> bool {
        self.is_of_broker == other.is_of_broker && self.filter.covers(&other.filter)
    }

    /// The filter, where it is for topics of clients.
    pub fn of_clients(&self) -> Option<&TopicFilter> {
        (!self.is_of_broker).then_some(&self.filter)
    }
}

impl FromStr for Topics {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let first = text.split('/').next().unwrap_or_default();
        let rest = match first {
            "$share" | "$queue" => None,
            _ => text.strip_prefix('$'),
        };
        // No wildcard stands for a part of a level.
        let is_odd = rest.is_some_and(|rest| rest.starts_with(['+', '#', '$']));
        Ok(Self {
            filter: if is_odd { text } else { rest.unwrap_or(text) }.parse()?,
            is_of_broker: rest.is_some(),
        })
    }
}

impl fmt::Display for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dollar = if self.is_of_broker { "$" } else { "" };
        write!(f, "{dollar}{}", self.filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(text: &str) -> Topics {
        text.parse().unwrap()
    }

    #[test]
    fn what_begins_with_a_dollar_is_named_by_what_does_and_by_nothing_else() {
        for text in ["$SYS/#", "$SYS/broker/+", "$SYS", "plant/#", "#"] {
            assert_eq!(topics(text).to_string(), text);
        }
        assert!(topics("$SYS/#").matches("$SYS/broker/load"));
        assert!(!topics("$SYS/#").matches("SYS/broker/load"));
        assert!(!topics("#").matches("$SYS/broker/load"));
        assert!(!topics("SYS/#").matches("$SYS/broker/load"));
        assert!(topics("$SYS/#").covers(&topics("$SYS/broker/+")));
        assert!(!topics("#").covers(&topics("$SYS/#")));
        assert!(!topics("$SYS/#").covers(&topics("SYS/x")));
        assert_eq!(topics("$SYS/#").of_clients(), None);
        for odd in [
            "$",
            "$#",
            "$+/x",
            "$$SYS/x",
            "$share/g/x",
            "$queue/x",
            "$SYS/#/x",
        ] {
            assert!(odd.parse::<Topics>().is_err(), "{odd}");
        }
    }
}
