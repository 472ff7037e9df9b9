-- Tasks: rows that lists show, the events that they are a projection of, and what stands beside them.
-- Names and ids sort by their bytes, as they do in SQLite.

CREATE TABLE task_row (
    id              BYTEA            NOT NULL PRIMARY KEY,
    tenant          TEXT COLLATE "C" NOT NULL,
    status          TEXT             NOT NULL,
    ended           BIGINT           NOT NULL,
    head_seq        BIGINT           NOT NULL,
    head_hash       BYTEA            NOT NULL,
    wake_at_ms      BIGINT,
    epoch           BIGINT           NOT NULL,
    leased_by       TEXT             NOT NULL,
    leased_until_ms BIGINT           NOT NULL,
    created_at_ms   BIGINT           NOT NULL,
    updated_at_ms   BIGINT           NOT NULL,
    summary         TEXT             NOT NULL,
    asked_key       TEXT,
    asked_digest    BYTEA
);

CREATE UNIQUE INDEX task_row_by_key ON task_row (tenant, asked_key);
CREATE INDEX task_row_by_tenant ON task_row (tenant, id);
-- A claim asks for these alone, however many tasks have ended.
CREATE INDEX task_row_awake ON task_row (wake_at_ms, id) WHERE ended = 0 AND wake_at_ms IS NOT NULL;

CREATE TABLE task_event (
    task_id      BYTEA  NOT NULL,
    seq          BIGINT NOT NULL,
    at_ms        BIGINT NOT NULL,
    epoch        BIGINT NOT NULL,
    actor        TEXT   NOT NULL,
    kind         TEXT   NOT NULL,
    v            BIGINT NOT NULL,
    payload      TEXT,
    payload_hash BYTEA  NOT NULL,
    hash         BYTEA  NOT NULL,
    PRIMARY KEY (task_id, seq)
);

CREATE TABLE task_blob (
    task_id BYTEA NOT NULL,
    digest  BYTEA NOT NULL,
    bytes   BYTEA NOT NULL,
    PRIMARY KEY (task_id, digest)
);

CREATE TABLE task_record (
    kind      TEXT             NOT NULL,
    tenant    TEXT COLLATE "C" NOT NULL,
    id        TEXT COLLATE "C" NOT NULL,
    version   BIGINT           NOT NULL,
    task_id   BYTEA,
    due_at_ms BIGINT,
    body      TEXT             NOT NULL,
    PRIMARY KEY (kind, tenant, id)
);

CREATE INDEX task_record_by_id ON task_record (kind, id, tenant);
CREATE INDEX task_record_due ON task_record (kind, due_at_ms, tenant, id) WHERE due_at_ms IS NOT NULL;

-- The audit chain of each tenant: one link for each append, in the order of commits.
CREATE TABLE task_link (
    tenant    TEXT COLLATE "C" NOT NULL,
    n         BIGINT           NOT NULL,
    task_id   BYTEA            NOT NULL,
    head_seq  BIGINT           NOT NULL,
    head_hash BYTEA            NOT NULL,
    at_ms     BIGINT           NOT NULL,
    hash      BYTEA            NOT NULL,
    PRIMARY KEY (tenant, n)
);
