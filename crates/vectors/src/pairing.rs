//! The codes of new devices, and what is said under them.

use sealcast_crypto::{UnwrapKey, VerifyingKey};
use sealcast_protocol::{
    DeviceId, PairingCode, PairingItem, UserId, unwrap_welcome, wrap_key_hash,
};

use crate::case::{Given, Lines, Outcome, hex, named};

const CODE: &[(&str, &str)] = &[
    ("Letter", "letter"),
    ("Length", "code length"),
    ("Mistyped", "mistyped"),
];
const ITEM: &[(&str, &str)] = &[
    ("NotAuthentic", "not authentic"),
    ("Malformed(TooLong", "too long"),
    ("Malformed(Malformed)", "malformed"),
    ("Malformed(NotCanonical)", "malformed"),
    ("Malformed(UnknownVersion", "unknown version"),
];

pub(crate) fn codes(given: &mut Given) -> Outcome {
    let code: Result<PairingCode, _> = given.text("text")?.parse();
    let code = code.map_err(|error| named(CODE)(&error))?;
    Lines::default()
        .text("code", code)
        .text("topic", code.topic())
        .done()
}

pub(crate) fn items(given: &mut Given) -> Outcome {
    let code: PairingCode = given.text("code")?.parse().map_err(|_| "no code")?;
    let (sealed, seed) = (given.bytes("sealed")?, given.maybe_array("unwrap-seed")?);
    let (user, device) = (given.maybe_array("user")?, given.maybe_array("device")?);
    let key = given.maybe_array("public-key")?;
    let item = code.open(&sealed).map_err(|error| named(ITEM)(&error))?;
    let lines = Lines::default();
    let lines = match &item {
        PairingItem::Request(request) => {
            let key = request.wrap_key().map_err(|_| "no key")?;
            lines
                .text("says", "request")
                .text("code", request.code())
                .hex("sign-key", request.sign_key)
                .hex("wrap-key-hash", wrap_key_hash(&key))
                .hex("nonce", request.nonce)
        }
        PairingItem::Offer(user) => lines.text("says", "offer").hex("user", user.0),
        PairingItem::Consent(consent) => lines
            .text("says", "consent")
            .hex("user", consent.user.0)
            .hex("possession", consent.possession),
        PairingItem::Welcome(_) => {
            let (user, device) = (
                UserId(user.ok_or("no `user`")?),
                DeviceId(device.ok_or("no `device`")?),
            );
            let unwrap = UnwrapKey::from_seed(&seed.ok_or("no `unwrap-seed`")?);
            let welcome = unwrap_welcome(&item, &user, &device, code, &unwrap);
            let welcome = welcome.ok_or("not authentic")?;
            let key = VerifyingKey::from_bytes(key.ok_or("no `public-key`")?);
            let welcome = welcome.verify(&key.map_err(|_| "no key")?);
            let welcome = welcome.map_err(|_| "signature")?;
            let says = welcome.body();
            lines
                .text("says", "welcome")
                .text("giver", says.giver)
                .text("name", &says.name)
                .each(&says.list, |lines, entry| lines.hex("entry", &entry.0))
                .each(&says.streams, |lines, of| {
                    lines.text("stream", format!("{} {}", of.name, of.ticket))
                })
                .each(&says.contacts, |lines, of| {
                    lines.text("contact", format!("{} {}", of.name, hex(&of.user.0)))
                })
                .each(&says.devices, |lines, of| {
                    lines.text("device-name", format!("{} {}", of.name, of.device))
                })
        }
    };
    lines.done()
}
