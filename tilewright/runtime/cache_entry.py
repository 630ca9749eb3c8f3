"""The file format of one cache entry.

    magic             16 bytes
    header length      8 bytes, little endian
    header            JSON: {"key": …, "material": {…}, "sections": [[name, length], …]}
    sections          their bytes, one after the other
    SHA-256           32 bytes, of all that precedes

There is nothing in it that could run code when read. The checksum covers every byte, the lengths must add
up to the file's size, and the header repeats what the entry was built from: a flipped byte, a cut or a
renamed file is noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

MAGIC = b"tilewright/cache"
LENGTH_BYTES = 8
CHECKSUM_BYTES = 32
HEADER_START = len(MAGIC) + LENGTH_BYTES


class DamagedEntry(Exception):
    """The bytes are not the entry that was asked for; says in what way."""


@dataclass(frozen=True)
class Entry:
    """Named byte sections and what they were built from."""

    key: str
    material: Mapping[str, str]
    sections: Mapping[str, bytes]


def canonical(value: object) -> bytes:
    """One spelling of a JSON value, whatever the order its keys were written in."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def encode(entry: Entry) -> bytes:
    """The file's bytes for an entry."""
    lengths = [[name, len(content)] for name, content in entry.sections.items()]
    header = canonical({"key": entry.key, "material": dict(entry.material), "sections": lengths})
    length = len(header).to_bytes(LENGTH_BYTES, "little")
    body = b"".join([MAGIC, length, header, *entry.sections.values()])
    return body + hashlib.sha256(body).digest()


def decode(data: bytes) -> Entry:
    """The entry in a file's bytes; raises `DamagedEntry`."""
    if len(data) < HEADER_START + CHECKSUM_BYTES:
        raise DamagedEntry(f"it is cut short ({len(data)} bytes)")
    if not data.startswith(MAGIC):
        raise DamagedEntry("it is not a cache entry")
    body_end = len(data) - CHECKSUM_BYTES
    if hashlib.sha256(memoryview(data)[:body_end]).digest() != data[body_end:]:
        raise DamagedEntry("its checksum does not fit")
    header_end = HEADER_START + int.from_bytes(data[len(MAGIC) : HEADER_START], "little")
    try:
        header = json.loads(data[HEADER_START:header_end])
        sections = _cut(data[:body_end], header_end, header["sections"])
        return Entry(header["key"], header["material"], sections)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedEntry(f"its header makes no sense ({error})") from None


def _cut(body: bytes, start: int, lengths: list[tuple[str, int]]) -> dict[str, bytes]:
    """The named sections, which must fill the rest of the body exactly."""
    sections = {}
    for name, length in lengths:
        sections[name] = body[start : start + length]
        start += length
    if start != len(body):
        raise DamagedEntry("its lengths do not add up")
    return sections
