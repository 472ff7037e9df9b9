-- The books: corrections by their ids, providers' bills, statements, credits, postings, listeners.

-- Each correction once. The row of the ledger that it made is named by the other columns.
CREATE TABLE correction (
    id TEXT PRIMARY KEY, request_id BLOB NOT NULL, attempt INTEGER NOT NULL, kind TEXT NOT NULL,
    rev INTEGER NOT NULL, at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX correction_by_call ON correction (request_id, attempt, kind);

CREATE TABLE provider_bill (
    id TEXT PRIMARY KEY, endpoint TEXT NOT NULL, imported_at_ms INTEGER NOT NULL, head TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One model's day on a bill. Usage and cost may come from two files; null is what none has told.
CREATE TABLE provider_bill_day (
    day_ms INTEGER NOT NULL, endpoint TEXT NOT NULL, model TEXT NOT NULL, bill TEXT NOT NULL,
    prompt INTEGER, cached INTEGER, answer INTEGER, requests INTEGER NOT NULL, cost_nano INTEGER,
    PRIMARY KEY (day_ms, endpoint, model)
) STRICT, WITHOUT ROWID;

-- One attempt on a bill that tells them apart.
CREATE TABLE provider_bill_call (
    bill TEXT NOT NULL, request_id BLOB NOT NULL, attempt INTEGER NOT NULL, model TEXT NOT NULL,
    prompt INTEGER, cached INTEGER, answer INTEGER, cost_nano INTEGER NOT NULL,
    PRIMARY KEY (bill, request_id, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE reconcile_day (
    day_ms INTEGER NOT NULL, endpoint TEXT NOT NULL, model TEXT NOT NULL, cause TEXT NOT NULL,
    difference_nano INTEGER NOT NULL, drift TEXT NOT NULL,
    PRIMARY KEY (day_ms, endpoint, model)
) STRICT, WITHOUT ROWID;

CREATE TABLE reconcile_capture (
    endpoint TEXT PRIMARY KEY, ratio_ppm INTEGER NOT NULL, reconciled_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Closed statements: each is a document, and the digest of it and of the one before.
CREATE TABLE statement (
    tenant TEXT NOT NULL, month TEXT NOT NULL, number INTEGER NOT NULL, start_ms INTEGER NOT NULL,
    end_ms INTEGER NOT NULL, up_to_seq INTEGER NOT NULL, closed_at_ms INTEGER NOT NULL,
    cost_nano INTEGER NOT NULL, sell_nano INTEGER NOT NULL, due_nano INTEGER NOT NULL,
    document TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL,
    PRIMARY KEY (tenant, month), UNIQUE (tenant, number)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER statement_is_append_only_u BEFORE UPDATE ON statement
BEGIN SELECT RAISE(ABORT, 'closed statements are never changed'); END;
CREATE TRIGGER statement_is_append_only_d BEFORE DELETE ON statement
BEGIN SELECT RAISE(ABORT, 'closed statements are never removed'); END;

CREATE TABLE credit_grant (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, amount_nano INTEGER NOT NULL, from_ms INTEGER NOT NULL,
    until_ms INTEGER NOT NULL, priority INTEGER NOT NULL, reason TEXT NOT NULL, author TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE credit_use (
    grant_id TEXT NOT NULL, tenant TEXT NOT NULL, month TEXT NOT NULL, amount_nano INTEGER NOT NULL,
    PRIMARY KEY (grant_id, month)
) STRICT, WITHOUT ROWID;

-- Double entry at day x tenant x account. Each source's day sums to nothing.
CREATE TABLE posting (
    day_ms INTEGER NOT NULL, tenant TEXT NOT NULL, account TEXT NOT NULL, source TEXT NOT NULL,
    amount_nano INTEGER NOT NULL,
    PRIMARY KEY (day_ms, tenant, account, source)
) STRICT, WITHOUT ROWID;

-- How far each listener has been told of the entries.
CREATE TABLE webhook_cursor (
    listener TEXT PRIMARY KEY, seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
