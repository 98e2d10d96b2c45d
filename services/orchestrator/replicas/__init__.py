"""The replicas of a stage: who they are, which of them serves, and which one a call goes to."""

from services.orchestrator.replicas.hedging import Budget, Hedging
from services.orchestrator.replicas.replica import Replica
from services.orchestrator.replicas.replica_set import ReplicaSet

__all__ = ["Budget", "Hedging", "Replica", "ReplicaSet"]
