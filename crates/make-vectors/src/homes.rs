//! By what a keys topic was read (`spec/home.md`, section "How far a topic was read").

use sealcast_crypto::digest;

use super::case::Case;

/// A user: its id, whether it gives, whether it regained that, its devices and what may be read of it.
type User<'a> = (u8, bool, bool, &'a [u8], &'a [(u64, u64)]);

const LAST: u64 = 1 << 48;
const OVER: u64 = 426_772 << 22;

/// The bytes of `known`, of users in the order of the page.
fn known(key_nodes: Option<u8>, users: &[User<'_>]) -> Vec<u8> {
    let mut bytes = [key_nodes.unwrap_or(0); 32].to_vec();
    for (user, gives, regained, devices, readable) in users {
        bytes.extend([*user; 32]);
        bytes.extend([u8::from(*gives), u8::from(*regained)]);
        bytes.extend((devices.len() as u64).to_be_bytes());
        bytes.extend(devices.iter().flat_map(|device| [*device; 16]));
        bytes.extend((readable.len() as u64).to_be_bytes());
        for (from, until) in *readable {
            bytes.extend(from.to_be_bytes());
            bytes.extend(until.to_be_bytes());
        }
    }
    bytes
}

/// A case whose users and devices are given backwards.
fn case(name: &str, about: &str, key_nodes: Option<u8>, over: u64, users: &[User<'_>]) -> Case {
    let mut case = Case::new("keys-read-by", name, about);
    if let Some(entry) = key_nodes {
        case = case.hex("key-nodes", [entry; 32]);
    }
    for (user, gives, regained, devices, readable) in users.iter().rev() {
        let user = format!("{user:02x}").repeat(32);
        let flags = (u8::from(*gives), u8::from(*regained));
        case = case.with("user", format!("{user} {} {}", flags.0, flags.1));
        for device in devices.iter().rev() {
            let device = format!("{device:02x}").repeat(16);
            case = case.with("device", format!("{user} {device}"));
        }
        for (from, until) in *readable {
            case = case.with("readable", format!("{user} {from} {until}"));
        }
    }
    let digest = digest("sealcast.v1 keys read by", &[&known(key_nodes, users)]);
    let rounded = (over >> 22 << 22).to_be_bytes();
    case.with("segments-over", over)
        .ok()
        .hex("read-by", [digest.as_bytes(), &rounded[..]].concat())
}

pub(super) fn cases() -> Vec<Case> {
    let days = [(0, 86_400_000), (1_790_000_000_000, LAST)];
    #[rustfmt::skip]
    let rows: [(_, _, _, _, &[User<'_>]); 7] = [
        ("owner", "the owner reads, with one device", None, 0, &[(1, true, false, &[9], &[])]),
        ("no-devices", "the owner's list was not read yet", None, 0, &[(1, true, false, &[], &[])]),
        ("devices", "devices go by their ids", None, 0, &[(1, true, false, &[3, 5, 7], &[])]),
        ("reader", "who only reads stands last", None, 0, &[(2, true, false, &[7], &[]), (3, true, false, &[8], &[]), (1, false, false, &[9], &[])]),
        ("regained", "who may publish again after a loss", None, 0, &[(1, true, false, &[7], &[]), (2, true, true, &[8], &[])]),
        ("key-nodes", "key nodes are in force, with what may be read", Some(6), OVER, &[(1, true, false, &[7], &days), (2, true, false, &[8], &[(0, LAST)]), (3, false, false, &[9], &[])]),
        ("within-a-step", "ended segments are known in steps", Some(6), OVER + 4_194_303, &[(1, true, false, &[7], &[(0, LAST)])]),
    ];
    rows.map(|(name, about, key_nodes, over, users)| case(name, about, key_nodes, over, users))
        .to_vec()
}
