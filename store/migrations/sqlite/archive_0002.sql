-- How much each tenant keeps, counted as it changes, with what a row and its indexes take themselves:
-- pages would not tell, because documents that go leave half of theirs behind. And the oldest of a
-- tenant first, whatever they are, where there is too much.

CREATE INDEX document_by_time ON document (tenant, at_ms);

CREATE TABLE kept (
    tenant TEXT    NOT NULL PRIMARY KEY,
    bytes  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO kept
    SELECT tenant, sum(octet_length(value) + 3 * (length(shelf) + length(tenant) + length(id)) + 40)
    FROM document GROUP BY tenant;

CREATE TRIGGER document_put AFTER INSERT ON document BEGIN
    INSERT INTO kept VALUES (new.tenant,
        octet_length(new.value) + 3 * (length(new.shelf) + length(new.tenant) + length(new.id)) + 40)
    ON CONFLICT (tenant) DO UPDATE SET bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER document_changed AFTER UPDATE OF value ON document BEGIN
    UPDATE kept SET bytes = bytes + octet_length(new.value) - octet_length(old.value)
    WHERE tenant = new.tenant;
END;

CREATE TRIGGER document_removed AFTER DELETE ON document BEGIN
    UPDATE kept SET bytes = bytes
        - (octet_length(old.value) + 3 * (length(old.shelf) + length(old.tenant) + length(old.id)) + 40)
    WHERE tenant = old.tenant;
END;
