"""What libtpu's compiler says of every program of the serving stages, without a TPU."""
