-- A partition is named "namespace/index" in the column `part`. Times are microseconds since 1970.
-- Names are compared byte by byte. `evenkeel` stands for the schema that was configured.
--
-- A table has one index for each way in which it is searched, and no search can use another: where two
-- begin with the same columns, the planner takes the one that is a page less high, at some sizes the
-- wrong one, and goes through all that begins alike. So the second of two takes the partition and the
-- name together, as one text; no partition has a second '/'.

CREATE TABLE evenkeel.store (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    id         uuid    NOT NULL DEFAULT gen_random_uuid(),
    format     integer NOT NULL,
    partitions integer NOT NULL
);

CREATE TABLE evenkeel.record (
    part       text   COLLATE "C" NOT NULL,
    space      text   COLLATE "C" NOT NULL,
    grp        text   COLLATE "C" NOT NULL,
    id         text   COLLATE "C" NOT NULL,
    value      bytea  NOT NULL,
    version    uuid   NOT NULL,
    expires_at bigint,
    PRIMARY KEY (part, space, grp, id)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX record_expiry ON evenkeel.record (part, expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE evenkeel.head (
    part     text   COLLATE "C" NOT NULL PRIMARY KEY,
    position bigint NOT NULL
) WITH (fillfactor = 10);

CREATE TABLE evenkeel.stream (
    part    text   COLLATE "C" NOT NULL,
    stream  text   COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    trimmed bigint NOT NULL DEFAULT 0,
    swept   bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (part, stream)
) WITH (fillfactor = 80);

CREATE INDEX stream_unswept ON evenkeel.stream (part, swept) WHERE swept < trimmed;

-- A swept event keeps its row, without payload and metadata, so that its position stays taken.
CREATE TABLE evenkeel.event (
    part         text   COLLATE "C" NOT NULL,
    position     bigint NOT NULL,
    stream       text   COLLATE "C" NOT NULL,
    version      bigint NOT NULL,
    id           uuid   NOT NULL,
    kind         text   COLLATE "C" NOT NULL,
    content_type text   NOT NULL,
    payload      bytea,
    metadata     text,
    recorded_at  bigint NOT NULL,
    batch        uuid   NOT NULL,
    PRIMARY KEY (part, position)
);

CREATE UNIQUE INDEX event_stream ON evenkeel.event ((part || '/' || stream), version);

CREATE TABLE evenkeel.job (
    part            text    COLLATE "C" NOT NULL,
    queue           text    COLLATE "C" NOT NULL,
    id              text    COLLATE "C" NOT NULL,
    due             bigint  NOT NULL,
    payload         bytea   NOT NULL,
    attempt         integer NOT NULL DEFAULT 0,
    token           uuid,
    leased_until    bigint,
    pending_due     bigint,
    pending_payload bytea,
    pending_sooner  bigint,
    ready_at        bigint  NOT NULL GENERATED ALWAYS AS (coalesce(leased_until, due)) STORED,
    PRIMARY KEY (part, queue, id)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX job_ready ON evenkeel.job ((part || '/' || queue), ready_at, id);
