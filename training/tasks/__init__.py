"""What each stage learns: one task a file, one loop for all."""
