"""What the frozen stages make of a data set: computed once, in shards, beside each other."""
