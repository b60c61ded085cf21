use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The first byte of an item that says on which topic it came; `spec/bus.md`, section 14.
const WITH_TOPIC: u8 = 0x80;
/// The most bytes of a topic, and of a filter.
const TOPIC_MAX: usize = 1024;
const FILTER_MAX: usize = 256;
const RETAINED: &str = "&retain=";

/// A filter for topics: `+` stands for one level, and `#` at the end for all that follow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicFilter(Arc<str>);

impl TopicFilter {
    /// Whether a topic matches.
    pub fn matches(&self, topic: &str) -> bool {
        // What a broker has for itself matches no filter that begins with a wildcard.
        let is_hidden = topic.starts_with('$') && self.0.starts_with(['+', '#']);
        let (mut filter, mut levels) = (self.0.split('/'), topic.split('/'));
        loop {
            match (filter.next(), levels.next()) {
                (Some("#"), _) => return !is_hidden,
                (Some("+"), Some(_)) => {}
                (Some(one), Some(other)) if one == other => {}
                (None, None) => return !is_hidden,
                _ => return false,
            }
        }
    }

    /// Whether all topics that another filter matches match this one.
    pub fn covers(&self, other: &Self) -> bool {
        let (mut levels, mut others) = (self.0.split('/'), other.0.split('/'));
        loop {
            match (levels.next(), others.next()) {
                (Some("#"), _) | (None, None) => return true,
                (Some("+"), Some(level)) if level != "#" => {}
                (Some(one), Some(level)) if one == level => {}
                _ => return false,
            }
        }
    }
}

impl FromStr for TopicFilter {
    type Err = TopicFilterError;

    fn from_str(text: &str) -> Result<Self, TopicFilterError> {
        match text.split('/').next() {
            Some("$share" | "$queue") => return Err(TopicFilterError::Shared),
            Some(first) if first.starts_with('$') => return Err(TopicFilterError::OfBroker),
            Some(_) | None => {}
        }
        let mut levels = text.split('/').rev();
        let last = levels.next().unwrap_or_default();
        let is_level = |level: &str| level == "+" || !level.contains(['+', '#']);
        let is_filter = (last == "#" || is_level(last)) && levels.all(is_level);
        let is_plain = !text.contains(char::is_control);
        let has_length = (1..=FILTER_MAX).contains(&text.len());
        match is_filter && is_plain && has_length {
            true => Ok(Self(text.into())),
            false => Err(TopicFilterError::Form),
        }
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no filter for topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicFilterError {
    /// It is empty or too long, or has wildcards elsewhere.
    #[error(
        "a filter has levels, of which `+` stands for one and `#`, as the last, for all that follow"
    )]
    Form,
    /// It is a shared subscription. Leave out `$share/` and the name of the group.
    #[error(
        "a shared subscription gives each message to one of several, and every home needs all; leave out \
         `$share/` and the group"
    )]
    Shared,
    /// It takes what a broker says of itself.
    #[error("what begins with `$` is the broker's own")]
    OfBroker,
    /// It would take what is of the bus itself.
    #[error("its first level is a name, and another than that of the bus")]
    OfBus,
}

/// Topics of a broker on which the messages of a stream travel under the names that the broker's users
/// have for them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UsersTopics {
    filter: TopicFilter,
    retained: Option<TopicFilter>,
}

impl UsersTopics {
    /// Reads `FILTER`, or `FILTER&retain=FILTER`. The first matches nothing that is below `name`, where
    /// all else of the bus is.
    pub(crate) fn parse(text: &str, name: &str) -> Result<Self, TopicFilterError> {
        let (filter, retained) = match text.split_once(RETAINED) {
            Some((filter, retained)) => (filter, Some(retained.parse()?)),
            None => (text, None),
        };
        let first = filter.split('/').next();
        match first.is_some_and(|level| ["+", "#", name].contains(&level)) {
            true => Err(TopicFilterError::OfBus),
            false => Ok(Self {
                filter: filter.parse()?,
                retained,
            }),
        }
    }

    /// What the broker is asked for to have them all.
    pub fn filter(&self) -> &TopicFilter {
        &self.filter
    }

    /// Which of them the broker is told to keep the last message of, if any.
    pub fn retained(&self) -> Option<&TopicFilter> {
        self.retained.as_ref()
    }

    /// Whether messages travel on a topic.
    pub fn has(&self, topic: &str) -> bool {
        self.filter.matches(topic)
    }

    /// Whether the broker is told to keep the last message of a topic for those who come later.
    pub fn retains(&self, topic: &str) -> bool {
        self.retained.as_ref().is_some_and(|of| of.matches(topic))
    }
}

/// As it stands in a URL.
impl fmt::Display for UsersTopics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.filter.fmt(f)?;
        match &self.retained {
            Some(retained) => write!(f, "{RETAINED}{retained}"),
            None => Ok(()),
        }
    }
}

/// An item of a data log that says on which topic of a broker it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicItem<'a> {
    /// The topic.
    pub topic: &'a str,
    /// What came there.
    pub payload: &'a [u8],
}

impl<'a> TopicItem<'a> {
    /// Takes an item apart; nothing where it says no topic.
    pub fn parse(item: &'a [u8]) -> Option<Self> {
        let (len, rest) = item.strip_prefix(&[WITH_TOPIC])?.split_first_chunk()?;
        let (topic, payload) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        let topic = std::str::from_utf8(topic).ok()?;
        is_topic(topic).then_some(Self { topic, payload })
    }

