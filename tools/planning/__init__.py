"""`muse plan`: how many replicas each stage needs for a load, checked in a simulation."""
