"""`muse bench`: open-loop load on running servers, and its measurements."""
