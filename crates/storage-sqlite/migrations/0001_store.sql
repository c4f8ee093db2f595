-- A partition is named "namespace/index" in the column `part`. Times are microseconds since 1970,
-- ids are 16 bytes.

CREATE TABLE evenkeel_store (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    id         BLOB    NOT NULL,
    partitions INTEGER NOT NULL
);

CREATE TABLE evenkeel_record (
    part       TEXT NOT NULL,
    space      TEXT NOT NULL,
    grp        TEXT NOT NULL,
    id         TEXT NOT NULL,
    value      BLOB NOT NULL,
    version    BLOB NOT NULL,
    expires_at INTEGER,
    PRIMARY KEY (part, space, grp, id)
) WITHOUT ROWID;

CREATE INDEX evenkeel_record_expiry ON evenkeel_record (part, expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE evenkeel_head (
    part     TEXT    NOT NULL PRIMARY KEY,
    position INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE evenkeel_stream (
    part    TEXT    NOT NULL,
    stream  TEXT    NOT NULL,
    version INTEGER NOT NULL,
    trimmed INTEGER NOT NULL,
    swept   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (part, stream)
) WITHOUT ROWID;

CREATE INDEX evenkeel_stream_unswept ON evenkeel_stream (part) WHERE swept < trimmed;

-- A swept event keeps its row, without payload and metadata, so that its position stays taken.
CREATE TABLE evenkeel_event (
    part         TEXT    NOT NULL,
    position     INTEGER NOT NULL,
    stream       TEXT    NOT NULL,
    version      INTEGER NOT NULL,
    id           BLOB    NOT NULL,
    kind         TEXT    NOT NULL,
    content_type TEXT    NOT NULL,
    payload      BLOB,
    metadata     TEXT,
    recorded_at  INTEGER NOT NULL,
    batch        BLOB    NOT NULL,
    PRIMARY KEY (part, position)
) WITHOUT ROWID;

CREATE UNIQUE INDEX evenkeel_event_stream ON evenkeel_event (part, stream, version);

CREATE TABLE evenkeel_job (
    part            TEXT    NOT NULL,
    queue           TEXT    NOT NULL,
    id              TEXT    NOT NULL,
    due             INTEGER NOT NULL,
    payload         BLOB    NOT NULL,
    attempt         INTEGER NOT NULL,
    token           BLOB,
    leased_until    INTEGER,
    pending_due     INTEGER,
    pending_payload BLOB,
    pending_sooner  INTEGER,
    ready_at        INTEGER NOT NULL GENERATED ALWAYS AS (coalesce(leased_until, due)),
    PRIMARY KEY (part, queue, id)
) WITHOUT ROWID;

CREATE INDEX evenkeel_job_ready ON evenkeel_job (part, queue, ready_at, id);
