//! What somebody asked of key nodes, asked again by somebody else.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use getrandom::SysRng;
use rand_core::{Rng as _, UnwrapErr};
use sealcast_protocol::{
    CardList, NodeRequest, Position, REQUEST_LIFETIME_MS_MAX, RequestId, Unverified, sign,
};

use crate::Failure;
use crate::home::identity;

/// The highest index that a key node may have.
const INDEX_MAX: u8 = 32;

/// Asks what a request asked that somebody caught, whatever the access log says: as the device of a home, signed by it, as
/// of now, and of whichever key nodes are shown it. `list` is the device list of the home's user, as the bus has it.
/// Returns what travels.
///
/// # Errors
///
/// Fails where there is no home, where a passphrase protects it, and where what was caught is no request.
pub fn ask_again(home: &Path, list: &[Vec<u8>], caught: &[u8]) -> Result<Vec<u8>, Failure> {
    let identity = identity(home)?;
    let caught = Unverified::<NodeRequest>::decode(caught)?;
    let mut cards = CardList::new(identity.user());
    for entry in list {
        cards.apply(entry)?;
    }
    let mut request = [0; 16];
    UnwrapErr(SysRng).fill_bytes(&mut request);
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let time = Position(u64::try_from(since.as_millis())?);
    let asks = NodeRequest {
        user: identity.user(),
        device: identity.device(),
        list: cards.pin().ok_or("the device list is empty")?,
        request: RequestId(request),
        nodes: (1..=INDEX_MAX).collect(),
        time,
        expires: time.after(REQUEST_LIFETIME_MS_MAX),
        ..caught.claims().clone()
    };
    Ok(sign(identity.signing(), asks)?.wire().to_vec())
}
