-- How much is kept, counted as it changes: pages would not tell, because documents that go leave half
-- of theirs behind. And the oldest first, whatever they are, where there is too much.

CREATE INDEX document_by_time ON document (at_ms);

CREATE TABLE kept (
    bytes INTEGER NOT NULL
) STRICT;

INSERT INTO kept SELECT coalesce(sum(octet_length(value)), 0) FROM document;

CREATE TRIGGER document_put AFTER INSERT ON document BEGIN
    UPDATE kept SET bytes = bytes + octet_length(new.value);
END;

CREATE TRIGGER document_changed AFTER UPDATE OF value ON document BEGIN
    UPDATE kept SET bytes = bytes + octet_length(new.value) - octet_length(old.value);
END;

CREATE TRIGGER document_removed AFTER DELETE ON document BEGIN
    UPDATE kept SET bytes = bytes - octet_length(old.value);
END;
