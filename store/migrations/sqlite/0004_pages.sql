-- What the finance pages ask most: the same sums with fewer names beside them, so that months are read in
-- milliseconds; and the few rows among the entries that need an explanation.

CREATE TABLE brief_day (
    start_ms INTEGER NOT NULL, tenant TEXT NOT NULL, model TEXT NOT NULL, endpoint TEXT NOT NULL,
    tier TEXT NOT NULL,
    calls INTEGER NOT NULL, failed INTEGER NOT NULL, counted INTEGER NOT NULL,
    estimated INTEGER NOT NULL, unpriced INTEGER NOT NULL, retries INTEGER NOT NULL,
    input INTEGER NOT NULL, cache_read INTEGER NOT NULL, cache_write_5m INTEGER NOT NULL,
    cache_write_1h INTEGER NOT NULL, output INTEGER NOT NULL, reasoning INTEGER NOT NULL,
    audio_input INTEGER NOT NULL, audio_output INTEGER NOT NULL, web_searches INTEGER NOT NULL,
    cost_nano INTEGER NOT NULL, list_nano INTEGER NOT NULL, sell_nano INTEGER NOT NULL,
    baseline_nano INTEGER NOT NULL, cache_saved_nano INTEGER NOT NULL, estimated_nano INTEGER NOT NULL,
    retry_nano INTEGER NOT NULL, wasted_nano INTEGER NOT NULL, corrected_nano INTEGER NOT NULL,
    suspense_nano INTEGER NOT NULL, PRIMARY KEY (start_ms, tenant, model, endpoint, tier)
) STRICT, WITHOUT ROWID;

INSERT INTO brief_day
SELECT start_ms, tenant, model, endpoint, tier,
    CAST(SUM(calls) AS BIGINT), CAST(SUM(failed) AS BIGINT), CAST(SUM(counted) AS BIGINT),
    CAST(SUM(estimated) AS BIGINT), CAST(SUM(unpriced) AS BIGINT), CAST(SUM(retries) AS BIGINT),
    CAST(SUM(input) AS BIGINT), CAST(SUM(cache_read) AS BIGINT), CAST(SUM(cache_write_5m) AS BIGINT),
    CAST(SUM(cache_write_1h) AS BIGINT), CAST(SUM(output) AS BIGINT), CAST(SUM(reasoning) AS BIGINT),
    CAST(SUM(audio_input) AS BIGINT), CAST(SUM(audio_output) AS BIGINT),
    CAST(SUM(web_searches) AS BIGINT), CAST(SUM(cost_nano) AS BIGINT), CAST(SUM(list_nano) AS BIGINT),
    CAST(SUM(sell_nano) AS BIGINT), CAST(SUM(baseline_nano) AS BIGINT),
    CAST(SUM(cache_saved_nano) AS BIGINT), CAST(SUM(estimated_nano) AS BIGINT),
    CAST(SUM(retry_nano) AS BIGINT), CAST(SUM(wasted_nano) AS BIGINT),
    CAST(SUM(corrected_nano) AS BIGINT), CAST(SUM(suspense_nano) AS BIGINT)
FROM rollup_day GROUP BY start_ms, tenant, model, endpoint, tier;

CREATE TABLE brief_hour (
    start_ms INTEGER NOT NULL, tenant TEXT NOT NULL, model TEXT NOT NULL, endpoint TEXT NOT NULL,
    tier TEXT NOT NULL,
    calls INTEGER NOT NULL, failed INTEGER NOT NULL, counted INTEGER NOT NULL,
    estimated INTEGER NOT NULL, unpriced INTEGER NOT NULL, retries INTEGER NOT NULL,
    input INTEGER NOT NULL, cache_read INTEGER NOT NULL, cache_write_5m INTEGER NOT NULL,
    cache_write_1h INTEGER NOT NULL, output INTEGER NOT NULL, reasoning INTEGER NOT NULL,
    audio_input INTEGER NOT NULL, audio_output INTEGER NOT NULL, web_searches INTEGER NOT NULL,
    cost_nano INTEGER NOT NULL, list_nano INTEGER NOT NULL, sell_nano INTEGER NOT NULL,
    baseline_nano INTEGER NOT NULL, cache_saved_nano INTEGER NOT NULL, estimated_nano INTEGER NOT NULL,
    retry_nano INTEGER NOT NULL, wasted_nano INTEGER NOT NULL, corrected_nano INTEGER NOT NULL,
    suspense_nano INTEGER NOT NULL, PRIMARY KEY (start_ms, tenant, model, endpoint, tier)
) STRICT, WITHOUT ROWID;

INSERT INTO brief_hour
SELECT start_ms, tenant, model, endpoint, tier,
    CAST(SUM(calls) AS BIGINT), CAST(SUM(failed) AS BIGINT), CAST(SUM(counted) AS BIGINT),
    CAST(SUM(estimated) AS BIGINT), CAST(SUM(unpriced) AS BIGINT), CAST(SUM(retries) AS BIGINT),
    CAST(SUM(input) AS BIGINT), CAST(SUM(cache_read) AS BIGINT), CAST(SUM(cache_write_5m) AS BIGINT),
    CAST(SUM(cache_write_1h) AS BIGINT), CAST(SUM(output) AS BIGINT), CAST(SUM(reasoning) AS BIGINT),
    CAST(SUM(audio_input) AS BIGINT), CAST(SUM(audio_output) AS BIGINT),
    CAST(SUM(web_searches) AS BIGINT), CAST(SUM(cost_nano) AS BIGINT), CAST(SUM(list_nano) AS BIGINT),
    CAST(SUM(sell_nano) AS BIGINT), CAST(SUM(baseline_nano) AS BIGINT),
    CAST(SUM(cache_saved_nano) AS BIGINT), CAST(SUM(estimated_nano) AS BIGINT),
    CAST(SUM(retry_nano) AS BIGINT), CAST(SUM(wasted_nano) AS BIGINT),
    CAST(SUM(corrected_nano) AS BIGINT), CAST(SUM(suspense_nano) AS BIGINT)
FROM rollup_hour GROUP BY start_ms, tenant, model, endpoint, tier;

CREATE INDEX usage_event_by_change ON usage_event (held_at_ms) WHERE kind <> 'settle';
CREATE INDEX usage_event_by_orphan ON usage_event (held_at_ms) WHERE outcome = 'orphaned';
