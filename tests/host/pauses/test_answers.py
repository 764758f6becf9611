"""What may be answered, and that nothing else is decoded or applied."""

from __future__ import annotations

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from explainable_latents.nodes.host.pauses.answers import (
    SIGNATURE,
    read_flag,
    read_masks,
    read_png,
    read_stop,
    read_values,
    write_png,
)
from explainable_latents.nodes.host.pauses.pause import Refused
from explainable_latents.nodes.host.pauses.records import (
    Record,
    check_steps_of,
    read_records,
    recorded,
    recorded_masks,
)

LEVELS = np.arange(6 * 9, dtype=np.uint8).reshape(6, 9) * 4
OFFERED = [
    {"name": "cfg", "value": 8.0, "low": 0.0, "high": 100.0, "step": 0.1},
    {"name": "blend", "value": 0.0, "low": 0.0, "high": 1.0, "step": 0.05},
]


def png(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=options.pop("format", "PNG"), **options)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def header(width: int, height: int, bits: int = 8, colour: int = 0) -> bytes:
    return SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))


GREY = Image.fromarray(LEVELS)
RAW = b"".join(b"\0" + row.tobytes() for row in LEVELS)
END_CHUNK = chunk(b"IEND", b"")
TEXT_BOMB = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000), 9))
BOMB = chunk(b"IDAT", zlib.compress(bytes(50_000_000), 9))

BAD = {
    "nothing": b"",
    "no PNG": b"GIF89a" + bytes(60),
    "a JPEG": png(GREY, format="JPEG"),
    "another size": png(Image.fromarray(LEVELS.T)),
    "one row more": png(Image.fromarray(np.vstack([LEVELS, LEVELS[:1]]))),
    "colours": png(GREY.convert("RGB")),
    "grey with transparency": png(GREY.convert("LA")),
    "a palette": png(GREY.convert("P")),
    "one bit": png(GREY.convert("1")),
    "16 bits": png(Image.fromarray(LEVELS.astype(np.uint16) * 257)),
    "a header only": header(9, 6),
    "cut short": png(GREY)[:60],
    "cut in the pixels": header(9, 6) + chunk(b"IDAT", zlib.compress(RAW)[:20]) + END_CHUNK,
    "too few pixels": header(9, 6) + chunk(b"IDAT", zlib.compress(RAW[:20])) + END_CHUNK,
    "a broken checksum": header(9, 6)[:-1] + b"!" + chunk(b"IDAT", zlib.compress(RAW)) + END_CHUNK,
    "pixels of two pictures": header(9, 6) + chunk(b"IDAT", zlib.compress(RAW + RAW)) + END_CHUNK,
    "interlaced": SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 6, 8, 0, 0, 0, 1)) + BOMB + END_CHUNK,
    "a bomb behind a small header": header(9, 6) + BOMB + END_CHUNK,
    "a bomb by its size": header(1 << 30, 1 << 30) + BOMB + END_CHUNK,
    "a bomb of text": header(9, 6) + TEXT_BOMB + chunk(b"IDAT", zlib.compress(RAW)) + END_CHUNK,
    "a header in the wrong place": SIGNATURE + chunk(b"tEXt", b"a\0" + bytes(11)) + header(9, 6)[8:],
}


def test_a_grey_png_of_the_size_is_read_as_it_is():
    assert np.array_equal(read_png(png(GREY), (9, 6)), LEVELS)
    assert np.array_equal(read_png(write_png(LEVELS), (9, 6)), LEVELS)
    packed = zlib.compress(RAW)
    for parts in ((packed,), (packed[:9], packed[9:])):
        pieces = b"".join(chunk(b"IDAT", part) for part in parts)
        assert np.array_equal(read_png(header(9, 6) + pieces + END_CHUNK, (9, 6)), LEVELS)


@pytest.mark.parametrize("name", BAD)
def test_other_files_are_refused(name):
    with pytest.raises(Refused, check=lambda error: error.status == 422):
        read_png(BAD[name], (9, 6))


def test_there_is_a_mask_for_each_picture_or_none():
    content = {"found": ["a", "b"], "size": [9, 6]}
    first, second = read_masks([png(GREY), png(Image.new("L", (9, 6), 255))], content)
    assert np.array_equal(first, LEVELS)
    assert second.min() == 255
    assert read_masks([], content) == ()
    with pytest.raises(Refused, match="1 masks were sent, for 2 pictures"):
        read_masks([png(GREY)], content)


