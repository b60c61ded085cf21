//! Codes of new devices, and what is said under them (`spec/pairing.md`).

use sealcast_crypto::{PairingKey, SigningKey, digest};
use sealcast_protocol::{
    Card, Consent, ListBytes, PairingCode, PairingItem, PairingRequest, Welcome, WelcomeContact,
    WelcomeDevice, WelcomeStream, encode, sign, wrap_welcome,
};

use super::case::Case;
use super::cast::{Device, Given, anna, ben, device};

const NONCE: [u8; 16] = [7; 16];

pub(super) fn cases() -> anyhow::Result<Vec<Case>> {
    Ok([codes(), items()?, welcomes()?].concat())
}

/// The device that is added to Anna.
fn newcomer() -> Device {
    device(&anna().user, 0x12)
}

fn request() -> PairingRequest {
    let new = newcomer();
    PairingRequest {
        sign_key: *new.signing.verifying_key().as_bytes(),
        wrap_key: new.unwrap.wrap_key().as_bytes().to_vec(),
        nonce: NONCE,
    }
}

fn code() -> PairingCode {
    request().code()
}

fn codes() -> Vec<Case> {
    let text = code().to_string();
    let given = |name: &str, about: &str, text: &str| {
        Case::new("pairing-code", name, about).with("text", text)
    };
    let zeros = "0000-0000-0000-0000-0000-0000-037Y";
    let others = (0..=255).map(|nonce| {
        let nonce = [nonce; 16];
        PairingRequest { nonce, ..request() }.code().to_string()
    });
    let mut others = others.filter(|text| text.contains('0') && text.matches('1').count() > 1);
    let mistakable = others.next().unwrap_or_default();
    let mistaken = mistakable
        .replace('0', "o")
        .replacen('1', "I", 1)
        .replace('1', "l");
    let twin = |text: &str, at: usize| {
        let mut letters: Vec<char> = text.chars().collect();
        letters[at] = if letters[at] == '2' { '3' } else { '2' };
        letters.into_iter().collect::<String>()
    };
    #[rustfmt::skip]
    let good = [
        ("good", "as it is shown", text.clone(), text.clone()),
        ("small-letters", "small letters", text.to_lowercase(), text.clone()),
        ("without-hyphens", "no hyphens", text.replace('-', ""), text.clone()),
        ("with-spaces", "spaces in the place of hyphens", text.replace('-', " "), text.clone()),
        ("zeros", "a code of zeros", zeros.to_owned(), zeros.to_owned()),
        ("mistaken-letters", "O for 0, I and L for 1", mistaken, mistakable),
    ];
    let good = good.into_iter().map(|(name, about, text, shown)| {
        let code: Option<PairingCode> = shown.parse().ok();
        let topic = code.map_or(String::new(), |code| code.topic());
        given(name, about, &text)
            .ok()
            .with("code", shown)
            .with("topic", topic)
    });
    #[rustfmt::skip]
    let bad = [
        ("first-letter-differs", "one letter is mistyped", twin(&text, 0), "mistyped"),
        ("last-letter-differs", "the last letter is mistyped", twin(&text, 33), "mistyped"),
        ("letter-missing", "27 letters", text[1..].to_owned(), "code length"),
        ("letter-too-many", "29 letters", format!("{text}0"), "code length"),
        ("empty", "no letters", String::new(), "code length"),
        ("letter-u", "a letter that is in no code", format!("U{}", &text[1..]), "letter"),
        ("letter-of-another-script", "a letter that looks like one", format!("Α{}", &text[1..]), "letter"),
    ];
    let bad = bad.into_iter();
    let bad = bad.map(|(name, about, text, failure)| given(name, about, &text).fails(failure));
    good.chain(bad).collect()
}

fn given(name: &str, about: &str, sealed: &[u8]) -> Case {
    Case::new("pairing-item", name, about)
        .with("code", code())
        .hex("sealed", sealed)
}

fn seal(plaintext: &[u8]) -> Vec<u8> {
    key().seal(&mut Given(&[5; 12]), plaintext)
}

fn key() -> PairingKey {
    let text = code().to_string();
    let bits = text.chars().filter(|c| *c != '-').take(26);
    let alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let value = |letter| alphabet.find(letter).map_or(0, |at| at as u128);
    let all = bits.map(value).collect::<Vec<_>>();
    // 26 letters are 130 bits, the last two of which are the checksum's.
    let (last, first) = all
        .split_last()
        .map_or((0, &[][..]), |(last, of)| (*last, of));
    let head = first.iter().fold(0_u128, |all, of| (all << 5) | of);
    PairingKey::derive(&((head << 3) | (last >> 2)).to_be_bytes())
}

