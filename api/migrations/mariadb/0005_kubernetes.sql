-- The UID of the namespace kube-system of the one Kubernetes whose batches are taken; none before the first one.
ALTER TABLE clusters ADD COLUMN IF NOT EXISTS kubernetes VARCHAR(64);
