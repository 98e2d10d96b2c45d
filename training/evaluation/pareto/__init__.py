"""Sweeps of sampling parameters: a distance against a text score, and the Pareto front."""
