"""What a preset is and what it must cost: counts, arithmetic, traffic and floors."""