    /// Puts it together; nothing where the topic is none that an item can say.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let len = u16::try_from(self.topic.len()).ok()?;
        let parts = [
            &[WITH_TOPIC][..],
            &len.to_be_bytes(),
            self.topic.as_bytes(),
            self.payload,
        ];
        is_topic(self.topic).then(|| parts.concat())
    }
}

fn is_topic(text: &str) -> bool {
    let is_odd = |of: char| matches!(of, '+' | '#') || of.is_control();
    (1..=TOPIC_MAX).contains(&text.len()) && !text.contains(is_odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(filter: &str, topic: &str) -> bool {
        filter.parse::<TopicFilter>().unwrap().matches(topic)
    }

    #[test]
    fn a_filter_takes_the_topics_that_mqtt_says() {
        for (filter, topics) in [
            ("plant/#", &["plant", "plant/7", "plant/7/t", "plant/"][..]),
            ("plant/+/t", &["plant/7/t", "plant//t"]),
            ("+/t", &["plant/t", "/t"]),
            ("#", &["plant", "/", "a/b"]),
            ("plant/t", &["plant/t"]),
            ("/+", &["/t"]),
        ] {
            for topic in topics {
                assert!(matches(filter, topic), "{filter} takes {topic}");
            }
        }
        for (filter, topics) in [
            ("plant/#", &["plants", "other/plant", "$SYS/plant"][..]),
            ("plant/+/t", &["plant/t", "plant/7/8/t", "plant/7/t/x"]),
            ("+", &["plant/t", "/t", "$SYS"]),
            ("#", &["$SYS/uptime"]),
            ("plant/t", &["plant/T", "plant/t/", "plant"]),
        ] {
            for topic in topics {
                assert!(!matches(filter, topic), "{filter} does not take {topic}");
            }
        }
    }

    #[test]
    fn a_filter_covers_what_takes_no_other_topics() {
        let covers = |one: &str, other: &str| {
            let [one, other] = [one, other].map(|text| text.parse::<TopicFilter>().unwrap());
            one.covers(&other)
        };
        for (one, other) in [
            ("#", "plant/#"),
            ("plant/#", "plant"),
            ("plant/#", "plant/+/t"),
            ("plant/+/t", "plant/7/t"),
            ("plant/+/t", "plant/+/t"),
            ("+/t", "plant/t"),
        ] {
            assert!(covers(one, other), "{one} covers {other}");
        }
        for (one, other) in [
            ("plant/#", "#"),
            ("plant/+", "plant/#"),
            ("plant/7/t", "plant/+/t"),
            ("plant/+", "plant"),
            ("plant/#", "plants/#"),
            ("plant/+/t", "plant/7"),
        ] {
            assert!(!covers(one, other), "{one} does not cover {other}");
        }
    }

    #[test]
    fn other_texts_are_no_filters() {
        let long = "x".repeat(FILTER_MAX + 1);
        let parse = |text: &str| text.parse::<TopicFilter>();
        for odd in ["", "a#", "#/a", "a/#/b", "a+/b", "a\nb", &long] {
            assert_eq!(parse(odd), Err(TopicFilterError::Form), "{odd:?}");
        }
        for odd in ["$share/g/a", "$share", "$queue/a"] {
            assert_eq!(parse(odd), Err(TopicFilterError::Shared), "{odd:?}");
        }
        assert_eq!(parse("$SYS/#"), Err(TopicFilterError::OfBroker));
    }

    #[test]
    fn what_is_retained_has_a_filter_of_its_own() {
        let users = UsersTopics::parse("plant/#&retain=plant/+/state", "p").unwrap();
        assert_eq!(users.to_string(), "plant/#&retain=plant/+/state");
        assert!(users.has("plant/7/t") && !users.retains("plant/7/t"));
        assert!(users.retains("plant/7/state"));
        let none = UsersTopics::parse("plant/#", "p").unwrap();
        assert!(!none.retains("plant/7/state") && none.filter().to_string() == "plant/#");
        for odd in [
            "",
            "&retain=a",
            "a&retain=",
            "a&retain=b#",
            "#",
            "+/a",
            "p",
            "p/#",
        ] {
            assert!(UsersTopics::parse(odd, "p").is_err(), "{odd}");
        }
    }

    #[test]
    fn an_item_says_on_which_topic_it_came() {
        let item = TopicItem {
            topic: "plant/7",
            payload: b"rest",
        };
        let bytes = item.encode().unwrap();
        assert_eq!(bytes, b"\x80\0\x07plant/7rest");
        assert_eq!(TopicItem::parse(&bytes), Some(item));
        for odd in [
            &b""[..],
            b"rest",
            b"\x80\0",
            b"\x80\0\0x",
            b"\x80\0\x02a",
            b"\x80\0\x01#",
        ] {
            assert_eq!(TopicItem::parse(odd), None, "{odd:?}");
        }
        let topic = &*"x".repeat(TOPIC_MAX + 1);
        assert_eq!(
            TopicItem {
                topic,
                payload: b""
            }
            .encode(),
            None
        );
    }
}
