"""Which requests the device computes, and when: batches, slots and the waiting queue."""
