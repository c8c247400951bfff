"""The architectures of the zoo: a model type, the head on it, what of its tiny configuration is to be changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo import media, texts


@dataclass(frozen=True)
class Architecture:
    """A model type with a head: the last part of the name of transformers' auto class (``CausalLM``), or a class.

    ``sizes`` changes the tiny configuration. ``inputs`` names the kind of inputs, see :mod:`zoo.inputs`.
    """

    name: str
    model_type: str
    head: str
    inputs: str = "text"
    sizes: Mapping[str, Any] = field(default_factory=dict)


def _rows(head: str, inputs: str, suffix: str, table: Mapping[str, Mapping[str, Any]]) -> Iterator[Architecture]:
    for name, sizes in table.items():
        changed = dict(sizes)
        model_type = changed.pop("model_type", name)
        yield Architecture(f"{name}{suffix}", model_type, head, changed.pop("inputs", inputs), changed)


def all_architectures() -> tuple[Architecture, ...]:
    """Return every architecture, those too that transformers cannot build here: the report says why."""
    classifiers = {name: texts.ENCODERS[name] for name in texts.CLASSIFIERS}
    decoders = {name: texts.DECODERS[name] for name in texts.DECODING_CLASSIFIERS}
    return (
        *_rows("CausalLM", "text", "", texts.DECODERS | texts.STATE_SPACES | texts.MIXTURES),
        *_rows("MaskedLM", "text", "-mlm", texts.ENCODERS),
        *_rows("SequenceClassification", "text", "-cls", classifiers | decoders),
        *_rows("Seq2SeqLM", "text-to-text", "", texts.ENCODER_DECODERS),
        *_rows("ImageClassification", "picture", "", media.PICTURES),
        *_rows("DeiTForImageClassification", "picture", "", {"deit": {}}),
        *_rows("CTC", "wave", "", media.SOUND),
        *_rows("AudioClassification", "spectrogram", "", {"audio-spectrogram-transformer": media.SPECTROGRAM}),
        *_rows("AudioClassification", "wave", "-cls", {"wav2vec2": {}}),
        *_rows("SpeechSeq2Seq", "spectrogram-to-text", "", {"whisper": {}}),
        *_rows("ImageTextToText", "text", "", media.VISION_LANGUAGE),
        *_rows("", "text", "-headless", {"bert": {}, "llama": {}}),
        *_rows("", "picture-and-text", "-pair", {"clip": {}, "siglip": {}}),
    )
