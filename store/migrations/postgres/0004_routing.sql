-- What the router knew of a call, what came of it, and what people say of the answer.

ALTER TABLE usage_event ADD COLUMN class TEXT NOT NULL DEFAULT '';
ALTER TABLE usage_event ADD COLUMN step TEXT NOT NULL DEFAULT '';
ALTER TABLE usage_event ADD COLUMN session BIGINT NOT NULL DEFAULT 0;

-- The control group is one call in a hundred, and every estimate asks for it.
CREATE INDEX usage_event_by_control ON usage_event (held_at_ms) WHERE reason = 'control';

CREATE TABLE feedback (
    seq        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request_id BYTEA  NOT NULL,
    kind       TEXT   NOT NULL,
    good_ppm   BIGINT NOT NULL,
    tenant     TEXT   NOT NULL,
    held_at_ms BIGINT NOT NULL,
    at_ms      BIGINT NOT NULL,
    feedback   TEXT   NOT NULL
);

CREATE INDEX feedback_by_call ON feedback (request_id, kind, seq);
CREATE INDEX feedback_by_time ON feedback (held_at_ms);

-- What the router decided, by day: attempts with what they cost, calls with their first attempt.
CREATE TABLE rollup_route (
    start_ms BIGINT NOT NULL, tenant TEXT NOT NULL, class TEXT NOT NULL, step TEXT NOT NULL,
    tier TEXT NOT NULL, reason TEXT NOT NULL,
    calls BIGINT NOT NULL, attempts BIGINT NOT NULL, cost_nano BIGINT NOT NULL,
    baseline_nano BIGINT NOT NULL, lost_nano BIGINT NOT NULL,
    PRIMARY KEY (start_ms, tenant, class, step, tier, reason)
);

-- What was settled before decisions were kept: its money, without class and step.
INSERT INTO rollup_route
SELECT held_at_ms - held_at_ms % 86400000, tenant, '', '', tier, reason,
    CAST(SUM(CASE WHEN kind = 'settle' AND attempt = 0 THEN 1 ELSE 0 END) AS BIGINT),
    CAST(SUM(CASE WHEN kind = 'settle' THEN 1 ELSE 0 END) AS BIGINT),
    CAST(SUM(cost_nano) AS BIGINT), CAST(SUM(baseline_nano) AS BIGINT), 0
FROM usage_event GROUP BY held_at_ms - held_at_ms % 86400000, tenant, tier, reason;
