-- Entries are kept as the journal's bytes beside their columns, a third of the JSON that they were kept
-- as before; old rows keep theirs. So are open holds, where old ones become the bytes of their JSON.

ALTER TABLE usage_event ADD COLUMN packed BYTEA;
ALTER TABLE hold ALTER COLUMN held TYPE BYTEA USING convert_to(held, 'UTF8');
