-- Addresses that outlived their clusters. `port` is the Neutron port that keeps them, where there is one; `going` says
-- that one was given back, and that its port may be gone.
CREATE TABLE IF NOT EXISTS retained (
    address VARCHAR(64)  NOT NULL PRIMARY KEY,
    project VARCHAR(255) NOT NULL,
    name    VARCHAR(255) NOT NULL,
    about   VARCHAR(255),
    port    VARCHAR(64),
    network VARCHAR(255) NOT NULL,
    subnet  VARCHAR(255) NOT NULL,
    going   BIGINT       NOT NULL DEFAULT 0,
    KEY retained_by_project (project)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;
