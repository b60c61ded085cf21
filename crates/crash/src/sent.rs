use std::collections::BTreeMap;

/// Bytes of an envelope that, with its stream and topic, fix its message key.
const HEADER_LEN: usize = 72;

/// Every envelope that ever left, and whether one message key sealed two plaintexts.
///
/// A message key is fixed by stream, topic and the header, in which session, position, device,
/// instance and number stand. So two envelopes of one topic with the same header must be the same
/// envelope.
#[derive(Debug, Default)]
pub struct Sent {
    envelopes: BTreeMap<(String, Vec<u8>), Vec<u8>>,
    reused: Vec<String>,
}

impl Sent {
    /// Takes in what was handed to a bus, whether or not the bus took it. The topic names the stream.
    pub fn add(&mut self, topic: &str, envelope: &[u8]) {
        let header = envelope.get(..HEADER_LEN).unwrap_or(envelope);
        let known = self
            .envelopes
            .entry((topic.to_owned(), header.to_vec()))
            .or_insert_with(|| envelope.to_vec());
        if known != envelope {
            let header: String = header.iter().map(|byte| format!("{byte:02x}")).collect();
            self.reused
                .push(format!("one key for two plaintexts in {topic}: {header}"));
        }
    }

    /// Takes in several of one topic.
    pub fn extend<'a>(&mut self, topic: &str, envelopes: impl IntoIterator<Item = &'a Vec<u8>>) {
        for envelope in envelopes {
            self.add(topic, envelope);
        }
    }

    /// How many different envelopes there were.
    pub fn count(&self) -> usize {
        self.envelopes.len()
    }

    /// Says, for each envelope that has the header of a different one, which; nothing where every
    /// key was used once.
    pub fn reused(&self) -> &[String] {
        &self.reused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reused(envelopes: &[(&str, u8, u8)]) -> usize {
        let mut sent = Sent::default();
        for (topic, header, rest) in envelopes {
            sent.add(topic, &[vec![*header; HEADER_LEN], vec![*rest]].concat());
        }
        sent.reused().len()
    }

    #[test]
    fn one_header_on_two_envelopes_of_one_topic_is_a_key_used_twice() {
        assert_eq!(reused(&[("a", 1, 1), ("a", 1, 2)]), 1);
        assert_eq!(reused(&[("a", 1, 1), ("a", 1, 1)]), 0);
        assert_eq!(reused(&[("a", 1, 1), ("a", 2, 2)]), 0);
        assert_eq!(reused(&[("a", 1, 1), ("b", 1, 2)]), 0);
    }
}
