//! What lies in a topic of control objects and was put there by none of those whose topic it is.

use sealcast_protocol::{Signable, Verified, VerifyError, claims_newer_version};

use super::{Alarm, ControlTopic, Output, StreamView};

impl StreamView {
    /// Tells once of each topic of the stream. Whoever asks for keys may be in a list of no topic of it.
    pub(super) fn tell_forged(&mut self, topic: ControlTopic) {
        // A flood of it costs no more than this.
        if self.forged.contains(&topic) {
            return;
        }
        let is_followed = match topic {
            ControlTopic::Devices(user) | ControlTopic::Access(user, _) => {
                user == self.user || self.log.named_users().contains(&user)
            }
            ControlTopic::Keys => true,
        };
        if is_followed && self.forged.insert(topic) {
            self.outputs.push_back(Output::Tell(Alarm::Forged(topic)));
        }
    }

    /// Tells of bytes that are no object of the topic. What a newer program wrote is not forged.
    pub(super) fn tell_unreadable(&mut self, topic: ControlTopic, bytes: &[u8]) {
        if !claims_newer_version(bytes) {
            self.tell_forged(topic);
        }
    }

    /// Tells of what was not signed by the device that it names.
    pub(super) fn signed<T: Signable>(
        &mut self,
        topic: ControlTopic,
        verified: Result<Verified<T>, VerifyError>,
    ) -> Option<Verified<T>> {
        if matches!(verified, Err(VerifyError::BadSignature)) {
            self.tell_forged(topic);
        }
        verified.ok()
    }
}
