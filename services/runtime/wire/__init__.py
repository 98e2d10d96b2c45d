"""Protocol messages to and from Python values, with every field checked on arrival."""
