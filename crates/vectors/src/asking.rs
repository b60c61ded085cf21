//! What asking for keys sends: solicitations, claims, refusals, receipts.

use sealcast_protocol::{Claim, Interval, Receipt, Refusal, Solicitation, wrap_key_hash};

use crate::case::{Given, Lines, Outcome, hex, named};
use crate::control::Signed;
use crate::keys::KEY;

pub(crate) fn solicitations(given: &mut Given) -> Outcome {
    let verified = Signed::take(given)?.verify::<Solicitation>()?;
    let asked = verified.body();
    let key = asked.wrap_key().map_err(|error| named(KEY)(&error))?;
    Lines::default()
        .hex("digest", verified.digest().as_bytes())
        .text("stream", asked.stream)
        .hex("user", asked.user.0)
        .text("device", asked.device)
        .text(
            "list",
            format!("{} {}", asked.list.seq, hex(&asked.list.half)),
        )
        .text("request", asked.request)
        .hex("key-hash", wrap_key_hash(&key))
        .each(&asked.wants, |lines, want| {
            let Interval { from, until } = want.interval;
            let (lane, session) = (hex(&want.lane.0), want.session);
            lines.text("want", format!("{lane} {session} {} {}", from.0, until.0))
        })
        .each(&asked.heads, |lines, head| lines.text("head", head))
        .text("time", asked.time.0)
        .text("expires", asked.expires.0)
        .done()
}

pub(crate) fn claims(given: &mut Given) -> Outcome {
    let verified = Signed::take(given)?.verify::<Claim>()?;
    let claim = verified.body();
    Lines::default()
        .hex("digest", verified.digest().as_bytes())
        .text("stream", claim.stream)
        .text("asker", claim.asker)
        .text("request", claim.request)
        .hex("user", claim.user.0)
        .text("device", claim.device)
        .each(&claim.wants, |lines, at| lines.text("want", at))
        .done()
}

pub(crate) fn refusals(given: &mut Given) -> Outcome {
    let verified = Signed::take(given)?.verify::<Refusal>()?;
    let refusal = verified.body();
    Lines::default()
        .hex("digest", verified.digest().as_bytes())
        .text("stream", refusal.stream)
        .text("asker", refusal.asker)
        .text("request", refusal.request)
        .hex("user", refusal.user.0)
        .text("device", refusal.device)
        .each(&refusal.wants, |lines, at| lines.text("want", at))
        .text("reason", refusal.reason as u8)
        .done()
}

pub(crate) fn receipts(given: &mut Given) -> Outcome {
    let verified = Signed::take(given)?.verify::<Receipt>()?;
    let receipt = verified.body();
    Lines::default()
        .hex("digest", verified.digest().as_bytes())
        .text("stream", receipt.stream)
        .hex("user", receipt.user.0)
        .text("device", receipt.device)
        .text("request", receipt.request)
        .each(&receipt.wants, |lines, at| lines.text("want", at))
        .done()
}
