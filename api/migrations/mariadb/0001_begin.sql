-- Only what is wanted is kept. Health and counters are the device's, servers and ports are OpenStack's.
-- A step that was interrupted is run again from its beginning: MariaDB does not undo a CREATE.

CREATE TABLE IF NOT EXISTS clusters (
    id                VARCHAR(36)  NOT NULL PRIMARY KEY,
    name              VARCHAR(255) NOT NULL,
    project           VARCHAR(255) NOT NULL,
    network           VARCHAR(255) NOT NULL,
    pod_range         VARCHAR(64)  NOT NULL,
    deleting          BIGINT       NOT NULL DEFAULT 0,
    revision          BIGINT       NOT NULL DEFAULT 1,
    lease_transitions BIGINT       NOT NULL DEFAULT 0,
    UNIQUE KEY one_range (network, pod_range),
    KEY clusters_by_project (project)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

-- Aligned blocks of the VIP ranges. `settled` says whether a block is the cluster's, or only about to be; `origin`
-- what holds it: a port that AKE made ('neutron'), nothing but this row ('range'), or a port that was there before
-- ('adopted'). `port` is the Neutron port, where there is one.
CREATE TABLE IF NOT EXISTS blocks (
    block    VARCHAR(64)  NOT NULL PRIMARY KEY,
    cluster  VARCHAR(36)  NOT NULL,
    position BIGINT       NOT NULL,
    network  VARCHAR(255) NOT NULL,
    subnet   VARCHAR(255) NOT NULL,
    port     VARCHAR(64),
    settled  BIGINT       NOT NULL DEFAULT 0,
    origin   VARCHAR(16)  NOT NULL DEFAULT 'neutron',
    CONSTRAINT blocks_of_cluster FOREIGN KEY (cluster) REFERENCES clusters (id)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

-- One document per object, named by its path below the cluster.
CREATE TABLE IF NOT EXISTS objects (
    cluster VARCHAR(36)  NOT NULL,
    path    VARCHAR(512) NOT NULL,
    body    MEDIUMBLOB   NOT NULL,
    PRIMARY KEY (cluster, path),
    CONSTRAINT objects_of_cluster FOREIGN KEY (cluster) REFERENCES clusters (id)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

-- The address pairs that were written to Neutron ports: whatever else stands there is somebody else's.
CREATE TABLE IF NOT EXISTS pairs (
    cluster VARCHAR(36) NOT NULL,
    port    VARCHAR(64) NOT NULL,
    pair    VARCHAR(64) NOT NULL,
    PRIMARY KEY (cluster, port, pair),
    CONSTRAINT pairs_of_cluster FOREIGN KEY (cluster) REFERENCES clusters (id)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

-- The one cluster that an application credential belongs to.
CREATE TABLE IF NOT EXISTS credentials (
    credential VARCHAR(255) NOT NULL PRIMARY KEY,
    cluster    VARCHAR(36)  NOT NULL,
    CONSTRAINT credentials_of_cluster FOREIGN KEY (cluster) REFERENCES clusters (id)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

-- Sealed bundles. Of a claim only its SHA-256 is kept, in hexadecimal digits.
CREATE TABLE IF NOT EXISTS bundles (
    cluster    VARCHAR(36) NOT NULL,
    role       VARCHAR(63) NOT NULL,
    claim      VARCHAR(64) NOT NULL,
    ciphertext MEDIUMBLOB  NOT NULL,
    PRIMARY KEY (cluster, role),
    UNIQUE KEY one_claim (claim),
    CONSTRAINT bundles_of_cluster FOREIGN KEY (cluster) REFERENCES clusters (id)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

-- Servers that had the bundle of a claim.
CREATE TABLE IF NOT EXISTS redeemed (
    claim   VARCHAR(64) NOT NULL,
    server  VARCHAR(64) NOT NULL,
    cluster VARCHAR(36) NOT NULL,
    PRIMARY KEY (claim, server),
    CONSTRAINT redeemed_of_cluster FOREIGN KEY (cluster) REFERENCES clusters (id)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

-- The version of the whole state, which devices compare. `changes` counts what callers can see and devices need
-- not know.
CREATE TABLE IF NOT EXISTS device (
    one     BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    epoch   BIGINT NOT NULL,
    number  BIGINT NOT NULL,
    changes BIGINT NOT NULL DEFAULT 0
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

INSERT IGNORE INTO device (one, epoch, number) VALUES (1, 1, 0);

-- The one that writes to the devices. `beat` counts its signs of life.
CREATE TABLE IF NOT EXISTS writer (
    one    BIGINT       NOT NULL PRIMARY KEY CHECK (one = 1),
    holder VARCHAR(255) NOT NULL,
    beat   BIGINT       NOT NULL
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

INSERT IGNORE INTO writer (one, holder, beat) VALUES (1, '', 0);
