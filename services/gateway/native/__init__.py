"""Muse's own REST: what OpenAI's API lacks, with the names of the gRPC API."""
