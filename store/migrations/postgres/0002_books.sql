-- The books: corrections by their ids, providers' bills, statements, credits, postings, listeners.

-- Each correction once. The row of the ledger that it made is named by the other columns.
CREATE TABLE correction (
    id TEXT PRIMARY KEY, request_id BYTEA NOT NULL, attempt BIGINT NOT NULL, kind TEXT NOT NULL,
    rev BIGINT NOT NULL, at_ms BIGINT NOT NULL
);
CREATE INDEX correction_by_call ON correction (request_id, attempt, kind);

CREATE TABLE provider_bill (
    id TEXT PRIMARY KEY, endpoint TEXT NOT NULL, imported_at_ms BIGINT NOT NULL, head TEXT NOT NULL
);

-- One model's day on a bill. Usage and cost may come from two files; null is what none has told.
CREATE TABLE provider_bill_day (
    day_ms BIGINT NOT NULL, endpoint TEXT NOT NULL, model TEXT NOT NULL, bill TEXT NOT NULL,
    prompt BIGINT, cached BIGINT, answer BIGINT, requests BIGINT NOT NULL, cost_nano BIGINT,
    PRIMARY KEY (day_ms, endpoint, model)
);

-- One attempt on a bill that tells them apart.
CREATE TABLE provider_bill_call (
    bill TEXT NOT NULL, request_id BYTEA NOT NULL, attempt BIGINT NOT NULL, model TEXT NOT NULL,
    prompt BIGINT, cached BIGINT, answer BIGINT, cost_nano BIGINT NOT NULL,
    PRIMARY KEY (bill, request_id, attempt)
);

CREATE TABLE reconcile_day (
    day_ms BIGINT NOT NULL, endpoint TEXT NOT NULL, model TEXT NOT NULL, cause TEXT NOT NULL,
    difference_nano BIGINT NOT NULL, drift TEXT NOT NULL,
    PRIMARY KEY (day_ms, endpoint, model)
);

CREATE TABLE reconcile_capture (
    endpoint TEXT PRIMARY KEY, ratio_ppm BIGINT NOT NULL, reconciled_at_ms BIGINT NOT NULL
);

-- Closed statements: each is a document, and the digest of it and of the one before.
CREATE TABLE statement (
    tenant TEXT NOT NULL, month TEXT NOT NULL, number BIGINT NOT NULL, start_ms BIGINT NOT NULL,
    end_ms BIGINT NOT NULL, up_to_seq BIGINT NOT NULL, closed_at_ms BIGINT NOT NULL,
    cost_nano BIGINT NOT NULL, sell_nano BIGINT NOT NULL, due_nano BIGINT NOT NULL,
    document TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL,
    PRIMARY KEY (tenant, month), UNIQUE (tenant, number)
);
CREATE TRIGGER statement_is_append_only BEFORE UPDATE OR DELETE ON statement
FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE TABLE credit_grant (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, amount_nano BIGINT NOT NULL, from_ms BIGINT NOT NULL,
    until_ms BIGINT NOT NULL, priority BIGINT NOT NULL, reason TEXT NOT NULL, author TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL
);

CREATE TABLE credit_use (
    grant_id TEXT NOT NULL, tenant TEXT NOT NULL, month TEXT NOT NULL, amount_nano BIGINT NOT NULL,
    PRIMARY KEY (grant_id, month)
);

-- Double entry at day x tenant x account. Each source's day sums to nothing.
CREATE TABLE posting (
    day_ms BIGINT NOT NULL, tenant TEXT NOT NULL, account TEXT NOT NULL, source TEXT NOT NULL,
    amount_nano BIGINT NOT NULL,
    PRIMARY KEY (day_ms, tenant, account, source)
);

-- How far each listener has been told of the entries.
CREATE TABLE webhook_cursor (
    listener TEXT PRIMARY KEY, seq BIGINT NOT NULL
);
