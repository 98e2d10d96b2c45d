"""What a compiler says of a training step on devices that are not here."""
