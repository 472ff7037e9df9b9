-- Tasks: rows that lists show, the events that they are a projection of, and what stands beside them.

CREATE TABLE task_row (
    id              BLOB    NOT NULL PRIMARY KEY,
    tenant          TEXT    NOT NULL,
    status          TEXT    NOT NULL,
    ended           INTEGER NOT NULL,
    head_seq        INTEGER NOT NULL,
    head_hash       BLOB    NOT NULL,
    wake_at_ms      INTEGER,
    epoch           INTEGER NOT NULL,
    leased_by       TEXT    NOT NULL,
    leased_until_ms INTEGER NOT NULL,
    created_at_ms   INTEGER NOT NULL,
    updated_at_ms   INTEGER NOT NULL,
    summary         TEXT    NOT NULL,
    asked_key       TEXT,
    asked_digest    BLOB
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX task_row_by_key ON task_row (tenant, asked_key);
CREATE INDEX task_row_by_tenant ON task_row (tenant, id);
-- A claim asks for these alone, however many tasks have ended.
CREATE INDEX task_row_awake ON task_row (wake_at_ms, id) WHERE ended = 0 AND wake_at_ms IS NOT NULL;

CREATE TABLE task_event (
    task_id      BLOB    NOT NULL,
    seq          INTEGER NOT NULL,
    at_ms        INTEGER NOT NULL,
    epoch        INTEGER NOT NULL,
    actor        TEXT    NOT NULL,
    kind         TEXT    NOT NULL,
    v            INTEGER NOT NULL,
    payload      TEXT,
    payload_hash BLOB    NOT NULL,
    hash         BLOB    NOT NULL,
    PRIMARY KEY (task_id, seq)
) STRICT;

CREATE TABLE task_blob (
    task_id BLOB NOT NULL,
    digest  BLOB NOT NULL,
    bytes   BLOB NOT NULL,
    PRIMARY KEY (task_id, digest)
) STRICT;

CREATE TABLE task_record (
    kind      TEXT    NOT NULL,
    tenant    TEXT    NOT NULL,
    id        TEXT    NOT NULL,
    version   INTEGER NOT NULL,
    task_id   BLOB,
    due_at_ms INTEGER,
    body      TEXT    NOT NULL,
    PRIMARY KEY (kind, tenant, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX task_record_by_id ON task_record (kind, id, tenant);
CREATE INDEX task_record_due ON task_record (kind, due_at_ms, tenant, id) WHERE due_at_ms IS NOT NULL;

-- The audit chain of each tenant: one link for each append, in the order of commits.
CREATE TABLE task_link (
    tenant    TEXT    NOT NULL,
    n         INTEGER NOT NULL,
    task_id   BLOB    NOT NULL,
    head_seq  INTEGER NOT NULL,
    head_hash BLOB    NOT NULL,
    at_ms     INTEGER NOT NULL,
    hash      BLOB    NOT NULL,
    PRIMARY KEY (tenant, n)
) STRICT, WITHOUT ROWID;
