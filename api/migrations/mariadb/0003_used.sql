-- How much of each resource a cluster has, for quotas. Programs of before, which do not know it, forget clusters as well.
CREATE TABLE IF NOT EXISTS used (
    cluster        VARCHAR(36) NOT NULL PRIMARY KEY,
    addresses      BIGINT      NOT NULL,
    pools          BIGINT      NOT NULL,
    members        BIGINT      NOT NULL,
    load_balancers BIGINT      NOT NULL,
    listeners      BIGINT      NOT NULL,
    retained       BIGINT      NOT NULL,
    CONSTRAINT used_of_cluster FOREIGN KEY (cluster) REFERENCES clusters (id) ON DELETE CASCADE
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

INSERT IGNORE INTO used (cluster, addresses, pools, members, load_balancers, listeners, retained)
SELECT c.id,
    (SELECT COUNT(*) FROM objects o WHERE o.cluster = c.id AND o.path LIKE 'addresses/%'),
    (SELECT COUNT(*) FROM objects o WHERE o.cluster = c.id AND o.path LIKE 'pools/%'
        AND o.path NOT LIKE 'pools/%/members/%'),
    (SELECT COUNT(*) FROM objects o WHERE o.cluster = c.id AND o.path LIKE 'pools/%/members/%'),
    (SELECT COUNT(*) FROM objects o WHERE o.cluster = c.id AND o.path LIKE 'load-balancers/%'),
    (SELECT COALESCE(SUM(JSON_LENGTH(CONVERT(o.body USING utf8mb4), '$.listeners')), 0) FROM objects o
        WHERE o.cluster = c.id AND o.path LIKE 'load-balancers/%'),
    (SELECT COUNT(*) FROM objects o WHERE o.cluster = c.id AND o.path LIKE 'addresses/%'
        AND JSON_EXTRACT(CONVERT(o.body USING utf8mb4), '$.retained') = TRUE)
FROM clusters c;
