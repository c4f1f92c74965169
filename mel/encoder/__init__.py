"""Rows to unit vectors: the transformer, embedding, pretrained weights in and out."""
