"""The Python SDK: `MuseClient().generate("an owl")`. It imports neither JAX nor the servers."""

from muse.common.v1.caller_pb2 import PRIORITY_BATCH as PRIORITY_BATCH
from muse.common.v1.caller_pb2 import PRIORITY_INTERACTIVE as PRIORITY_INTERACTIVE
from muse.common.v1.caller_pb2 import Caller as Caller
from muse.common.v1.decoding_pb2 import Sampling as Sampling

from muse_client.asynchronous import AsyncMuseClient as AsyncMuseClient
from muse_client.blocking import MuseClient as MuseClient
from muse_client.calls import DEFAULT_ADDRESS as DEFAULT_ADDRESS
from muse_client.calls import GenerateOptions as GenerateOptions
from muse_client.calls import sampling as sampling
from muse_client.edits import ImageFile as ImageFile
from muse_client.edits import inpainting as inpainting
from muse_client.edits import mask_free_editing as mask_free_editing
from muse_client.edits import outpainting as outpainting
from muse_client.edits import variation as variation
from muse_client.errors import CheckpointConflict as CheckpointConflict
from muse_client.errors import DeadlineExceeded as DeadlineExceeded
from muse_client.errors import FieldViolation as FieldViolation
from muse_client.errors import InvalidRequest as InvalidRequest
from muse_client.errors import MuseError as MuseError
from muse_client.errors import NotFound as NotFound
from muse_client.errors import NotServed as NotServed
from muse_client.errors import Overloaded as Overloaded
from muse_client.errors import Unavailable as Unavailable
from muse_client.events import Accepted as Accepted
from muse_client.events import Done as Done
from muse_client.events import Event as Event
from muse_client.events import GeneratedImage as GeneratedImage
from muse_client.events import MuseWarning as MuseWarning
from muse_client.events import Preview as Preview
from muse_client.events import Progress as Progress
from muse_client.events import RequestWarning as RequestWarning
from muse_client.tls import Tls as Tls
from muse_client.version import __version__ as __version__
