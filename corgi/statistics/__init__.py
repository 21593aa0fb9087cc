"""Statistics in numpy: moments, spherical k-means, the shift parameters. No file, no cluster."""
