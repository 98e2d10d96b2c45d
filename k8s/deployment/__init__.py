"""What `muse deploy` and `python -m training launch` add to kubectl. Imports no JAX.

overlays        overlays by name: their objects and their namespace
cluster         a read-only client of the API server
nodes           chips of the pods against the nodes of a live cluster
failures        the state of a Deployment's roll-out, and why a pod is not ready
training_runs   an overlay of k8s/training for one run, rendered and applied
"""
