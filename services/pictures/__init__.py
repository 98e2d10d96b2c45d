"""Pictures as arrays, for serving and for training alike. Neither JAX nor gRPC."""
