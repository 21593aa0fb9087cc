"""The shift stage: clusters of the image embeddings, their mean, scale and count."""
