-- What a mirror has besides the tables of a file bus: spec/bus-mqtt.md, section 8.

-- Where each message lies that was taken in, by what it is known by on the other bus.
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
CREATE INDEX IF NOT EXISTS arrival_by_place ON arrival (topic, first);
CREATE INDEX IF NOT EXISTS arrival_by_stamp ON arrival (topic, stamp) WHERE stamp > 0;

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
