//! For how long a client's session outlives its connection: `spec/proxy.md`, Session.

/// Under which number it is kept with what waits; no message has it.
pub(crate) const NUMBER: u64 = 0;
/// The version of what is kept.
const VERSION: u8 = 1;
const LEN: usize = 13;
/// What MQTT 5 says of a session that does not end.
const FOR_EVER: u32 = u32::MAX;

/// For how long a session outlives its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lasts {
    /// Until its broker ends it.
    Ever,
    /// So many seconds; 0 where it ends with the connection.
    Seconds(u32),
}

impl From<u32> for Lasts {
    fn from(said: u32) -> Self {
        match said {
            FOR_EVER => Self::Ever,
            seconds => Self::Seconds(seconds),
        }
    }
}

impl Lasts {
    /// Whether it ends with the connection.
    pub(crate) fn is_brief(self) -> bool {
        self == Self::Seconds(0)
    }
}

/// A session that ends some time after its connection, as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) seconds: u32,
    /// When its last connection ended, in milliseconds of Unix time; 0 while there is one.
    pub(crate) left: u64,
}

impl Session {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.seconds.to_be_bytes());
        bytes.extend_from_slice(&self.left.to_be_bytes());
        bytes
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LEN] = bytes.try_into().ok()?;
        let (version, rest) = bytes.split_first()?;
        let (seconds, left) = rest.split_first_chunk()?;
        (*version == VERSION).then_some(Self {
            seconds: u32::from_be_bytes(*seconds),
            left: u64::from_be_bytes(left.try_into().ok()?),
        })
    }

    /// Whether it is over. Where it is not known when its connection ended, the proxy having been killed, that was when
    /// this one began.
    pub(crate) fn is_over(self, now: u64, began: u64) -> bool {
        let left = if self.left == 0 { began } else { self.left };
        now.saturating_sub(left) > u64::from(self.seconds) * 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_over_some_time_after_its_connection() {
        let session = Session {
            seconds: 60,
            left: 1_000,
        };
        assert_eq!(Session::read(&session.encode()), Some(session));
        assert_eq!(Session::read(&session.encode()[1..]), None);
        assert!(!session.is_over(61_000, 0) && session.is_over(61_001, 0));
        let connected = Session { left: 0, ..session };
        assert!(!connected.is_over(70_000, 10_000) && connected.is_over(70_001, 10_000));
        assert_eq!(Lasts::from(u32::MAX), Lasts::Ever);
        assert!(Lasts::from(0).is_brief() && !Lasts::Ever.is_brief());
    }
}
