-- Messages of one item each that lie one behind the other are taken in together: spec/bus-mqtt.md, section 8.

-- Their payloads, one behind the other, and where each ends; `key` is that of the first.
CREATE TABLE packed (
    key INTEGER PRIMARY KEY,
    count INTEGER NOT NULL,
    ends BLOB NOT NULL,
    bytes BLOB NOT NULL
) STRICT;

-- By what they are known, under the same key, which stay when they are trimmed.
CREATE TABLE batch (
    key INTEGER PRIMARY KEY,
    count INTEGER NOT NULL,
    own INTEGER NOT NULL,
    time INTEGER NOT NULL,
    salt INTEGER NOT NULL,
    known BLOB NOT NULL
) STRICT;

-- Where what has an id lies, as far as `indexed` says: of each topic what has a key below `until`. The rest is little, and
-- brought here from time to time.
DROP INDEX arrival_by_id;
CREATE TABLE known (
    hash INTEGER NOT NULL,
    key INTEGER NOT NULL,
    PRIMARY KEY (hash, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE indexed (
    topic INTEGER PRIMARY KEY,
    until INTEGER NOT NULL
) STRICT;
