use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use sealcast_crypto::digest;
use sealcast_protocol::{Name, NameError, StreamId, Ticket, TicketError, UserId};

#[test]
fn a_ticket_reads_back_with_space_around_it() {
    let text = format!(" {}\n", ticket());
    assert_eq!(Ticket::parse(&text), Ok(ticket()));
    assert_eq!(ticket().to_string().parse(), Ok(ticket()));
    assert_eq!(ticket().bus(), "mqtt://broker.example:1883");
    assert_eq!(ticket().name().as_str(), "boiler room");
    assert_eq!(
        (ticket().stream(), ticket().owner()),
        (StreamId([1; 32]), UserId([2; 32]))
    );
}

#[test]
fn what_is_wrong_is_said() {
    let good = ticket().to_string();
    for text in [
        "",
        "hello",
        "sealcast:AAAA",
        "sealcastx:AAAA",
        "sc1qqqq",
        "sealcast01:AAAA",
    ] {
        assert_eq!(Ticket::parse(text), Err(TicketError::NotATicket), "{text}");
    }
    let newer = good.replacen("sealcast1:", "sealcast2:", 1);
    assert_eq!(Ticket::parse(&newer), Err(TicketError::NewerVersion));
    for end in 10..good.len() {
        assert_eq!(
            Ticket::parse(&good[..end]),
            Err(TicketError::Damaged),
            "{end}"
        );
    }
    let folded = format!("{}\n{}", &good[..40], &good[40..]);
    assert_eq!(Ticket::parse(&folded), Err(TicketError::Damaged));
    assert_eq!(
        Ticket::parse(&format!("{good}A")),
        Err(TicketError::Damaged)
    );
    assert_eq!(
        Ticket::parse(&with_sum(&[0; 2_000])),
        Err(TicketError::Damaged)
    );
}

#[test]
fn a_ticket_with_any_letter_changed_is_damaged() {
    let good = ticket().to_string();
    for at in "sealcast1:".len()..good.len() {
        let mut letters: Vec<char> = good.chars().collect();
        letters[at] = if letters[at] == 'A' { 'B' } else { 'A' };
        let changed: String = letters.into_iter().collect();
        assert_eq!(Ticket::parse(&changed), Err(TicketError::Damaged), "{at}");
    }
}

#[test]
fn a_whole_ticket_of_a_newer_version_is_told_from_a_damaged_one() {
    // An array of two, which starts with the version.
    assert_eq!(
        Ticket::parse(&with_sum(&[0x82, 2, 7])),
        Err(TicketError::NewerVersion)
    );
    assert_eq!(
        Ticket::parse(&with_sum(&[0x82, 1, 7])),
        Err(TicketError::NotATicket)
    );
    assert_eq!(Ticket::parse(&with_sum(&[7])), Err(TicketError::NotATicket));
    let of_version = |version| with_sum(&body(version, "nats://host"));
    assert!(Ticket::parse(&of_version(1)).is_ok());
    assert_eq!(Ticket::parse(&of_version(0)), Err(TicketError::NotATicket));
}

#[test]
fn a_bus_address_with_a_credential_never_gets_into_a_ticket() {
    for url in [
        "mqtt://user:pass@host",
        "mqtt://user@host/x",
        "nats://token@host",
        "postgres://host/db?password=x",
        "postgres://host/db?sslmode=require&PASSWORD=x",
        "mqtt:user:pass@host",
    ] {
        assert_eq!(made(url), Err(TicketError::Credentials), "{url}");
    }
    for url in [
        "file:/home/a@b/bus.db",
        "file:bus.db",
        "amqp://host/vhost@x",
        "postgres://h1,h2/db?sslmode=require",
    ] {
        assert_eq!(made(url).map(|_| ()), Ok(()), "{url}");
    }
    let smuggled = body(1, "nats://a@b");
    assert_eq!(
        Ticket::parse(&with_sum(&smuggled)),
        Err(TicketError::Credentials)
    );
}

#[test]
fn text_that_is_no_address_is_refused() {
    let long = format!("mqtt://{}", "a".repeat(1_018));
    assert_eq!(long.len(), 1_025);
    for url in [
        "",
        "host",
        ":",
        "mqtt:",
        "Mqtt://x",
        "mq tt://x",
        "mqtt://a\nb",
        long.as_str(),
    ] {
        assert_eq!(made(url), Err(TicketError::BadBusUrl), "{url}");
    }
    let whole = made(&long[..1_024]).unwrap();
    assert_eq!(Ticket::parse(&whole.to_string()), Ok(whole));
}

#[test]
fn names_are_short_seen_and_trimmed() {
    let refusal = |text: &str| text.parse::<Name>().unwrap_err();
    assert_eq!(refusal(""), NameError::Empty);
    assert_eq!(refusal(&"é".repeat(33)), NameError::TooLong);
    assert_eq!(refusal("a\u{7}b"), NameError::Unseen);
    assert_eq!(refusal("a\nb"), NameError::Unseen);
    assert_eq!(refusal("a\u{202e}b"), NameError::Unseen);
    assert_eq!(refusal(" a"), NameError::Space);
    assert_eq!(refusal("a\u{3000}"), NameError::Space);
    assert_eq!(
        "é".repeat(32).parse::<Name>().unwrap().to_string(),
        "é".repeat(32)
    );
    assert_eq!(
        "boiler room".parse::<Name>().unwrap().as_str(),
        "boiler room"
    );
}

proptest! {
    #[test]
    fn tickets_read_back(
        host in "[a-z]{1,20}",
        path in "[ -~&&[^?#]]{0,40}",
        stream in prop::array::uniform32(0_u8..),
        owner in prop::array::uniform32(0_u8..),
        name in "\\PC{0,16}",
    ) {
        if let Ok(name) = name.parse::<Name>() {
            let url = format!("mqtt://{host}/{path}");
            let ticket = Ticket::new(&url, StreamId(stream), UserId(owner), name).unwrap();
            prop_assert_eq!(Ticket::parse(&ticket.to_string()), Ok(ticket));
        }
    }

    #[test]
    fn any_text_is_read_without_a_panic(text in "(sealcast1:)?\\PC{0,80}") {
        prop_assert!(Ticket::parse(&text).is_err());
    }

    #[test]
    fn any_body_with_a_checksum_is_read_without_a_panic(body in prop::collection::vec(0_u8.., 0..80)) {
        prop_assert!(Ticket::parse(&with_sum(&body)).is_err());
    }
}

fn ticket() -> Ticket {
    made("mqtt://broker.example:1883").unwrap()
}

fn made(url: &str) -> Result<Ticket, TicketError> {
    let name = "boiler room".parse().unwrap();
    Ticket::new(url, StreamId([1; 32]), UserId([2; 32]), name)
}

/// A body as another program may write it.
fn body(version: u8, bus: &str) -> Vec<u8> {
    let mut body = vec![0x85, version, 0x60 + u8::try_from(bus.len()).unwrap()];
    body.extend_from_slice(bus.as_bytes());
    for id in [[1; 32], [2; 32]] {
        body.extend_from_slice(&[0x58, 32]);
        body.extend_from_slice(&id);
    }
    body.extend_from_slice(b"\x61x");
    body
}

fn with_sum(body: &[u8]) -> String {
    let mut bytes = body.to_vec();
    bytes.extend_from_slice(&digest("sealcast.v1 ticket checksum", &[body]).as_bytes()[..4]);
    format!("sealcast1:{}", URL_SAFE_NO_PAD.encode(bytes))
}
