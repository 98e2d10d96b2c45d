"""ArrayRecord files whose records are tf.train.Example, as TensorFlow Datasets write them."""

import logging
from functools import cache as once
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError
from grain.sources import ArrayRecordDataSource

from training.data.captioned.cache import DataCache
from training.data.captioned.errors import DataError, UnusableExample
from training.data.captioned.index import caption_text
from training.data.captioned.locations import Location

# As in tensorflow/core/example/example.proto and feature.proto; features of numbers are left out,
# which a parser skips.
_EXAMPLE = """
name: "example.proto"
package: "tensorflow"
syntax: "proto3"
message_type {
  name: "BytesList"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES }
}
message_type {
  name: "Feature"
  field { name: "bytes_list" number: 1 type: TYPE_MESSAGE type_name: ".tensorflow.BytesList" }
}
message_type {
  name: "Features"
  field {
    name: "feature" number: 1 label: LABEL_REPEATED
    type: TYPE_MESSAGE type_name: ".tensorflow.Features.FeatureEntry"
  }
  nested_type {
    name: "FeatureEntry"
    options { map_entry: true }
    field { name: "key" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
    field {
      name: "value" number: 2 label: LABEL_OPTIONAL
      type: TYPE_MESSAGE type_name: ".tensorflow.Feature"
    }
  }
}
message_type {
  name: "Example"
  field { name: "features" number: 1 type: TYPE_MESSAGE type_name: ".tensorflow.Features" }
}
"""
logger = logging.getLogger(__name__)


class ArrayRecordPart:
    """The examples of one ArrayRecord file."""

    def __init__(self, source: str, file: str, *, picture_field: str, caption_field: str) -> None:
        """Opens a local file.

        Args:
            source: Name of the file that the examples came from.
            file: Its path.
            picture_field: Feature of encoded pictures.
            caption_field: Feature of captions.

        Raises:
            DataError: it is no ArrayRecord file.
        """
        self.source, self._size = source, Path(file).stat().st_size
        self._picture_field, self._caption_field = picture_field, caption_field
        try:
            self._records: Any = ArrayRecordDataSource([file])
            self._length = len(self._records)
        except (RuntimeError, ValueError, OSError) as error:
            raise DataError(f"{file} is cut or no ArrayRecord file: {error}") from error

    def __len__(self) -> int:
        """Returns the number of examples."""
        return self._length

    def key(self, index: int) -> str:
        """Returns the number of a record."""
        return str(index)

    def digest(self) -> str:
        """Returns a name of the file's contents: the number of records and bytes."""
        return f"{self._length}-{self._size}"

    def picture(self, index: int) -> bytes:
        """Reads the file of a picture.

        Raises:
            UnusableExample: the record has none, or cannot be read.
        """
        return self._feature(index, self._picture_field)

    def caption(self, index: int) -> str:
        """Reads a caption.

        Raises:
            UnusableExample: the record has none, or it cannot be read.
        """
        return caption_text(self._feature(index, self._caption_field), field=None)

    def _feature(self, index: int, name: str) -> bytes:
        example = example_type()()
        try:
            example.ParseFromString(self._records[index])
        except (DecodeError, RuntimeError, ValueError) as error:
            raise UnusableExample(f"the record is no tf.train.Example: {error}") from error
        features = example.features.feature
        if name not in features or not features[name].bytes_list.value:
            names = ", ".join(sorted(features)) or "none"
            raise UnusableExample(f"expected bytes in the feature {name!r}, got features: {names}")
        return bytes(features[name].bytes_list.value[0])


def open_array_record(
    file: Location, cache: DataCache, *, picture_field: str, caption_field: str
) -> ArrayRecordPart:
    """Opens an ArrayRecord file; one in a bucket is copied to the cache first.

    Raises:
        DataError: it is no ArrayRecord file.
    """
    path = file.path
    if "file" not in _protocols(file):
        path = str(cache.made(file, "", lambda to: file.filesystem.get_file(file.path, str(to))))
        logger.warning("%s is read from a copy in %s", file.url, cache.folder)
    return ArrayRecordPart(
        file.name, path, picture_field=picture_field, caption_field=caption_field
    )


def _protocols(file: Location) -> tuple[str, ...]:
    protocol = file.filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


@once
def example_type() -> Any:
    """Returns the message type tf.train.Example, without TensorFlow."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(_EXAMPLE, descriptor_pb2.FileDescriptorProto()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))
