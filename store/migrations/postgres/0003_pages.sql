-- What the finance pages ask most: the same sums with fewer names beside them, so that months are read in
-- milliseconds; and the few rows among the entries that need an explanation.

CREATE TABLE brief_day (
    start_ms BIGINT NOT NULL, tenant TEXT NOT NULL, model TEXT NOT NULL, endpoint TEXT NOT NULL,
    tier TEXT NOT NULL,
    calls BIGINT NOT NULL, failed BIGINT NOT NULL, counted BIGINT NOT NULL, estimated BIGINT NOT NULL,
    unpriced BIGINT NOT NULL, retries BIGINT NOT NULL, input BIGINT NOT NULL,
    cache_read BIGINT NOT NULL, cache_write_5m BIGINT NOT NULL, cache_write_1h BIGINT NOT NULL,
    output BIGINT NOT NULL, reasoning BIGINT NOT NULL, audio_input BIGINT NOT NULL,
    audio_output BIGINT NOT NULL, web_searches BIGINT NOT NULL, cost_nano BIGINT NOT NULL,
    list_nano BIGINT NOT NULL, sell_nano BIGINT NOT NULL, baseline_nano BIGINT NOT NULL,
    cache_saved_nano BIGINT NOT NULL, estimated_nano BIGINT NOT NULL, retry_nano BIGINT NOT NULL,
    wasted_nano BIGINT NOT NULL, corrected_nano BIGINT NOT NULL, suspense_nano BIGINT NOT NULL,
    PRIMARY KEY (start_ms, tenant, model, endpoint, tier)
);

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
    start_ms BIGINT NOT NULL, tenant TEXT NOT NULL, model TEXT NOT NULL, endpoint TEXT NOT NULL,
    tier TEXT NOT NULL,
    calls BIGINT NOT NULL, failed BIGINT NOT NULL, counted BIGINT NOT NULL, estimated BIGINT NOT NULL,
    unpriced BIGINT NOT NULL, retries BIGINT NOT NULL, input BIGINT NOT NULL,
    cache_read BIGINT NOT NULL, cache_write_5m BIGINT NOT NULL, cache_write_1h BIGINT NOT NULL,
    output BIGINT NOT NULL, reasoning BIGINT NOT NULL, audio_input BIGINT NOT NULL,
    audio_output BIGINT NOT NULL, web_searches BIGINT NOT NULL, cost_nano BIGINT NOT NULL,
    list_nano BIGINT NOT NULL, sell_nano BIGINT NOT NULL, baseline_nano BIGINT NOT NULL,
    cache_saved_nano BIGINT NOT NULL, estimated_nano BIGINT NOT NULL, retry_nano BIGINT NOT NULL,
    wasted_nano BIGINT NOT NULL, corrected_nano BIGINT NOT NULL, suspense_nano BIGINT NOT NULL,
    PRIMARY KEY (start_ms, tenant, model, endpoint, tier)
);

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
