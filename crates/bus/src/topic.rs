use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The name of a topic: segments of `a-z A-Z 0-9 . _ ~ -`, joined by `/`, 512 bytes at most.
///
/// Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

impl Topic {
    /// The most bytes a name may have.
    pub const BYTES_MAX: usize = 512;

    /// Checks `name` and keeps it.
    ///
    /// # Errors
    ///
    /// Fails when `name` is empty or too long, has an empty segment, or a character that is not
    /// allowed.
    pub fn new(name: &str) -> Result<Self, TopicError> {
        if name.len() > Self::BYTES_MAX {
            return Err(TopicError::TooLong { size: name.len() });
        }
        if let Some(found) = name.chars().find(|c| !is_allowed(*c)) {
            return Err(TopicError::Character { found });
        }
        if name.split('/').any(str::is_empty) {
            return Err(TopicError::EmptySegment);
        }
        Ok(Self(name.into()))
    }
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '~' | '-' | '/')
}

impl AsRef<str> for Topic {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(name: &str) -> Result<Self, TopicError> {
        Self::new(name)
    }
}

/// Why a name is not a topic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// The name is empty, begins or ends with `/`, or has two of them in a row.
    #[error("topic has an empty segment")]
    EmptySegment,
    /// The name is too long.
    #[error("topic has {size} bytes, at most {} are allowed", Topic::BYTES_MAX)]
    TooLong {
        /// Bytes in the name.
        size: usize,
    },
    /// The name has a character that is not allowed.
    #[error("topic has a character that is not allowed: {found:?}")]
    Character {
        /// The first such character.
        found: char,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_allowed_segments_are_topics() {
        for name in ["a", "s/1f00/data", "A-z_0.9~/..", &"x".repeat(512)] {
            let topic = Topic::new(name).unwrap();
            assert_eq!(topic.to_string(), name);
            assert_eq!(topic.as_ref(), name);
        }
    }

    #[test]
    fn other_names_are_refused_for_what_is_wrong_with_them() {
        for name in ["", "/", "/a", "a/", "a//b"] {
            assert_eq!(
                Topic::new(name),
                Err(TopicError::EmptySegment),
                "name {name:?}"
            );
        }
        for (name, found) in [
            ("a b", ' '),
            ("s/+", '+'),
            ("s/#", '#'),
            ("é", 'é'),
            ("\0", '\0'),
        ] {
            assert_eq!(Topic::new(name), Err(TopicError::Character { found }));
        }
        assert_eq!(
            Topic::new(&"x".repeat(513)),
            Err(TopicError::TooLong { size: 513 })
        );
    }
}
