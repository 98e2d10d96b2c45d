"""What every server shares. Knows no stage."""
