-- What finance needs of an entry: who besides the key, which lane and price, list and sell amounts.

ALTER TABLE usage_event ADD COLUMN node TEXT NOT NULL DEFAULT 'local';
ALTER TABLE usage_event ADD COLUMN user_id TEXT NOT NULL DEFAULT '';
ALTER TABLE usage_event ADD COLUMN task TEXT NOT NULL DEFAULT '';
ALTER TABLE usage_event ADD COLUMN workflow TEXT NOT NULL DEFAULT '';
ALTER TABLE usage_event ADD COLUMN lane TEXT NOT NULL DEFAULT 'standard';
ALTER TABLE usage_event ADD COLUMN book TEXT NOT NULL DEFAULT '';
ALTER TABLE usage_event ADD COLUMN context_tier INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_event ADD COLUMN list_nano INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_event ADD COLUMN sell_nano INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_event ADD COLUMN cache_saved_nano INTEGER NOT NULL DEFAULT 0;
-- What it may cost beyond what was counted, until a bill tells.
ALTER TABLE usage_event ADD COLUMN suspense_nano INTEGER NOT NULL DEFAULT 0;
-- When the call arrived, from its id: what a shared ledger is partitioned by.
ALTER TABLE usage_event ADD COLUMN at_ms INTEGER NOT NULL DEFAULT 0;

CREATE INDEX usage_event_by_time ON usage_event (held_at_ms);
CREATE INDEX usage_event_by_task ON usage_event (tenant, task) WHERE task <> '';

ALTER TABLE hold ADD COLUMN node TEXT NOT NULL DEFAULT 'local';

ALTER TABLE rollup_hour RENAME TO rollup_hour_1;
ALTER TABLE rollup_day RENAME TO rollup_day_1;

CREATE TABLE rollup_hour (
    start_ms INTEGER NOT NULL, tenant TEXT NOT NULL, team TEXT NOT NULL, project TEXT NOT NULL,
    key TEXT NOT NULL, user_id TEXT NOT NULL, workflow TEXT NOT NULL, model TEXT NOT NULL,
    endpoint TEXT NOT NULL, tier TEXT NOT NULL, lane TEXT NOT NULL, price TEXT NOT NULL,
    context_tier INTEGER NOT NULL,
    calls INTEGER NOT NULL, failed INTEGER NOT NULL, counted INTEGER NOT NULL,
    estimated INTEGER NOT NULL, unpriced INTEGER NOT NULL, retries INTEGER NOT NULL,
    input INTEGER NOT NULL, cache_read INTEGER NOT NULL, cache_write_5m INTEGER NOT NULL,
    cache_write_1h INTEGER NOT NULL, output INTEGER NOT NULL, reasoning INTEGER NOT NULL,
    audio_input INTEGER NOT NULL, audio_output INTEGER NOT NULL, web_searches INTEGER NOT NULL,
    cost_nano INTEGER NOT NULL, list_nano INTEGER NOT NULL, sell_nano INTEGER NOT NULL,
    baseline_nano INTEGER NOT NULL, cache_saved_nano INTEGER NOT NULL,
    estimated_nano INTEGER NOT NULL, retry_nano INTEGER NOT NULL, wasted_nano INTEGER NOT NULL,
    corrected_nano INTEGER NOT NULL, suspense_nano INTEGER NOT NULL,
    PRIMARY KEY (start_ms, tenant, team, project, key, user_id, workflow, model, endpoint, tier,
                 lane, price, context_tier)
) STRICT, WITHOUT ROWID;

CREATE TABLE rollup_day (
    start_ms INTEGER NOT NULL, tenant TEXT NOT NULL, team TEXT NOT NULL, project TEXT NOT NULL,
    key TEXT NOT NULL, workflow TEXT NOT NULL, model TEXT NOT NULL,
    endpoint TEXT NOT NULL, tier TEXT NOT NULL, lane TEXT NOT NULL, price TEXT NOT NULL,
    context_tier INTEGER NOT NULL,
    calls INTEGER NOT NULL, failed INTEGER NOT NULL, counted INTEGER NOT NULL,
    estimated INTEGER NOT NULL, unpriced INTEGER NOT NULL, retries INTEGER NOT NULL,
    input INTEGER NOT NULL, cache_read INTEGER NOT NULL, cache_write_5m INTEGER NOT NULL,
    cache_write_1h INTEGER NOT NULL, output INTEGER NOT NULL, reasoning INTEGER NOT NULL,
    audio_input INTEGER NOT NULL, audio_output INTEGER NOT NULL, web_searches INTEGER NOT NULL,
    cost_nano INTEGER NOT NULL, list_nano INTEGER NOT NULL, sell_nano INTEGER NOT NULL,
    baseline_nano INTEGER NOT NULL, cache_saved_nano INTEGER NOT NULL,
    estimated_nano INTEGER NOT NULL, retry_nano INTEGER NOT NULL, wasted_nano INTEGER NOT NULL,
    corrected_nano INTEGER NOT NULL, suspense_nano INTEGER NOT NULL,
    PRIMARY KEY (start_ms, tenant, team, project, key, workflow, model, endpoint, tier, lane, price,
                 context_tier)
) STRICT, WITHOUT ROWID;

