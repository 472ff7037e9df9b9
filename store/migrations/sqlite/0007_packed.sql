-- Entries are kept as the journal's bytes beside their columns, a third of the JSON that they were kept
-- as before; old rows keep theirs. So are open holds, where old ones become the bytes of their JSON.

ALTER TABLE usage_event ADD COLUMN packed BLOB;

CREATE TABLE hold_packed (
    request_id  BLOB    NOT NULL,
    attempt     INTEGER NOT NULL,
    held        BLOB    NOT NULL,
    node        TEXT    NOT NULL,
    PRIMARY KEY (request_id, attempt)
) STRICT, WITHOUT ROWID;
INSERT INTO hold_packed SELECT request_id, attempt, CAST(held AS BLOB), node FROM hold;
DROP TABLE hold;
ALTER TABLE hold_packed RENAME TO hold;
