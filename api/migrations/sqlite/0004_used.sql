-- How much of each resource a cluster has, for quotas. Programs of before, which do not know it, forget clusters as well.
CREATE TABLE used (
    cluster        TEXT    NOT NULL PRIMARY KEY REFERENCES clusters (id) ON DELETE CASCADE,
    addresses      INTEGER NOT NULL,
    pools          INTEGER NOT NULL,
    members        INTEGER NOT NULL,
    load_balancers INTEGER NOT NULL,
    listeners      INTEGER NOT NULL,
    retained       INTEGER NOT NULL
) STRICT;

INSERT INTO used (cluster, addresses, pools, members, load_balancers, listeners, retained)
SELECT c.id,
    (SELECT COUNT(*) FROM objects o WHERE o.cluster = c.id AND o.path LIKE 'addresses/%'),
    (SELECT COUNT(*) FROM objects o WHERE o.cluster = c.id AND o.path LIKE 'pools/%'
        AND o.path NOT LIKE 'pools/%/members/%'),
    (SELECT COUNT(*) FROM objects o WHERE o.cluster = c.id AND o.path LIKE 'pools/%/members/%'),
    (SELECT COUNT(*) FROM objects o WHERE o.cluster = c.id AND o.path LIKE 'load-balancers/%'),
    (SELECT COALESCE(SUM(json_array_length(CAST(o.body AS TEXT), '$.listeners')), 0) FROM objects o
        WHERE o.cluster = c.id AND o.path LIKE 'load-balancers/%'),
    (SELECT COUNT(*) FROM objects o WHERE o.cluster = c.id AND o.path LIKE 'addresses/%'
        AND json_extract(CAST(o.body AS TEXT), '$.retained') = 1)
FROM clusters c;
