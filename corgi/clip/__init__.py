"""CLIP: towers, own towers, embeddings, and the clusters of the shift."""
