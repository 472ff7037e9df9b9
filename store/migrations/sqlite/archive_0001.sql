-- What is kept of conversations. In a file of its own: it holds prompts and answers, is pruned by age,
-- and its writes must not stand in the ledger's way.

CREATE TABLE document (
    shelf  TEXT    NOT NULL,
    tenant TEXT    NOT NULL,
    id     TEXT    NOT NULL,
    at_ms  INTEGER NOT NULL,
    value  TEXT    NOT NULL,
    PRIMARY KEY (shelf, tenant, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX document_by_age ON document (shelf, at_ms);
