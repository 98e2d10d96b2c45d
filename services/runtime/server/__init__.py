"""The process around a servicer: settings, channels, interceptors, start and stop."""

import os

# gRPC's core logs bytes of its callers as they come, up to 16 KiB at a time. It reads this variable
# when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
