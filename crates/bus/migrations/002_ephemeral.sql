-- What was sent on ephemeral topics and may still be heard. The newest row always stays, so that ids
-- only ever grow.
CREATE TABLE sent (
    id      INTEGER PRIMARY KEY,
    time    INTEGER NOT NULL,
    topic   TEXT    NOT NULL,
    payload BLOB    NOT NULL
) STRICT;