INSERT INTO rollup_hour
SELECT start_ms, tenant, team, project, key, '', '', model, '', tier, 'standard', '', 0,
       calls, failed, 0, 0, 0, 0, input, cache_read, cache_write_5m, cache_write_1h, output, reasoning,
       audio_input, audio_output, web_searches, cost_nano, cost_nano, cost_nano, baseline_nano, 0, 0, 0, 0, 0, 0
FROM rollup_hour_1;
INSERT INTO rollup_day
SELECT start_ms, tenant, team, project, key, '', model, '', tier, 'standard', '', 0,
       calls, failed, 0, 0, 0, 0, input, cache_read, cache_write_5m, cache_write_1h, output, reasoning,
       audio_input, audio_output, web_searches, cost_nano, cost_nano, cost_nano, baseline_nano, 0, 0, 0, 0, 0, 0
FROM rollup_day_1;
DROP TABLE rollup_hour_1;
DROP TABLE rollup_day_1;

-- Calls by what they cost, in steps of an eighth of a power of two: percentiles without the entries.
CREATE TABLE rollup_cost (
    start_ms INTEGER NOT NULL, tenant TEXT NOT NULL, model TEXT NOT NULL, step INTEGER NOT NULL,
    calls INTEGER NOT NULL,
    PRIMARY KEY (start_ms, tenant, model, step)
) STRICT, WITHOUT ROWID;

-- What a task of a caller cost, and how it ended.
CREATE TABLE task (
    tenant TEXT NOT NULL, task TEXT NOT NULL, workflow TEXT NOT NULL, team TEXT NOT NULL,
    project TEXT NOT NULL, first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL,
    calls INTEGER NOT NULL, cost_nano INTEGER NOT NULL, sell_nano INTEGER NOT NULL,
    baseline_nano INTEGER NOT NULL, outcome TEXT NOT NULL,
    PRIMARY KEY (tenant, task)
) STRICT, WITHOUT ROWID;
CREATE INDEX task_by_time ON task (first_ms);

-- What was spent in each window of a budget, and what each node may still spend of it. The node ''
-- stands for what was there before the budget and for corrections.
CREATE TABLE budget_window (
    budget TEXT NOT NULL, start_ms INTEGER NOT NULL, node TEXT NOT NULL, tenant TEXT NOT NULL,
    granted_nano INTEGER NOT NULL, settled_nano INTEGER NOT NULL,
    PRIMARY KEY (budget, start_ms, node)
) STRICT, WITHOUT ROWID;

-- A dated change of a limit, by a person, for a reason.
CREATE TABLE budget_override (
    id TEXT PRIMARY KEY, budget TEXT NOT NULL, amount_nano INTEGER NOT NULL,
    from_ms INTEGER NOT NULL, until_ms INTEGER NOT NULL, author TEXT NOT NULL, reason TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What budgets decided, by hour: wait, degrade, deny, unavailable.
CREATE TABLE rollup_decision (
    start_ms INTEGER NOT NULL, tenant TEXT NOT NULL, budget TEXT NOT NULL, decision TEXT NOT NULL,
    calls INTEGER NOT NULL,
    PRIMARY KEY (start_ms, tenant, budget, decision)
) STRICT, WITHOUT ROWID;

-- What is to be told to others, at least once, by a stable id.
CREATE TABLE outbox (
    id TEXT PRIMARY KEY, topic TEXT NOT NULL, payload TEXT NOT NULL, created_at_ms INTEGER NOT NULL,
    next_at_ms INTEGER NOT NULL, attempts INTEGER NOT NULL, delivered_at_ms INTEGER, error TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_by_due ON outbox (next_at_ms) WHERE delivered_at_ms IS NULL;

-- Processes that share the ledger.
CREATE TABLE node (
    node TEXT PRIMARY KEY, state TEXT NOT NULL, seen_at_ms INTEGER NOT NULL, lease_until_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE counter (
    name TEXT PRIMARY KEY, value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Nodes that wait for a part of a budget, for a moment: others give back what they do not use.
CREATE TABLE budget_want (
    budget TEXT NOT NULL, node TEXT NOT NULL, until_ms INTEGER NOT NULL,
    PRIMARY KEY (budget, node)
) STRICT, WITHOUT ROWID;
