"""HTTP for programs and people: the OpenAI images API over the public gRPC API.

A process that knows `muse_client` alone: it holds no state, computes nothing and scales by itself.
"""
