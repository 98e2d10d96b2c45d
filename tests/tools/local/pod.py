"""A server of health that does what its words say, for the tests of the runner.

deaf          ignores SIGTERM
say=NUMBER    begins with a line of so many characters
die=TEXT      says TEXT and ends with status 3 before it serves
sick=FILE     liveness fails while FILE is there
away=FILE     readiness fails while FILE is there
"""

import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

words = dict(word.partition("=")[::2] for word in sys.argv[1:])
if "say" in words:
    print("x" * int(words["say"]), flush=True)
if "die" in words:
    print(words["die"])
    sys.exit(3)
over = threading.Event()
signal.signal(
    signal.SIGTERM,
    lambda *_: print("deaf" if "deaf" in words else over.set() or "stopping", flush=True),
)
servicer, server = health.HealthServicer(), grpc.server(ThreadPoolExecutor(4))
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
address, files = f"{os.environ['MUSE_HOST']}:{os.environ['MUSE_PORT']}", os.environ
if "MUSE_TLS_CERT" in files:
    cert, key, ca = (Path(files[f"MUSE_TLS_{each}"]).read_bytes() for each in ("CERT", "KEY", "CA"))
    server.add_secure_port(address, grpc.ssl_server_credentials([(key, cert)], ca, True))
else:
    server.add_insecure_port(address)
server.start()
print(f"serving {time.monotonic()}", flush=True)
STATES = health_pb2.HealthCheckResponse
while not over.wait(0.02):
    for name, word in (("liveness", "sick"), ("readiness", "away")):
        wrong = word in words and Path(words[word]).exists()
        servicer.set(name, STATES.NOT_SERVING if wrong else STATES.SERVING)
server.stop(0)
