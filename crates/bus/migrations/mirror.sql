-- What a mirror has besides the tables of a file bus: spec/bus-mqtt.md, section 8. One of the version before has
-- `arrival` and `part` already; what lies in the former is brought over.

CREATE TABLE IF NOT EXISTS arrival (
    topic INTEGER NOT NULL,
    id BLOB NOT NULL,
    first INTEGER NOT NULL,
    behind INTEGER NOT NULL,
    stamp INTEGER NOT NULL,
    own INTEGER NOT NULL,
    time INTEGER NOT NULL,
    parts INTEGER NOT NULL,
    salt INTEGER NOT NULL,
    digest INTEGER NOT NULL,
    PRIMARY KEY (topic, id, first)
) STRICT, WITHOUT ROWID;
DROP INDEX IF EXISTS arrival_by_place;
DROP INDEX IF EXISTS arrival_by_stamp;
ALTER TABLE arrival RENAME TO arrival_before;

-- Where each message lies that was taken in: key = topic * 2^40 + the offset of its first item, so that it is
-- written behind the others. By what it is known by on the other bus it is found in an index, which has no more.
CREATE TABLE arrival (
    key INTEGER PRIMARY KEY,
    topic INTEGER NOT NULL,
    id BLOB NOT NULL,
    count INTEGER NOT NULL,
    stamp INTEGER NOT NULL,
    own INTEGER NOT NULL,
    time INTEGER NOT NULL,
    parts INTEGER NOT NULL,
    salt INTEGER NOT NULL,
    digest INTEGER NOT NULL
) STRICT;
INSERT INTO arrival
    SELECT topic << 40 | first, topic, id, behind - first, stamp, own, time, parts, salt, digest
    FROM arrival_before ORDER BY topic, first;
DROP TABLE arrival_before;
CREATE INDEX arrival_by_id ON arrival (id);
CREATE INDEX arrival_by_stamp ON arrival (topic, stamp) WHERE stamp > 0;

-- Parts of messages that did not all come yet.
CREATE TABLE IF NOT EXISTS part (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL,
    id BLOB NOT NULL,
    number INTEGER NOT NULL,
    count INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    UNIQUE (topic, id, count, number)
) STRICT;

-- Where payloads lie that are not in `item`, under the keys that they would have there.
CREATE TABLE far (
    key INTEGER PRIMARY KEY,
    file INTEGER NOT NULL,
    place INTEGER NOT NULL,
    length INTEGER NOT NULL
) STRICT;
CREATE INDEX far_by_file ON far (file);
