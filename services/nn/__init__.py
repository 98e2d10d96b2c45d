"""Layers shared by the stages. No gRPC."""
