-- What tasks cost by tier, so that pages can say how much of delegated work went deep.

ALTER TABLE task ADD COLUMN fast_calls INTEGER NOT NULL DEFAULT 0;
ALTER TABLE task ADD COLUMN fast_nano INTEGER NOT NULL DEFAULT 0;
ALTER TABLE task ADD COLUMN deep_calls INTEGER NOT NULL DEFAULT 0;
ALTER TABLE task ADD COLUMN deep_nano INTEGER NOT NULL DEFAULT 0;

-- Tasks from before get theirs from their entries.
UPDATE task SET
    fast_calls = (SELECT COUNT(*) FROM usage_event e WHERE e.tenant = task.tenant
        AND e.task = task.task AND e.task <> '' AND e.tier = 'fast' AND e.kind = 'settle'),
    fast_nano = (SELECT COALESCE(SUM(e.cost_nano), 0) FROM usage_event e WHERE e.tenant = task.tenant
        AND e.task = task.task AND e.task <> '' AND e.tier = 'fast'),
    deep_calls = (SELECT COUNT(*) FROM usage_event e WHERE e.tenant = task.tenant
        AND e.task = task.task AND e.task <> '' AND e.tier = 'deep' AND e.kind = 'settle'),
    deep_nano = (SELECT COALESCE(SUM(e.cost_nano), 0) FROM usage_event e WHERE e.tenant = task.tenant
        AND e.task = task.task AND e.task <> '' AND e.tier = 'deep');
