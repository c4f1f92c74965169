"""Vectors to neighbours to negatives: embeddings, index, mining."""
