"""Distances between sets of pictures: Fréchet distances of a network's features, and FID."""
