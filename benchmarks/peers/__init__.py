"""What others built, configured to do what ours does."""
