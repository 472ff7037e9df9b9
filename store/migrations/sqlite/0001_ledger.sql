-- The ledger. All money is whole nano-USD. Entries are never changed: corrections are new rows.

CREATE TABLE usage_event (
    seq             INTEGER PRIMARY KEY,
    request_id      BLOB    NOT NULL,
    attempt         INTEGER NOT NULL,
    kind            TEXT    NOT NULL,
    rev             INTEGER NOT NULL,
    tenant          TEXT    NOT NULL,
    team            TEXT    NOT NULL,
    project         TEXT    NOT NULL,
    key             TEXT    NOT NULL,
    dialect         TEXT    NOT NULL,
    requested       TEXT    NOT NULL,
    model           TEXT    NOT NULL,
    endpoint        TEXT    NOT NULL,
    tier            TEXT    NOT NULL,
    reason          TEXT    NOT NULL,
    score_milli     INTEGER,
    stream          INTEGER NOT NULL,
    held_at_ms      INTEGER NOT NULL,
    settled_at_ms   INTEGER NOT NULL,
    first_byte_ms   INTEGER,
    outcome         TEXT    NOT NULL,
    status          INTEGER NOT NULL,
    source          TEXT    NOT NULL,
    input           INTEGER NOT NULL,
    cache_read      INTEGER NOT NULL,
    cache_write_5m  INTEGER NOT NULL,
    cache_write_1h  INTEGER NOT NULL,
    output          INTEGER NOT NULL,
    reasoning       INTEGER NOT NULL,
    audio_input     INTEGER NOT NULL,
    audio_output    INTEGER NOT NULL,
    web_searches    INTEGER NOT NULL,
    price           TEXT    NOT NULL,
    bound_nano      INTEGER NOT NULL,
    cost_nano       INTEGER NOT NULL,
    baseline_nano   INTEGER NOT NULL,
    entry           TEXT    NOT NULL,
    UNIQUE (request_id, attempt, kind, rev)
) STRICT;

CREATE INDEX usage_event_by_tenant ON usage_event (tenant, held_at_ms);

CREATE TRIGGER usage_event_is_append_only_u BEFORE UPDATE ON usage_event
BEGIN SELECT RAISE(ABORT, 'entries of the ledger are never changed'); END;
CREATE TRIGGER usage_event_is_append_only_d BEFORE DELETE ON usage_event
BEGIN SELECT RAISE(ABORT, 'entries of the ledger are never removed'); END;

CREATE TABLE hold (
    request_id  BLOB    NOT NULL,
    attempt     INTEGER NOT NULL,
    held        TEXT    NOT NULL,
    PRIMARY KEY (request_id, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE rollup_hour (
    start_ms INTEGER NOT NULL, tenant TEXT NOT NULL, team TEXT NOT NULL, project TEXT NOT NULL,
    key TEXT NOT NULL, model TEXT NOT NULL, tier TEXT NOT NULL,
    calls INTEGER NOT NULL, failed INTEGER NOT NULL,
    input INTEGER NOT NULL, cache_read INTEGER NOT NULL, cache_write_5m INTEGER NOT NULL,
    cache_write_1h INTEGER NOT NULL, output INTEGER NOT NULL, reasoning INTEGER NOT NULL,
    audio_input INTEGER NOT NULL, audio_output INTEGER NOT NULL, web_searches INTEGER NOT NULL,
    cost_nano INTEGER NOT NULL, baseline_nano INTEGER NOT NULL,
    PRIMARY KEY (start_ms, tenant, team, project, key, model, tier)
) STRICT, WITHOUT ROWID;

CREATE TABLE rollup_day (
    start_ms INTEGER NOT NULL, tenant TEXT NOT NULL, team TEXT NOT NULL, project TEXT NOT NULL,
    key TEXT NOT NULL, model TEXT NOT NULL, tier TEXT NOT NULL,
    calls INTEGER NOT NULL, failed INTEGER NOT NULL,
    input INTEGER NOT NULL, cache_read INTEGER NOT NULL, cache_write_5m INTEGER NOT NULL,
    cache_write_1h INTEGER NOT NULL, output INTEGER NOT NULL, reasoning INTEGER NOT NULL,
    audio_input INTEGER NOT NULL, audio_output INTEGER NOT NULL, web_searches INTEGER NOT NULL,
    cost_nano INTEGER NOT NULL, baseline_nano INTEGER NOT NULL,
    PRIMARY KEY (start_ms, tenant, team, project, key, model, tier)
) STRICT, WITHOUT ROWID;

CREATE TABLE api_key (
    id            TEXT    PRIMARY KEY,
    hmac          BLOB    NOT NULL,
    tenant        TEXT    NOT NULL,
    team          TEXT    NOT NULL,
    project       TEXT    NOT NULL,
    label         TEXT    NOT NULL,
    created_at_ms INTEGER NOT NULL,
    revoked_at_ms INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE state (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- How far this node's journal has been applied.
CREATE TABLE journal_cursor (
    node     TEXT    PRIMARY KEY,
    position INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