def test_values_are_those_that_are_offered():
    assert read_values('{"cfg": 7, "blend": 0.25}', {"values": OFFERED}) == {"cfg": 7.0, "blend": 0.25}
    assert read_values("{}", {"values": OFFERED}) == read_values("{}", {"values": []}) == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[" * 100_000,
        "[7]",
        '{"cfg": NaN}',
        '{"cfg": Infinity}',
        '{"cfg": 1e999}',
        '{"cfg": -0.1}',
        '{"cfg": 100.1}',
        '{"cfg": "7"}',
        '{"cfg": true}',
        '{"cfg": null}',
        '{"blend": 1.01}',
        '{"../../etc/passwd": 1}',
    ],
)
def test_other_values_are_refused(text):
    with pytest.raises(Refused, check=lambda error: error.status == 422):
        read_values(text, {"values": OFFERED})


def test_a_record_is_read_as_it_was_written():
    line = recorded([[Record(3, "end here"), Record(5, masks=(None, LEVELS)), Record(7, values={"cfg": 2.5})]])
    report = "\n".join(["step 3: sigma 1.0, 20.0% inside", *line])
    (found,) = read_records(report)
    assert found.keys() == {3, 5, 7}
    assert found[3] == {"step": 3, "action": "end here"}
    assert found[7] == {"step": 7, "values": {"cfg": 2.5}}
    nothing, painted = recorded_masks(found[5], 2, (9, 6))
    assert nothing is None
    assert np.array_equal(painted, LEVELS)
    assert recorded_masks(found[7], 2, (9, 6)) == ()
    assert read_records(line[0].removeprefix("answers: ")) == [found]
    assert recorded([[]]) == recorded([[], []]) == []
    assert read_records(" \n") == []
    assert read_records("[]") == [{}]


def test_the_records_of_several_variants_are_read_as_they_were_written():
    first, second = Record(3, values={"cfg": 2.5}), Record(5, masks=(LEVELS,))
    (line,) = recorded([[first], [], [first, second]])
    found = read_records(line)
    assert [set(records) for records in found] == [{3}, set(), {3, 5}]
    assert found[0][3] == found[2][3] == first.as_object()
    with pytest.raises(ValueError, match="17 variants, but a run has at most 16"):
        read_records(json.dumps([[]] * 17))


def test_a_stop_to_go_back_to_is_one_of_those_that_are_offered():
    content = {"stops": [{}, {}]}
    assert [read_stop(text, content) for text in ("0", "1")] == [0, 1]
    for text in ("2", "-1", "1.0", "", "\u0661", "9" * 100):
        with pytest.raises(Refused, match="one of the 2 stops", check=lambda error: error.status == 422):
            read_stop(text, content)
    assert [read_flag(text) for text in ("true", "false", None)] == [True, False, None]
    with pytest.raises(Refused, match="true or false"):
        read_flag("1")


@pytest.mark.parametrize(
    "text",
    [
        "step 3: the user let the run go on",
        "{}",
        "[3]",
        '[{"step": "3"}]',
        '[{"step": 3, "action": "cancel"}]',
        '[{"step": 3, "values": {"cfg": "7"}}]',
        '[{"step": 3, "masks": "AAAA"}]',
        '[[{"step": 3}], {"step": 3}]',
        '[[{"step": "3"}]]',
        "[[[]]]",
    ],
)
def test_other_texts_are_no_records(text):
    with pytest.raises(ValueError, match="is not what a report has behind"):
        read_records(text)


def test_a_record_of_another_run_is_refused():
    (line,) = recorded([[Record(5, masks=(LEVELS,))]])
    record = read_records(line)[0][5]
    with pytest.raises(ValueError, match="1 masks at step 5, for 2 pictures"):
        recorded_masks(record, 2, (9, 6))
    with pytest.raises(ValueError, match="9x6 pixels instead of 8x8"):
        recorded_masks(record, 1, (8, 8))
    with pytest.raises(ValueError, match="step 5"):
        recorded_masks({"step": 5, "masks": ["no base64!"]}, 1, (9, 6))
    check_steps_of({5: record}, (3, 5))
    with pytest.raises(ValueError, match=r"step 5 is no step at which this run stops \(3\)"):
        check_steps_of({5: record}, (3,))
