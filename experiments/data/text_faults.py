"""Marks of a text that went through a wrong encoding."""

from __future__ import annotations

import re
from collections.abc import Iterable
from unicodedata import is_normalized

from ftfy.badness import is_bad

CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
SURROGATE = re.compile("[\ud800-\udfff]")


def faults(texts: Iterable[str]) -> dict[str, str]:
    """kind of fault → what it is, once each for all the texts of an example."""
    found: dict[str, str] = {}
    for text in texts:
        if match := CONTROL.search(text):
            found.setdefault("control_character", f"U+{ord(match[0]):04X} at character {match.start()}")
        if "\r" in text:
            found.setdefault("carriage_return", f"U+000D at character {text.index(chr(13))}")
        if text.isascii():
            continue
        if match := SURROGATE.search(text):
            found.setdefault("lone_surrogate", f"U+{ord(match[0]):04X} at character {match.start()}")
        if "\ufffd" in text:
            found.setdefault("replacement_character", f"U+FFFD at character {text.index(chr(0xFFFD))}")
        if is_bad(text):
            found.setdefault("mojibake", "looks like UTF-8 read in another encoding")
        if not is_normalized("NFC", text):
            found.setdefault("normal_form", "not in the normal form NFC")
    return found
