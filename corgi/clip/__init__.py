"""CLIP: towers, trained towers and embeddings."""
