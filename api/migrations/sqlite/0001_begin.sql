-- Only what is wanted is kept. Health and counters are the device's, servers and ports are OpenStack's.

CREATE TABLE clusters (
    id                TEXT    NOT NULL PRIMARY KEY,
    name              TEXT    NOT NULL,
    project           TEXT    NOT NULL,
    network           TEXT    NOT NULL,
    pod_range         TEXT    NOT NULL,
    deleting          INTEGER NOT NULL DEFAULT 0,
    revision          INTEGER NOT NULL DEFAULT 1,
    lease_transitions INTEGER NOT NULL DEFAULT 0,
    UNIQUE (network, pod_range)
) STRICT;

CREATE INDEX clusters_by_project ON clusters (project);

-- Aligned blocks of the VIP ranges. `port` is the Neutron port that reserves a block, once it is made.
CREATE TABLE blocks (
    block    TEXT    NOT NULL PRIMARY KEY,
    cluster  TEXT    NOT NULL REFERENCES clusters (id),
    position INTEGER NOT NULL,
    network  TEXT    NOT NULL,
    subnet   TEXT    NOT NULL,
    port     TEXT
) STRICT;

-- One document per object, named by its path below the cluster.
CREATE TABLE objects (
    cluster TEXT NOT NULL REFERENCES clusters (id),
    path    TEXT NOT NULL,
    body    TEXT NOT NULL,
    PRIMARY KEY (cluster, path)
) STRICT, WITHOUT ROWID;

-- The address pairs that were written to Neutron ports: whatever else stands there is somebody else's.
CREATE TABLE pairs (
    cluster TEXT NOT NULL REFERENCES clusters (id),
    port    TEXT NOT NULL,
    range   TEXT NOT NULL,
    PRIMARY KEY (cluster, port, range)
) STRICT, WITHOUT ROWID;

-- The one cluster that an application credential belongs to.
CREATE TABLE credentials (
    credential TEXT NOT NULL PRIMARY KEY,
    cluster    TEXT NOT NULL REFERENCES clusters (id)
) STRICT, WITHOUT ROWID;

-- Sealed bundles. Of a claim only its SHA-256 is kept.
CREATE TABLE bundles (
    cluster    TEXT NOT NULL REFERENCES clusters (id),
    role       TEXT NOT NULL,
    claim      BLOB NOT NULL UNIQUE,
    ciphertext TEXT NOT NULL,
    PRIMARY KEY (cluster, role)
) STRICT;

-- Servers that had the bundle of a claim.
CREATE TABLE redeemed (
    claim   BLOB NOT NULL,
    server  TEXT NOT NULL,
    cluster TEXT NOT NULL REFERENCES clusters (id),
    PRIMARY KEY (claim, server)
) STRICT, WITHOUT ROWID;

-- The version of the whole state, which devices compare.
CREATE TABLE device (
    one    INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    epoch  INTEGER NOT NULL,
    number INTEGER NOT NULL
) STRICT;

INSERT INTO device (one, epoch, number) VALUES (1, 1, 0);
