"""Statistics in numpy: moments, spherical k-means, the shift parameters. It uses neither files nor a Ray cluster."""
