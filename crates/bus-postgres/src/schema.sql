CREATE TABLE bus (
    what text NOT NULL,
    format integer NOT NULL
);
INSERT INTO bus (what, format) VALUES ('sealcast bus', 1);

CREATE TABLE topics (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    trimmed bigint NOT NULL,
    ends bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE items (
    topic bigint NOT NULL,
    at bigint NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (topic, at)
);
ALTER TABLE items ALTER COLUMN payload SET STORAGE EXTERNAL;

CREATE TABLE writers (
    id bytea PRIMARY KEY,
    before bigint NOT NULL,
    serial bigint NOT NULL,
    first bigint NOT NULL,
    used timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT once CHECK (serial > before)
) WITH (fillfactor = 50);

CREATE UNLOGGED TABLE sent (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    made timestamptz NOT NULL DEFAULT now(),
    payload bytea NOT NULL
);
ALTER TABLE sent ALTER COLUMN payload SET STORAGE EXTERNAL;
