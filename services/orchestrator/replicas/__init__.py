"""Replicas of a stage: discovery, health, load balancing and hedged calls."""
