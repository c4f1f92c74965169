"""Integer rows on disk to batches: row blocks, `batch_at(n)`, prefetch."""
