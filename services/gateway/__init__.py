"""HTTP for programs and people: OpenAI's images API and Muse's own, over the public gRPC API.

A process that knows `muse_client` alone: it holds no state, computes nothing and scales by itself.
"""
