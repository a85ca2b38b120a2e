"""The three families of models of text, by what they read and write."""

from __future__ import annotations

from enum import Enum


class Family(Enum):
    """A decoder goes on with a text; an encoder reads one and ends in a head; an encoder-decoder answers one."""

    decoder = "a language model"
    encoder = "an encoder with a task head"
    encoder_decoder = "an encoder-decoder"
