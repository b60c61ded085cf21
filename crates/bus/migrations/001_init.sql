CREATE TABLE topic (
    id          INTEGER PRIMARY KEY,
    name        TEXT    NOT NULL UNIQUE,
    next_offset INTEGER NOT NULL
) STRICT;

-- key = topic.id * 2^40 + offset: a topic lies together, in order, without a second index.
CREATE TABLE item (
    key     INTEGER PRIMARY KEY,
    payload BLOB    NOT NULL
) STRICT;
