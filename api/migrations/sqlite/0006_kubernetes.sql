-- The UID of the namespace kube-system of the one Kubernetes whose batches are taken; none before the first one.
ALTER TABLE clusters ADD COLUMN kubernetes TEXT;
