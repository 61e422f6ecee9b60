-- Dual stack: the range of pods' IPv6 addresses, where the operator gives the network a pool of them.
ALTER TABLE clusters ADD COLUMN IF NOT EXISTS pod_range_v6 VARCHAR(64) AFTER pod_range;
CREATE UNIQUE INDEX IF NOT EXISTS one_range_v6 ON clusters (network, pod_range_v6);
