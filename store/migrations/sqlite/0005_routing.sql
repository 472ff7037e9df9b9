-- What the router knew of a call, what came of it, and what people say of the answer.

ALTER TABLE usage_event ADD COLUMN class TEXT NOT NULL DEFAULT '';
ALTER TABLE usage_event ADD COLUMN step TEXT NOT NULL DEFAULT '';
ALTER TABLE usage_event ADD COLUMN session INTEGER NOT NULL DEFAULT 0;

-- The control group is one call in a hundred, and every estimate asks for it.
CREATE INDEX usage_event_by_control ON usage_event (held_at_ms) WHERE reason = 'control';

CREATE TABLE feedback (
    seq        INTEGER PRIMARY KEY,
    request_id BLOB    NOT NULL,
    kind       TEXT    NOT NULL,
    good_ppm   INTEGER NOT NULL,
    tenant     TEXT    NOT NULL,
    held_at_ms INTEGER NOT NULL,
    at_ms      INTEGER NOT NULL,
    feedback   TEXT    NOT NULL
) STRICT;

CREATE INDEX feedback_by_call ON feedback (request_id, kind, seq);
CREATE INDEX feedback_by_time ON feedback (held_at_ms);

-- What the router decided, by day: attempts with what they cost, calls with their first attempt.
CREATE TABLE rollup_route (
    start_ms INTEGER NOT NULL, tenant TEXT NOT NULL, class TEXT NOT NULL, step TEXT NOT NULL,
    tier TEXT NOT NULL, reason TEXT NOT NULL,
    calls INTEGER NOT NULL, attempts INTEGER NOT NULL, cost_nano INTEGER NOT NULL,
    baseline_nano INTEGER NOT NULL, lost_nano INTEGER NOT NULL,
    PRIMARY KEY (start_ms, tenant, class, step, tier, reason)
) STRICT, WITHOUT ROWID;

-- What was settled before decisions were kept: its money, without class and step.
INSERT INTO rollup_route
SELECT held_at_ms - held_at_ms % 86400000, tenant, '', '', tier, reason,
    CAST(SUM(CASE WHEN kind = 'settle' AND attempt = 0 THEN 1 ELSE 0 END) AS BIGINT),
    CAST(SUM(CASE WHEN kind = 'settle' THEN 1 ELSE 0 END) AS BIGINT),
    CAST(SUM(cost_nano) AS BIGINT), CAST(SUM(baseline_nano) AS BIGINT), 0
FROM usage_event GROUP BY held_at_ms - held_at_ms % 86400000, tenant, tier, reason;
