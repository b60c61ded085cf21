//! The search finds what is left on purpose: a test of the tests.

use std::hint::black_box;

use sealcast_bus::{Bus as _, FileBus, Topic};
use sealcast_crypto::{SecretBytes, SessionRoot, leaving_no_trace};
use sealcast_traces::{Form, Needles, search_files};

use crate::child::{Inside, Watched, assert_none, draw, names};

/// A way to leave a secret behind, and whether it is one.
type Leak = (&'static str, bool, fn(&SecretBytes));

const LEAKS: &[Leak] = &[
    ("wiped copy", false, |secret| drop(secret.duplicate())),
    ("forgotten copy", true, |secret| {
        black_box(Box::leak(Box::new(secret.duplicate())));
    }),
    ("freed buffer", true, |secret| {
        drop(black_box(secret.expose().to_vec()))
    }),
    ("regrown buffer", true, |secret| {
        let mut grown = Vec::with_capacity(secret.len());
        grown.extend_from_slice(secret.expose());
        grown.reserve(4096);
        drop(SecretBytes::from(black_box(grown)));
    }),
    ("root that was taken out", true, |secret| {
        let root = SessionRoot::init_with(|of| of.copy_from_slice(&secret.expose()[..32]));
        drop(black_box(root.expose().to_vec()));
    }),
    ("stack", true, on_the_stack),
    ("wiped stack", false, |secret| {
        leaving_no_trace(|| on_the_stack(secret))
    }),
];

#[inline(never)]
fn on_the_stack(secret: &SecretBytes) {
    // So deep that what is done next does not reach it.
    let mut room = [0_u8; 32 << 10];
    room[..64].copy_from_slice(secret.expose());
    black_box(&mut room);
}

#[test]
fn what_is_left_in_memory_on_purpose_is_found() {
    if let Some(mut inside) = Inside::new() {
        for (_, _, leak) in LEAKS {
            let secret = inside.take();
            leak(&secret);
            drop(secret);
            inside.show("left");
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let test = "leaks::what_is_left_in_memory_on_purpose_is_found";
    let mut child = Watched::start(test, folder.path());
    for (name, is_leak, _) in LEAKS {
        let secret = draw::<64>();
        child.give(&secret);
        assert_eq!(child.hear(), "left");
        let mut needles = Needles::new();
        needles.add(*name, &secret);
        let found = child.search(&needles);
        assert_eq!(!found.is_empty(), *is_leak, "{name}: {found:?}");
        child.go_on();
    }
    child.end();
}

#[test]
fn what_is_printed_on_purpose_is_found() {
    if let Some(mut inside) = Inside::new() {
        let secret = inside.take();
        let hex: String = secret
            .expose()
            .iter()
            .map(|of| format!("{of:02X}"))
            .collect();
        log::trace!("key={:?}", &secret.expose()[2..20]);
        inside.complain(&format!("key {hex}"));
        return inside.show("printed");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut child = Watched::start("leaks::what_is_printed_on_purpose_is_found", folder.path());
    let secret = draw::<32>();
    child.give(&secret);
    assert_eq!(child.hear(), "printed");
    child.go_on();
    let mut needles = Needles::new();
    needles.add("key", &secret);
    let found = needles.search("printed", &child.end());
    let forms: Vec<_> = found.iter().map(|of| of.form).collect();
    assert_eq!(forms, [Form::Hex, Form::Numbers]);
}

#[test]
fn plaintext_on_the_bus_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (secret, sealed) = (draw::<32>(), draw::<32>());
    let mut needles = Needles::new();
    needles.add("secret", &secret);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let append = |payload: Vec<u8>| {
        runtime.block_on(async {
            let bus = FileBus::open(folder.path()).await.unwrap();
            let topic = Topic::new("s/1/data").unwrap();
            bus.append(&topic, vec![payload]).await.unwrap();
        });
    };
    append(sealed.to_vec());
    assert_none("bus", &search_files(&needles, folder.path()).unwrap());
    append([b"before ", &secret[..], b" behind"].concat());
    let found = search_files(&needles, folder.path()).unwrap();
    assert_eq!(names(&found), ["secret"]);
}
