-- Addresses that outlived their clusters. `port` is the Neutron port that keeps them, where there is one; `going` says
-- that one was given back, and that its port may be gone.
CREATE TABLE retained (
    address TEXT    NOT NULL PRIMARY KEY,
    project TEXT    NOT NULL,
    name    TEXT    NOT NULL,
    about   TEXT,
    port    TEXT,
    network TEXT    NOT NULL,
    subnet  TEXT    NOT NULL,
    going   INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX retained_by_project ON retained (project);
