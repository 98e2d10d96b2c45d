"""`muse deploy`: an overlay rendered, applied, watched and scaled. Imports no JAX.

overlays    which overlay: its objects and its namespace
cluster     the API server, behind a few calls; what it refuses becomes a sentence
applying    server-side apply: all objects tried first, then changed
rollouts    how far each Deployment is, and the wait for all of them
failures    which pod is not ready, and why
status      tables of what is there
logs        lines of all pods in the order of their time
scaling     another number of replicas, where nobody else sets it
"""
