-- The shared ledger. All money is whole nano-USD. Entries are never changed: corrections are new rows.

-- Partitioned by the month of the call's arrival, which its id tells: so the unique key spans all
-- partitions. A partition is made when its first entry comes.
CREATE TABLE usage_event (
    seq BIGINT GENERATED ALWAYS AS IDENTITY,
    request_id BYTEA NOT NULL,
    attempt BIGINT NOT NULL,
    kind TEXT NOT NULL,
    rev BIGINT NOT NULL,
    tenant TEXT NOT NULL,
    team TEXT NOT NULL,
    project TEXT NOT NULL,
    key TEXT NOT NULL,
    dialect TEXT NOT NULL,
    requested TEXT NOT NULL,
    model TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    tier TEXT NOT NULL,
    reason TEXT NOT NULL,
    score_milli BIGINT,
    stream BIGINT NOT NULL,
    held_at_ms BIGINT NOT NULL,
    settled_at_ms BIGINT NOT NULL,
    first_byte_ms BIGINT,
    outcome TEXT NOT NULL,
    status BIGINT NOT NULL,
    source TEXT NOT NULL,
    input BIGINT NOT NULL,
    cache_read BIGINT NOT NULL,
    cache_write_5m BIGINT NOT NULL,
    cache_write_1h BIGINT NOT NULL,
    output BIGINT NOT NULL,
    reasoning BIGINT NOT NULL,
    audio_input BIGINT NOT NULL,
    audio_output BIGINT NOT NULL,
    web_searches BIGINT NOT NULL,
    price TEXT NOT NULL,
    bound_nano BIGINT NOT NULL,
    cost_nano BIGINT NOT NULL,
    baseline_nano BIGINT NOT NULL,
    entry TEXT NOT NULL,
    node TEXT NOT NULL,
    user_id TEXT NOT NULL,
    task TEXT NOT NULL,
    workflow TEXT NOT NULL,
    lane TEXT NOT NULL,
    book TEXT NOT NULL,
    context_tier BIGINT NOT NULL,
    list_nano BIGINT NOT NULL,
    sell_nano BIGINT NOT NULL,
    cache_saved_nano BIGINT NOT NULL,
    suspense_nano BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    UNIQUE (request_id, attempt, kind, rev, at_ms)
) PARTITION BY RANGE (at_ms);

CREATE INDEX usage_event_by_seq ON usage_event (seq);
CREATE INDEX usage_event_by_tenant ON usage_event (tenant, held_at_ms);
CREATE INDEX usage_event_by_time ON usage_event (held_at_ms);
CREATE INDEX usage_event_by_task ON usage_event (tenant, task) WHERE task <> '';

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN RAISE EXCEPTION ''entries of the ledger are never changed or removed''; END';
CREATE TRIGGER usage_event_is_append_only BEFORE UPDATE OR DELETE ON usage_event
FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE TABLE hold (
    request_id BYTEA NOT NULL, attempt BIGINT NOT NULL, held TEXT NOT NULL, node TEXT NOT NULL,
    PRIMARY KEY (request_id, attempt)
);

CREATE TABLE api_key (
    id TEXT PRIMARY KEY,
    hmac BYTEA NOT NULL,
    tenant TEXT NOT NULL,
    team TEXT NOT NULL,
    project TEXT NOT NULL,
    label TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    revoked_at_ms BIGINT
);

