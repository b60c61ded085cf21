//! What others do to a PostgreSQL bus, and how it tells.

use bytes::Bytes;
use sealcast_brokers::postgres::Server;
use sealcast_bus::{Bus, BusError, Offset, ServerOptions, Topic, Turns};
use sealcast_bus_postgres::PostgresBus;

use crate::rig::{address, open, shared, topic};

fn item(number: u64) -> Vec<u8> {
    format!("item {number}").into_bytes()
}

async fn with_items(server: &Server, name: &str, topic: &Topic, count: u64) -> PostgresBus {
    let bus = open(server, name).await;
    let items = (0..count).map(item).collect();
    bus.append(topic, items).await.unwrap();
    bus
}

async fn offsets(bus: &PostgresBus, topic: &Topic, from: u64) -> Vec<u64> {
    let items = bus.read(topic, Offset(from), 1 << 20).await.unwrap();
    items.iter().map(|item| item.offset.0).collect()
}

async fn open_error(server: &Server, name: &str) -> BusError {
    let address = address(&server.url(name));
    let opened = PostgresBus::open(&address, &ServerOptions::default()).await;
    opened.unwrap_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_put_into_the_tables_is_passed_over_or_damage() {
    let server = shared();
    let log = topic("a/b");
    rows_beyond_the_end(&server, &log).await;
    rows_of_nobody(&server, &log).await;
    rows_that_are_gone(&server, &log).await;
    ends_that_cannot_be(&server, &log).await;
    writers_that_never_wrote(&server, &log).await;
}

async fn rows_beyond_the_end(server: &Server, log: &Topic) {
    let bus = with_items(server, "beyond", log, 3).await;
    server.sql(
        "INSERT INTO beyond.items SELECT id, at, 'rubbish' FROM beyond.topics,
            unnest(ARRAY[-1, 3, 4, 9, 9223372036854775807]) AS at",
    );
    assert_eq!(offsets(&bus, log, 0).await, [0, 1, 2]);
    assert_eq!(offsets(&bus, log, 3).await, [0; 0]);
    let first = bus.append(log, vec![item(3), item(4)]).await.unwrap();
    assert_eq!(first, Offset(3));
    let items = bus.read(log, Offset(3), 1 << 20).await.unwrap();
    let payloads = items.iter().map(|of| of.payload.clone());
    assert_eq!(payloads.collect::<Vec<_>>(), [item(3), item(4)]);
}

async fn rows_of_nobody(server: &Server, log: &Topic) {
    let bus = with_items(server, "nobody", log, 1).await;
    server.sql(
        "INSERT INTO nobody.items SELECT n, n, '' FROM generate_series(100, 300) AS n;
         INSERT INTO nobody.topics (name, trimmed, ends)
            SELECT repeat('x', n), n, 2 * n FROM generate_series(500, 1000) AS n;
         INSERT INTO nobody.topics (name, trimmed, ends) VALUES
            ('', 0, 1), ('a''; DROP SCHEMA nobody CASCADE; --', 0, 5);
         INSERT INTO nobody.sent (payload) SELECT '' FROM generate_series(1, 50);
         INSERT INTO nobody.writers (id, before, serial, first) VALUES ('', -5, 7, -1)",
    );
    let mut tail = bus.tail(vec![(log.clone(), Offset(0))]);
    assert_eq!(tail.next().await.unwrap().1.len(), 1);
    assert_eq!(bus.append(log, vec![item(1)]).await.unwrap(), Offset(1));
    assert_eq!(tail.next().await.unwrap().1[0].payload, item(1));
}

async fn rows_that_are_gone(server: &Server, log: &Topic) {
    let bus = with_items(server, "gone", log, 9).await;
    server.sql("DELETE FROM gone.items WHERE at IN (3, 4)");
    assert_eq!(offsets(&bus, log, 0).await, [0, 1, 2]);
    for from in [3, 4] {
        let gone = bus.read(log, Offset(from), 1 << 20).await;
        assert!(matches!(gone, Err(BusError::Damaged { .. })), "{gone:?}");
    }
    assert_eq!(offsets(&bus, log, 5).await, [5, 6, 7, 8]);
    assert_eq!(bus.end(log).await.unwrap(), Offset(9));
}

async fn ends_that_cannot_be(server: &Server, log: &Topic) {
    let bus = with_items(server, "ends", log, 2).await;
    server.sql("UPDATE ends.topics SET ends = -7");
    let error = bus.end(log).await.unwrap_err();
    assert!(matches!(error, BusError::Damaged { .. }), "{error:?}");
    let error = bus.read(log, Offset(0), 1).await.unwrap_err();
    assert!(matches!(error, BusError::Damaged { .. }), "{error:?}");
    server.sql("UPDATE ends.topics SET ends = 2, trimmed = 5");
    assert_eq!(offsets(&bus, log, 0).await, [0; 0]);
    server.sql("UPDATE ends.topics SET ends = 9223372036854775806, trimmed = 0");
    let error = bus.append(log, vec![item(2); 2]).await.unwrap_err();
    assert!(matches!(error, BusError::Backend(_)), "{error:?}");
    assert_eq!(offsets(&bus, log, 0).await, [0, 1]);
    let missing = bus.read(log, Offset(2), 1).await.unwrap_err();
    assert!(matches!(missing, BusError::Damaged { .. }), "{missing:?}");
}

async fn writers_that_never_wrote(server: &Server, log: &Topic) {
    let bus = with_items(server, "writers", log, 1).await;
    server.sql("UPDATE writers.writers SET serial = 1000000");
    let error = bus.append(log, vec![item(1)]).await.unwrap_err();
    assert!(matches!(error, BusError::Damaged { .. }), "{error:?}");
    assert_eq!(bus.end(log).await.unwrap(), Offset(1));
    let other = open(server, "writers").await;
    assert_eq!(other.append(log, vec![item(1)]).await.unwrap(), Offset(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_damaged_keeps_no_other_of_a_tail_waiting() {
    let server = shared();
    let (damaged, good) = (topic("a"), topic("b"));
    let bus = with_items(&server, "between", &damaged, 3).await;
    server.sql("DELETE FROM between.items WHERE at = 1");
    let mut tail = bus.tail(vec![
        (damaged.clone(), Offset(0)),
        (good.clone(), Offset(0)),
    ]);
    for damage in ["", "UPDATE between.topics SET ends = -7 WHERE name = 'a'"] {
        if !damage.is_empty() {
            server.sql(damage);
            tail = bus.tail(vec![
                (damaged.clone(), Offset(2)),
                (good.clone(), Offset(2)),
            ]);
        }
        for _ in 0..2 {
            bus.append(&good, vec![item(0)]).await.unwrap();
            let mut errors = 0;
            loop {
                match tail.next().await {
                    Ok((topic, _)) if topic == good => break,
                    Ok((_, items)) => assert_eq!(items[0].offset, Offset(0)),
                    Err(error) => {
                        assert!(matches!(error, BusError::Damaged { .. }), "{error:?}");
                        errors += 1;
                        // Many more than it takes until what was told is heard.
                        assert!(errors < 20_000, "it keeps the other waiting");
                    }
                }
            }
        }
        // And it is told of.
        let error = loop {
            if let Err(error) = tail.next().await {
                break error;
            }
        };
        assert!(matches!(error, BusError::Damaged { .. }), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_others_alter_or_take_away_are_told_of() {
    let server = shared();
    let log = topic("a");
    let bus = with_items(&server, "altered", &log, 3).await;
    for (alter, alter_back, is_damage) in [
        (
            "ALTER TABLE altered.items ALTER payload TYPE integer USING 7",
            "ALTER TABLE altered.items ALTER payload TYPE bytea USING convert_to('item', 'UTF8')",
            true,
        ),
        (
            "ALTER TABLE altered.items RENAME payload TO data",
            "ALTER TABLE altered.items RENAME data TO payload",
            true,
        ),
        (
            "ALTER TABLE altered.topics RENAME TO subjects",
            "ALTER TABLE altered.subjects RENAME TO topics",
            false,
        ),
        (
            "ALTER SCHEMA altered RENAME TO other_name",
            "ALTER SCHEMA other_name RENAME TO altered",
            false,
        ),
    ] {
        server.sql(alter);
        let told = [
            bus.read(&log, Offset(0), 1).await.unwrap_err(),
            bus.append(&log, vec![item(3)]).await.unwrap_err(),
        ];
        for error in told {
            let is_told = match is_damage {
                true => matches!(error, BusError::Damaged { .. }),
                false => matches!(error, BusError::Unreachable { .. }),
            };
            assert!(is_told, "{alter}: {error:?}");
        }
        server.sql(alter_back);
        // The same handle, as if nothing had been.
        assert_eq!(offsets(&bus, &log, 0).await, [0, 1, 2], "{alter}");
    }
    assert_eq!(bus.append(&log, vec![item(3)]).await.unwrap(), Offset(3));
    server.sql("DROP SCHEMA altered CASCADE");
    let error = bus.end(&log).await.unwrap_err();
    assert!(matches!(error, BusError::Unreachable { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_row_holds_is_in_no_error() {
    let server = shared();
    let log = topic("a");
    let bus = with_items(&server, "rules", &log, 1).await;
    for rule in [
        "ALTER TABLE rules.items ADD CONSTRAINT small CHECK (length(payload) < 10)",
        "CREATE FUNCTION rules.no() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN RAISE EXCEPTION ''%'', convert_from(NEW.payload, ''UTF8''); END';
         CREATE TRIGGER no BEFORE INSERT ON rules.items FOR EACH ROW EXECUTE FUNCTION rules.no()",
        "ALTER TABLE rules.items DROP CONSTRAINT small;
         CREATE OR REPLACE FUNCTION rules.no() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN RAISE EXCEPTION ''%'', convert_from(NEW.payload, ''UTF8'')
                USING ERRCODE = ''23514''; END'",
    ] {
        server.sql(rule);
        let error = bus.append(&log, vec![b"word of honour".to_vec()]);
        let error = error.await.unwrap_err();
        assert!(matches!(error, BusError::Backend(_)), "{error:?}");
        let said = format!("{error:?} {error}");
        assert!(
            !said.contains("honour") && !said.contains("776f7264"),
            "{said}"
        );
        assert!(said.contains("23514") || said.contains("P0001"), "{said}");
    }
}

/// The server is asked for the next append before it has refused the one ahead of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_asked_for_behind_an_append_that_is_refused_is_not_made() {
    let server = shared();
    let log = topic("a");
    let bus = with_items(&server, "refused_ahead", &log, 1).await;
    server.sql(
        "CREATE FUNCTION refused_ahead.no() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN IF NEW.payload = ''no'' THEN PERFORM pg_sleep(0.5); RAISE EXCEPTION ''no''; END IF; RETURN NEW; END';
         CREATE TRIGGER no BEFORE INSERT ON refused_ahead.items FOR EACH ROW EXECUTE FUNCTION refused_ahead.no()",
    );
    let mut turns = Turns::default();
    let mut appending = Vec::new();
    for payload in ["no", "behind", "behind that"] {
        let turn = turns.next().await;
        let (bus, log) = (bus.clone(), log.clone());
        let payloads = vec![Bytes::from(payload)];
        appending.push(tokio::spawn(async move {
            bus.append_in_turn(&log, payloads, turn).await
        }));
    }
    let mut made = Vec::new();
    for append in appending {
        made.push(append.await.unwrap().unwrap_err());
    }
    assert!(matches!(made[0], BusError::Backend(_)), "{made:?}");
    let is_told = |error: &BusError| matches!(error, BusError::OutOfTurn);
    assert!(made[1..].iter().all(is_told), "{made:?}");
    assert_eq!(bus.end(&log).await.unwrap(), Offset(1));
    let mut turns = Turns::default();
    for payload in ["behind", "behind that"] {
        let (turn, payloads) = (turns.next().await, vec![Bytes::from(payload)]);
        bus.append_in_turn(&log, payloads, turn).await.unwrap();
    }
    let items = bus.read(&log, Offset(1), 1 << 20).await.unwrap();
    let payloads: Vec<_> = items.into_iter().map(|item| item.payload).collect();
    assert_eq!(payloads, [&b"behind"[..], b"behind that"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_of_others_break_nothing() {
    let server = shared();
    let bus = open(&server, "noise").await;
    let (log, ask) = (topic("a"), topic("ask"));
    let mut tail = bus.tail(vec![(log.clone(), Offset(0))]);
    let mut listener = bus.listen(vec![ask.clone()]).await.unwrap();
    let large = "7".repeat(7_999);
    for says in [
        "",
        "grown a",
        "grown a 18446744073709551615",
        "grown a -1",
        "sent ask !",
        "sent ask",
        "stored ask 77",
        "stored ask 99999999999999999999",
        "mark",
        "mark 00",
        "word",
        &large,
        "sent ask aGVhcmQ=",
    ] {
        server.sql(&format!("NOTIFY noise, '{says}'"));
    }
    assert_eq!(
        listener.next().await.unwrap(),
        (ask.clone(), b"heard".to_vec())
    );
    bus.append(&log, vec![item(0)]).await.unwrap();
    assert_eq!(tail.next().await.unwrap().1[0].payload, item(0));
    // One that is stored, but longer than what a bus sends.
    server.sql(
        "WITH new AS (INSERT INTO noise.sent (payload)
            VALUES (convert_to(repeat('x', 70000), 'UTF8')) RETURNING id)
         SELECT pg_notify('noise', 'stored ask ' || id) FROM new",
    );
    bus.send(&ask, item(1)).await.unwrap();
    assert_eq!(listener.next().await.unwrap(), (ask, item(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_is_not_a_bus_is_refused_and_left_alone() {
    let server = shared();
    for (name, made) in [
        ("empty", ""),
        ("orders", "CREATE TABLE orders.topics (id int)"),
        ("shape", "CREATE TABLE shape.bus (line text)"),
        ("none", "CREATE TABLE none.bus (what text, format int)"),
        (
            "other",
            "CREATE TABLE other.bus AS SELECT 'city bus' AS what, 1 AS format",
        ),
        (
            "zero",
            "CREATE TABLE zero.bus AS SELECT 'sealcast bus' AS what, 0 AS format",
        ),
        (
            "view",
            "CREATE VIEW view.bus AS SELECT 'sealcast bus' AS what, 1 AS format",
        ),
    ] {
        server.sql(&format!("CREATE SCHEMA {name}; {made}"));
        let seen = format!(
            "SELECT relname, relkind FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
                WHERE nspname = '{name}' ORDER BY 1"
        );
        let before = server.sql(&seen);
        let error = open_error(&server, name).await;
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("not that of a bus"), "{name}: {error:?}");
        assert_eq!(server.sql(&seen), before, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_format_is_said_to_be_too_new() {
    let server = shared();
    drop(open(&server, "later").await);
    server.sql("UPDATE later.bus SET format = 2");
    let error = open_error(&server, "later").await;
    let is_told = matches!(
        error,
        BusError::TooNew {
            found: 2,
            known: 1,
            ..
        }
    );
    assert!(is_told, "{error:?}");
}

/// Nothing in a name is taken for SQL, and no two names are one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_schemas_are_names() {
    let server = shared();
    let longest = "n".repeat(63);
    let names = [
        "a", "A", "a-b", "--", "select", "public-", "7", "_", &longest,
    ];
    let log = topic("a");
    for (count, name) in (1..).zip(names) {
        with_items(&server, name, &log, count).await;
    }
    for (count, name) in (1..).zip(names) {
        let bus = open(&server, name).await;
        assert_eq!(bus.end(&log).await.unwrap(), Offset(count), "{name}");
        let mut listener = bus.listen(vec![log.clone()]).await.unwrap();
        bus.send(&log, item(count)).await.unwrap();
        assert_eq!(listener.next().await.unwrap().1, item(count));
    }
    for (name, says) in [
        (&*"n".repeat(64), "too long"),
        ("pg_x", "unacceptable schema name"),
        ("public", "not that of a bus"),
        ("information_schema", "not that of a bus"),
    ] {
        let error = open_error(&server, name).await;
        assert!(matches!(error, BusError::Unreachable { .. }), "{error:?}");
        assert!(says_in(&error, says), "{error:?}");
    }
}

fn says_in(error: &dyn std::error::Error, says: &str) -> bool {
    error.to_string().contains(says) || error.source().is_some_and(|cause| says_in(cause, says))
}
