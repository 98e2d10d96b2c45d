"""What callers write is well-formed wherever it is written again, whatever it is."""

import io
import json
import logging
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from muse.common.v1.decoding_pb2 import Adapter
from muse.orchestrator.v1.orchestrator_pb2 import GeneratedImage as ImageMessage
from muse.orchestrator.v1.orchestrator_pb2 import (
    GenerateRequest,
    GenerateResponse,
    Provenance,
)
from muse_client import AsyncMuseClient, GeneratedImage, InvalidRequest, MuseClient, NotFound
from muse_client.events import read_event
from opentelemetry import baggage
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.propagate import extract, inject
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from PIL import Image

from services.orchestrator.metadata import picture_fields, png_metadata
from services.orchestrator.picture_files import png_file
from services.orchestrator.request_log import log_request
from services.orchestrator.requests import MAX_PROMPT_LENGTH
from services.pictures.xmp import XMP_CHUNK
from services.runtime.observability import span_attributes, tracing
from services.runtime.observability.logs import JsonFormatter
from services.runtime.observability.span_export import CallerProcessor
from services.runtime.wire.caller import MAX_ID_LENGTH
from tests.small_stages import House
from tools.cli.image_files import save_picture
from tools.cli.waterfall_page import write_page

PIXELS = np.zeros((8, 8, 3), np.uint8)
MUSE = "{urn:muse:picture:1}"
LIST = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li"
# All that a protobuf message may hold; half characters are not among it.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
NASTY = "a\x00\x01\x1b[2J\u202efox\n\r\t</script>]]>--><!&\"'\ufffe\uffff\U0001f98a"
LONGEST = "&\"'" * (MAX_PROMPT_LENGTH // 3)


def replaced(text: str) -> str:
    """Returns a text as XML can hold it."""

    def held(each: str) -> bool:
        return each in "\t\n\r" or " " <= each <= "\ud7ff" or "\ue000" <= each <= "\ufffd"

    return "".join(each if held(each) or each > "\uffff" else "\ufffd" for each in text)


def painted(prompt: str, negative: str) -> bytes:
    """Returns the PNG of a request."""
    request = GenerateRequest(prompt=prompt, negative_prompt=negative)
    provenance = Provenance(preset="tiny", adapters=[Adapter(name="fox", weight=1)])
    return png_file(PIXELS, pnginfo=png_metadata(picture_fields(request, 7, provenance)))


def received(png: bytes) -> GeneratedImage:
    """Returns an image as the SDK does."""
    image = read_event(GenerateResponse(image=ImageMessage(png=png)))
    assert isinstance(image, GeneratedImage)
    return image


def check_xmp(packet: bytes | str, prompt: str, negative: str) -> None:
    root = ElementTree.fromstring(packet)
    assert (next(root.iter(LIST)).text or "") == replaced(prompt)
    (description,) = (each for each in root.iter() if f"{MUSE}seed" in each.attrib)
    assert description.attrib.get(f"{MUSE}prompt", "") == replaced(prompt)
    assert description.attrib.get(f"{MUSE}negative_prompt", "") == replaced(negative)


@settings(deadline=None, max_examples=60)
@given(TEXT, TEXT)
@example(NASTY, NASTY)
@example(LONGEST, LONGEST)
def test_png_jpeg_and_webp_carry_prompts_that_can_be_read_again(
    tmp_path_factory: pytest.TempPathFactory, prompt: str, negative: str
) -> None:
    png = painted(prompt, negative)
    with Image.open(io.BytesIO(png)) as image:
        image.load()
        assert image.info.get("prompt", "") == replaced(prompt)
        check_xmp(image.info[XMP_CHUNK], prompt, negative)
    picture = received(png)
    folder = tmp_path_factory.mktemp("pictures")
    for suffix in (".png", ".jpg", ".webp"):
        file = folder / f"fox{suffix}"
        save_picture(picture, file)
        with Image.open(file) as image:
            image.load()
            check_xmp(image.info["xmp"], prompt, negative)


@settings(deadline=None, max_examples=60)
@given(TEXT, st.floats())
@example(NASTY, float("nan"))
def test_a_line_of_log_is_one_line_of_json(caller: str, number: float) -> None:
    caller = caller[:MAX_ID_LENGTH]
    written = io.StringIO()
    handler, logger = logging.StreamHandler(written), logging.getLogger("services")
    handler.setFormatter(JsonFormatter("muse.test"))
    before = logger.level
    logger.setLevel(logging.INFO)  # which also forgets what loggers below remember of levels
    logger.addHandler(handler)
    try:
        with log_request(caller, 0.0):
            logging.getLogger("services.test").info(caller, extra={"number": number})
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    lines = written.getvalue().removesuffix("\n").split("\n")
    message, end = (json.loads(each, parse_constant=pytest.fail) for each in lines)
    assert message["message"] == end["caller"] == caller


@settings(deadline=None, max_examples=60)
@given(TEXT)
@example(NASTY)
def test_spans_and_the_calls_below_name_the_caller_as_it_is(caller: str) -> None:
    caller = caller[:MAX_ID_LENGTH]
    kept, provider, before = InMemorySpanExporter(), TracerProvider(), tracing.tracer
    provider.add_span_processor(CallerProcessor())
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracing.tracer = provider.get_tracer("test")
    metadata: dict[str, str] = {}
    try:
        with tracing.span("request"), tracing.caller_baggage(caller), tracing.span("below"):
            inject(metadata)
    finally:
        tracing.tracer = before
    assert all(each.isascii() and each.isprintable() for each in metadata.values())
    # OpenTelemetry cuts white space at both ends.
    below = baggage.get_baggage(span_attributes.CALLER, extract(metadata)) or ""
    assert below == caller.strip()
    sent = ExportTraceServiceRequest.FromString(
        encode_spans(kept.get_finished_spans()).SerializeToString()
    )
    for span in sent.resource_spans[0].scope_spans[0].spans:
        values = {each.key: each.value.string_value for each in span.attributes}
        assert values.get(span_attributes.CALLER, "") == caller


async def test_a_refusal_repeats_what_came_in_one_line(house: House) -> None:
    async with AsyncMuseClient(house.address) as client:
        with pytest.raises(NotFound) as refused:
            await client.generate("a fox", adapters={NASTY: 1.0})
    assert refused.value.message.isprintable()
    assert "fox\\n" in refused.value.message


class Page(HTMLParser):
    """Collects tags and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@settings(deadline=None, max_examples=60)
@given(TEXT)
@example(NASTY)
def test_a_page_shows_a_prompt_and_obeys_nothing_in_it(
    tmp_path_factory: pytest.TempPathFactory, prompt: str
) -> None:
    file = tmp_path_factory.mktemp("pages") / "trace.html"
    pages = []
    for each in (prompt, "fox"):
        write_page(file, [], 1.0, each)
        page = Page()
        page.feed(file.read_bytes().decode())
        pages.append(page)
    assert pages[0].tags == pages[1].tags
    assert "bdi" in pages[0].tags  # what turns the direction of text ends with the prompt
    newline = {"\r\n": "\n", "\r": "\n"}
    assert f"“{replaced(prompt)}”" in pages[0].text or any(each in prompt for each in newline)
    assert "\x00" not in pages[0].text


@pytest.mark.parametrize("half", ["\ud83e", "a\udcff", "\udc80fox"])
def test_half_a_character_is_refused_before_it_is_sent(half: str) -> None:
    with MuseClient("127.0.0.1:1") as client:  # where no server answers
        with pytest.raises(InvalidRequest, match=r"^prompt: expected a text of whole characters"):
            client.generate(half)
        with pytest.raises(InvalidRequest, match=r"^negative_prompt: expected a text of whole"):
            client.generate("a fox", negative_prompt=half)
        with pytest.raises(InvalidRequest, match=r"^adapters: expected a name"):
            client.generate("a fox", adapters={half: 1.0})


def test_a_file_whose_name_is_no_text_is_written(tmp_path: Path) -> None:
    file = tmp_path / "f\udcffx[red].png"
    save_picture(received(painted("a fox", "")), file)
    assert file.is_file()
    assert [each.name for each in tmp_path.iterdir()] == [file.name]