CREATE TABLE state (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE journal_cursor (
    node TEXT PRIMARY KEY,
    position BIGINT NOT NULL
);

CREATE TABLE rollup_hour (
    start_ms BIGINT NOT NULL, tenant TEXT NOT NULL, team TEXT NOT NULL, project TEXT NOT NULL,
    key TEXT NOT NULL, user_id TEXT NOT NULL, workflow TEXT NOT NULL, model TEXT NOT NULL,
    endpoint TEXT NOT NULL, tier TEXT NOT NULL, lane TEXT NOT NULL, price TEXT NOT NULL,
    context_tier BIGINT NOT NULL,
    calls BIGINT NOT NULL, failed BIGINT NOT NULL, counted BIGINT NOT NULL,
    estimated BIGINT NOT NULL, unpriced BIGINT NOT NULL, retries BIGINT NOT NULL,
    input BIGINT NOT NULL, cache_read BIGINT NOT NULL, cache_write_5m BIGINT NOT NULL,
    cache_write_1h BIGINT NOT NULL, output BIGINT NOT NULL, reasoning BIGINT NOT NULL,
    audio_input BIGINT NOT NULL, audio_output BIGINT NOT NULL, web_searches BIGINT NOT NULL,
    cost_nano BIGINT NOT NULL, list_nano BIGINT NOT NULL, sell_nano BIGINT NOT NULL,
    baseline_nano BIGINT NOT NULL, cache_saved_nano BIGINT NOT NULL,
    estimated_nano BIGINT NOT NULL, retry_nano BIGINT NOT NULL, wasted_nano BIGINT NOT NULL,
    corrected_nano BIGINT NOT NULL, suspense_nano BIGINT NOT NULL,
    PRIMARY KEY (start_ms, tenant, team, project, key, user_id, workflow, model, endpoint, tier,
     lane, price, context_tier)
);

CREATE TABLE rollup_day (
    start_ms BIGINT NOT NULL, tenant TEXT NOT NULL, team TEXT NOT NULL, project TEXT NOT NULL,
    key TEXT NOT NULL, workflow TEXT NOT NULL, model TEXT NOT NULL,
    endpoint TEXT NOT NULL, tier TEXT NOT NULL, lane TEXT NOT NULL, price TEXT NOT NULL,
    context_tier BIGINT NOT NULL,
    calls BIGINT NOT NULL, failed BIGINT NOT NULL, counted BIGINT NOT NULL,
    estimated BIGINT NOT NULL, unpriced BIGINT NOT NULL, retries BIGINT NOT NULL,
    input BIGINT NOT NULL, cache_read BIGINT NOT NULL, cache_write_5m BIGINT NOT NULL,
    cache_write_1h BIGINT NOT NULL, output BIGINT NOT NULL, reasoning BIGINT NOT NULL,
    audio_input BIGINT NOT NULL, audio_output BIGINT NOT NULL, web_searches BIGINT NOT NULL,
    cost_nano BIGINT NOT NULL, list_nano BIGINT NOT NULL, sell_nano BIGINT NOT NULL,
    baseline_nano BIGINT NOT NULL, cache_saved_nano BIGINT NOT NULL,
    estimated_nano BIGINT NOT NULL, retry_nano BIGINT NOT NULL, wasted_nano BIGINT NOT NULL,
    corrected_nano BIGINT NOT NULL, suspense_nano BIGINT NOT NULL,
    PRIMARY KEY (start_ms, tenant, team, project, key, workflow, model, endpoint, tier, lane, price,
     context_tier)
);

-- Calls by what they cost, in steps of an eighth of a power of two: percentiles without the entries.
CREATE TABLE rollup_cost (
    start_ms BIGINT NOT NULL, tenant TEXT NOT NULL, model TEXT NOT NULL, step BIGINT NOT NULL,
    calls BIGINT NOT NULL,
    PRIMARY KEY (start_ms, tenant, model, step)
);

-- What a task of a caller cost, and how it ended.
CREATE TABLE task (
    tenant TEXT NOT NULL, task TEXT NOT NULL, workflow TEXT NOT NULL, team TEXT NOT NULL,
    project TEXT NOT NULL, first_ms BIGINT NOT NULL, last_ms BIGINT NOT NULL,
    calls BIGINT NOT NULL, cost_nano BIGINT NOT NULL, sell_nano BIGINT NOT NULL,
    baseline_nano BIGINT NOT NULL, outcome TEXT NOT NULL,
    PRIMARY KEY (tenant, task)
);

CREATE INDEX task_by_time ON task (first_ms);

-- What was spent in each window of a budget, and what each node may still spend of it. The node ''
-- stands for what was there before the budget and for corrections.
CREATE TABLE budget_window (
    budget TEXT NOT NULL, start_ms BIGINT NOT NULL, node TEXT NOT NULL, tenant TEXT NOT NULL,
    granted_nano BIGINT NOT NULL, settled_nano BIGINT NOT NULL,
    PRIMARY KEY (budget, start_ms, node)
);

-- A dated change of a limit, by a person, for a reason.
CREATE TABLE budget_override (
    id TEXT PRIMARY KEY, budget TEXT NOT NULL, amount_nano BIGINT NOT NULL,
    from_ms BIGINT NOT NULL, until_ms BIGINT NOT NULL, author TEXT NOT NULL, reason TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL
);

-- What budgets decided, by hour: wait, degrade, deny, unavailable.
CREATE TABLE rollup_decision (
    start_ms BIGINT NOT NULL, tenant TEXT NOT NULL, budget TEXT NOT NULL, decision TEXT NOT NULL,
    calls BIGINT NOT NULL,
    PRIMARY KEY (start_ms, tenant, budget, decision)
);

-- What is to be told to others, at least once, by a stable id.
CREATE TABLE outbox (
    id TEXT PRIMARY KEY, topic TEXT NOT NULL, payload TEXT NOT NULL, created_at_ms BIGINT NOT NULL,
    next_at_ms BIGINT NOT NULL, attempts BIGINT NOT NULL, delivered_at_ms BIGINT, error TEXT NOT NULL
);

CREATE INDEX outbox_by_due ON outbox (next_at_ms) WHERE delivered_at_ms IS NULL;

-- Processes that share the ledger.
CREATE TABLE node (
    node TEXT PRIMARY KEY, state TEXT NOT NULL, seen_at_ms BIGINT NOT NULL, lease_until_ms BIGINT NOT NULL
);

CREATE TABLE counter (
    name TEXT PRIMARY KEY, value BIGINT NOT NULL
);

-- Nodes that wait for a part of a budget, for a moment: others give back what they do not use.
CREATE TABLE budget_want (
    budget TEXT NOT NULL, node TEXT NOT NULL, until_ms BIGINT NOT NULL,
    PRIMARY KEY (budget, node)
);
