//! The statements of a bus: spec/bus-postgres.md, sections 3 to 6.

use crate::settings::quoted;

/// Stands in statements for the schema of a bus, whose tables they name with it: whatever a session is
/// set to, nothing of another schema is meant.
const SCHEMA: &str = "BUS.";

/// A statement about the bus in a schema.
pub(crate) fn of(schema: &str, statement: &str) -> String {
    statement.replace(SCHEMA, &format!("{}.", quoted(schema)))
}

/// Appends the payloads `$3`, `$4` in number, where the topic ends at `$2` if that is given, as append
/// `$6` of writer `$5`, and only behind its append `$7` if that is given; returns the first offset.
pub(crate) const APPEND: &str = "
WITH topic AS (
    INSERT INTO BUS.topics AS t (name, trimmed, ends)
    SELECT $1::text, 0, $4::bigint
    WHERE ($2::bigint IS NULL OR $2 = 0 OR EXISTS (SELECT FROM BUS.topics WHERE name = $1))
        AND ($7::bigint IS NULL OR EXISTS (SELECT FROM BUS.writers WHERE id = $5 AND serial = $7))
    ON CONFLICT (name) DO UPDATE SET ends = t.ends + EXCLUDED.ends
        WHERE $2 IS NULL OR t.ends = $2
    RETURNING id, ends - $4 AS first
), item AS (
    INSERT INTO BUS.items (topic, at, payload)
    SELECT topic.id, topic.first + number - 1, payload
    FROM topic, unnest($3::bytea[]) WITH ORDINALITY AS appended (payload, number)
), writer AS (
    INSERT INTO BUS.writers AS w (id, before, serial, first)
    SELECT $5, $6::bigint - 1, $6, first FROM topic
    ON CONFLICT (id) DO UPDATE SET
        before = w.serial, serial = EXCLUDED.serial, first = EXCLUDED.first, used = now()
)
SELECT first FROM topic";

/// The constraint that an append meets that was made before.
pub(crate) const ONCE: &str = "once";

/// Where the append `$2` of writer `$1` went, if it was made, or one behind it up to `$3`. It is written to so that the
/// answer waits for whatever the answer to an append waits for.
pub(crate) const WRITTEN: &str = "
UPDATE BUS.writers SET used = now() WHERE id = $1 AND serial BETWEEN $2 AND $3 RETURNING first";

/// Removes what lies beyond the end of a topic, where only somebody else can have put it.
pub(crate) const CLEAR: &str = "
DELETE FROM BUS.items USING BUS.topics
WHERE topics.name = $1 AND items.topic = topics.id AND items.at >= topics.ends";

/// How a topic stands, and its items from `$2` on with at most `$3` bytes. Looked at are about as many as there
/// is room for if all are as large as the first: where others are smaller, fewer bytes come than might. And whether
/// the server has standbys that it waits for.
pub(crate) const READ: &str = "
SELECT topics.trimmed, topics.ends, item.at, item.payload,
    current_setting('synchronous_standby_names') <> ''
FROM BUS.topics LEFT JOIN LATERAL (
    SELECT at, payload FROM (
        SELECT at, payload,
            row_number() OVER (ORDER BY at) AS number,
            sum(octet_length(payload)) OVER (ORDER BY at) AS bytes
        FROM (
            SELECT at, payload FROM BUS.items
            WHERE topic = topics.id AND at >= greatest($2, topics.trimmed) AND at < topics.ends
            ORDER BY at LIMIT least(1024, (
                SELECT 16 + $3::bigint / greatest(octet_length(payload), 1) FROM BUS.items
                WHERE topic = topics.id AND at = greatest($2, topics.trimmed)
            ))
        ) AS ahead
    ) AS counted
    WHERE number = 1 OR bytes <= $3
) AS item ON true
WHERE topics.name = $1
ORDER BY item.at";

/// Changes nothing, and is answered when all that was there before is on the standbys that the server waits for.
pub(crate) const REPLICATED: &str = "SELECT pg_logical_emit_message(true, 'sealcast', ''::text)";

/// Where topics end.
pub(crate) const ENDS: &str = "SELECT name, ends FROM BUS.topics WHERE name = ANY($1)";

/// Removes the items of a topic before an offset.
pub(crate) const TRIM: &str = "
WITH topic AS (
    UPDATE BUS.topics SET trimmed = least($2::bigint, ends)
    WHERE name = $1 AND trimmed < least($2, ends)
    RETURNING id, trimmed
)
DELETE FROM BUS.items USING topic WHERE items.topic = topic.id AND items.at < topic.trimmed";

/// Says on channel `$1` where the topic `$2` ends. Nothing is stored, so that the disk need not be waited
/// for.
pub(crate) const GROWN: &str = "
SELECT set_config('synchronous_commit', 'off', true),
    pg_notify($1, 'grown ' || name || ' ' || ends)
FROM BUS.topics WHERE name = $2";

/// Says something on a channel. Nothing is stored, so that the disk need not be waited for.
pub(crate) const TELL: &str =
    "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)";

/// Says something on a channel, and removes what was sent too long ago.
pub(crate) const SEND: &str = "
WITH old AS (
    DELETE FROM BUS.sent WHERE id IN (
        SELECT id FROM BUS.sent WHERE made < now() - interval '10 minutes'
        ORDER BY id LIMIT 64 FOR UPDATE SKIP LOCKED)
)
SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)";

/// Stores what is too large for a channel, says there where it is, and removes what is too old or too
/// much.
pub(crate) const STORE: &str = "
WITH old AS (
    DELETE FROM BUS.sent WHERE id IN (
        SELECT id FROM BUS.sent WHERE made < now() - interval '10 minutes'
            OR id <= (SELECT max(id) FROM BUS.sent) - 1024
        ORDER BY id LIMIT 64 FOR UPDATE SKIP LOCKED)
), new AS (
    INSERT INTO BUS.sent (payload) VALUES ($3) RETURNING id
)
SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2::text || id) FROM new";

/// What was stored to be heard.
pub(crate) const STORED: &str = "SELECT payload FROM BUS.sent WHERE id = $1";
