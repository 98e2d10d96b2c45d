"""`muse bench`: open-loop load on a running system, and what came of it."""
