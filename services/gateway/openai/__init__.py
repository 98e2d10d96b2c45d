"""OpenAI's images API: requests, answers, streams and routes.

Source: OpenAI API reference, "Images" and "Images Streaming"; what its Python client 3.57 sends.
"""