fn items() -> anyhow::Result<Vec<Case>> {
    let (user, new) = (anna().user, newcomer());
    let possession = Card::consent(&user, &new.signing, &new.unwrap.wrap_key());
    let said = |item: &PairingItem| code().seal(&mut Given(&[5; 12]), item);
    let ask = PairingItem::Request(Box::new(request()));
    let offer = PairingItem::Offer(user);
    let consent = PairingItem::Consent(Consent { user, possession });
    let sealed = said(&offer);
    let mut flipped = sealed.clone();
    flipped[20] ^= 1;
    let body = [&[0x82, 1][..], &encode(&offer)].concat();
    let wrap_key_hash = sealcast_protocol::wrap_key_hash(&new.unwrap.wrap_key());
    let mut cases = vec![
        given("request", "the keys of the new device", &said(&ask))
            .ok()
            .with("says", "request")
            .with("code", code())
            .hex("sign-key", request().sign_key)
            .hex("wrap-key-hash", wrap_key_hash)
            .hex("nonce", NONCE),
        given("offer", "the example of the page", &sealed)
            .ok()
            .with("says", "offer")
            .hex("user", user.0),
        given(
            "consent",
            "the new device will be the user's",
            &said(&consent),
        )
        .ok()
        .with("says", "consent")
        .hex("user", user.0)
        .hex("possession", possession),
    ];
    let other = PairingKey::derive(&[9; 16]).seal(&mut Given(&[5; 12]), &body);
    #[rustfmt::skip]
    let faults = [
        ("altered", "a bit of the ciphertext is flipped", flipped, "not authentic"),
        ("under-another-code", "sealed under another code", other, "not authentic"),
        ("cut", "27 bytes", sealed[..27].to_vec(), "not authentic"),
        ("body-version-2", "version 2", seal(&[&[0x82, 2], &body[2..]].concat()), "unknown version"),
        ("body-tag-4", "a kind that there is not", seal(&[&[0x82, 1, 0x82, 4], &body[4..]].concat()), "malformed"),
        ("body-byte-behind", "a byte behind the body", seal(&[&*body, &[0]].concat()), "malformed"),
        ("body-version-in-two-bytes", "the version takes two bytes instead of one", seal(&[&[0x82, 0x18, 1], &body[2..]].concat()), "malformed"),
    ];
    let faults = faults.into_iter();
    cases.extend(
        faults.map(|(name, about, sealed, failure)| given(name, about, &sealed).fails(failure)),
    );
    Ok(cases)
}

fn welcomes() -> anyhow::Result<Vec<Case>> {
    let (anna, new) = (anna(), newcomer());
    let ticket = "sealcast1:hQF1bXF0dDovL2Jyb2tlci5leGFtcGxlWCBRUVFRUVFRUVFRUVFRUVFRUVFRUVFRUVFRUVFRUVFRUVgg0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzdrYm9pbGVyIHJvb20ceVHJ";
    let welcome = Welcome {
        version: 1,
        user: anna.user,
        giver: anna.device.id,
        device: new.id,
        name: "anna".to_owned(),
        list: vec![ListBytes(vec![1, 2, 3])],
        streams: vec![WelcomeStream {
            name: "boiler".parse()?,
            ticket: ticket.to_owned(),
        }],
        contacts: vec![WelcomeContact {
            name: "ben".parse()?,
            user: ben().user,
        }],
        devices: vec![WelcomeDevice {
            name: "phone".parse()?,
            device: new.id,
        }],
    };
    let seed = digest("sealcast test rng", &[b"welcome"]);
    let drawn = [*seed.as_bytes(), *seed.as_bytes()].concat();
    let sealed = |by: &SigningKey, welcome: &Welcome| -> anyhow::Result<Vec<u8>> {
        let signed = sign(by, welcome.clone())?;
        let item = wrap_welcome(&mut Given(&drawn), &signed, &request());
        let item = item.map_err(|_| anyhow::anyhow!("no key"))?;
        Ok(code().seal(&mut Given(&[5; 12]), &item))
    };
    let good = sealed(&anna.device.signing, &welcome)?;
    let of = |name: &str, about: &str, sealed: &[u8], device: [u8; 16]| {
        given(name, about, sealed)
            .hex("user", anna.user.0)
            .hex("device", device)
            .hex("unwrap-seed", new.unwrap.expose_seed())
            .hex("public-key", anna.device.signing.verifying_key().as_bytes())
    };
    let stranger = sealed(&ben().device.signing, &welcome)?;
    Ok(vec![
        of("welcome", "the new device is the user's", &good, new.id.0)
            .ok()
            .with("says", "welcome")
            .with("giver", anna.device.id)
            .with("name", "anna")
            .hex("entry", [1, 2, 3])
            .with("stream", format!("boiler {ticket}"))
            .with(
                "contact",
                format!("ben {}", super::case::hex(&ben().user.0)),
            )
            .with("device-name", format!("phone {}", new.id)),
        of(
            "welcome-of-another-device",
            "it is wrapped for another device",
            &good,
            [9; 16],
        )
        .fails("not authentic"),
        of(
            "welcome-of-a-stranger",
            "another device signed it",
            &stranger,
            new.id.0,
        )
        .fails("signature"),
    ])
}
