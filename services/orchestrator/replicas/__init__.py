"""Replicas of a stage: discovery, health, load balancing and hedged calls."""

from services.orchestrator.replicas.hedging import Budget, Hedging
from services.orchestrator.replicas.replica import Replica
from services.orchestrator.replicas.replica_set import ReplicaSet

__all__ = ["Budget", "Hedging", "Replica", "ReplicaSet"]
