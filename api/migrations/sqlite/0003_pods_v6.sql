-- Dual stack: the range of pods' IPv6 addresses, where the operator gives the network a pool of them.
ALTER TABLE clusters ADD COLUMN pod_range_v6 TEXT;
CREATE UNIQUE INDEX clusters_by_pod_range_v6 ON clusters (network, pod_range_v6);
