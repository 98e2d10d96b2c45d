"""The `muse` command and what stands behind it: benchmarks, plans, descriptions, local servers."""
