-- Every record of the store, sealed. Space 256 holds the tally alone.
CREATE TABLE records (
    space INTEGER NOT NULL,
    id BLOB NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (space, id)
) WITHOUT ROWID, STRICT;
