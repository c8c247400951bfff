"""Identify a base on the Hugging Face Hub without downloading its weights: by headers and the sha256 of each file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from loreg.adapters.card import card_license
from loreg.adapters.header import Header, Tensor
from loreg.adapters.hub_errors import HUB_PREFIX, translate_hub_errors
from loreg.bases.identify import Identity, identify_headers
from loreg.bases.model import Model


def identify_on_hub(text: str, base_names: tuple[str, ...]) -> Identity:
    """Return the base that ``hf:NAME[@REV]`` means, by headers and the digests that the Hub keeps of large files.

    Raises MissingExtraError without huggingface_hub, NotFoundError, NotAllowedError for a gated model,
    AdapterFormatError if it has no safetensors, UnavailableError where the Hub does not answer.
    """
    repo, _, revision = text.removeprefix(HUB_PREFIX).partition("@")
    with translate_hub_errors(text, hint="loreg base add ./the/downloaded/folder works offline") as hub:
        api = hub.HfApi()
        info = api.model_info(repo, revision=revision or None, files_metadata=True)
        metadata = api.get_safetensors_metadata(repo, revision=info.sha)
        has_config = any(file.rfilename == "config.json" for file in info.siblings or ())
        config = Path(api.hf_hub_download(repo, "config.json", revision=info.sha)) if has_config else None
    digests = {file.rfilename: file.lfs.sha256 for file in info.siblings or () if file.lfs}
    shards = {Path(name): _header(file) for name, file in sorted(metadata.files_metadata.items())}
    document = json.loads(config.read_bytes()) if config else {}
    license_ = card_license(f"---\n{info.card_data}\n---") if info.card_data else ""
    model = Model(Path(repo), shards, document if isinstance(document, dict) else {}, license_)
    shard_digests = {name: digests[name] for name in map(str, shards) if name in digests}
    return identify_headers(model, (text.removeprefix(HUB_PREFIX), *base_names), shard_digests)


def _header(file: Any) -> Header:
    tensors = {
        name: Tensor(name, tensor.dtype, tuple(tensor.shape), *tensor.data_offsets)
        for name, tensor in file.tensors.items()
    }
    return Header(tensors, {})
