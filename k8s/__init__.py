"""Manifests of Kubernetes, what checks them and what deploys them."""
