-- What both databases can keep in the same way: documents are bytes, digests are
-- hexadecimal digits, and no column has a reserved name.

CREATE TABLE documents (
    cluster TEXT NOT NULL REFERENCES clusters (id),
    path    TEXT NOT NULL,
    body    BLOB NOT NULL,
    PRIMARY KEY (cluster, path)
) STRICT, WITHOUT ROWID;
INSERT INTO documents (cluster, path, body) SELECT cluster, path, CAST(body AS BLOB) FROM objects;
DROP TABLE objects;
ALTER TABLE documents RENAME TO objects;

CREATE TABLE sealed (
    cluster    TEXT NOT NULL REFERENCES clusters (id),
    role       TEXT NOT NULL,
    claim      TEXT NOT NULL UNIQUE,
    ciphertext BLOB NOT NULL,
    PRIMARY KEY (cluster, role)
) STRICT;
INSERT INTO sealed (cluster, role, claim, ciphertext)
    SELECT cluster, role, lower(hex(claim)), CAST(ciphertext AS BLOB) FROM bundles;
DROP TABLE bundles;
ALTER TABLE sealed RENAME TO bundles;

CREATE TABLE redeemed_claims (
    claim   TEXT NOT NULL,
    server  TEXT NOT NULL,
    cluster TEXT NOT NULL REFERENCES clusters (id),
    PRIMARY KEY (claim, server)
) STRICT, WITHOUT ROWID;
INSERT INTO redeemed_claims (claim, server, cluster) SELECT lower(hex(claim)), server, cluster FROM redeemed;
DROP TABLE redeemed;
ALTER TABLE redeemed_claims RENAME TO redeemed;

ALTER TABLE pairs RENAME COLUMN range TO pair;

-- Whether a block is the cluster's, or only about to be. `origin` says what holds it: a port that AKE made
-- ('neutron'), nothing but this row ('range'), or a port that was there before ('adopted').
ALTER TABLE blocks ADD COLUMN settled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE blocks ADD COLUMN origin TEXT NOT NULL DEFAULT 'neutron';
UPDATE blocks SET settled = 1 WHERE port IS NOT NULL;

-- Counts what callers can see and devices need not know.
ALTER TABLE device ADD COLUMN changes INTEGER NOT NULL DEFAULT 0;

-- The one that writes to the devices. `beat` counts its signs of life.
CREATE TABLE writer (
    one    INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    holder TEXT    NOT NULL,
    beat   INTEGER NOT NULL
) STRICT;
INSERT INTO writer (one, holder, beat) VALUES (1, '', 0);
