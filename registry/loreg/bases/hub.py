"""A base on the Hugging Face Hub, known without downloading its weights: headers, and the sha256 of each file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from loreg.adapters.header import Header, Tensor
from loreg.bases.identify import Identity, identify_headers
from loreg.bases.model import Model
from loreg.errors import (
    AdapterFormatError,
    LoregError,
    MissingExtraError,
    NotAllowedError,
    NotFoundError,
    UnavailableError,
)

PREFIX = "hf:"


def identify_on_hub(text: str, names: tuple[str, ...]) -> Identity:
    """The base that ``hf:NAME[@REV]`` means, by headers and the digests that the Hub keeps of large files.

    Raises MissingExtraError without huggingface_hub, NotFoundError, NotAllowedError for a gated model,
    AdapterFormatError if it has no safetensors, UnavailableError where the Hub does not answer.
    """
    try:
        import huggingface_hub as hub
        from huggingface_hub import errors
    except ImportError:
        raise MissingExtraError(
            f"{text} is on the Hub, and huggingface_hub is not installed", hint="pip install 'loreg[hub]'"
        ) from None
    repo, _, revision = text.removeprefix(PREFIX).partition("@")
    try:
        api = hub.HfApi()
        info = api.model_info(repo, revision=revision or None, files_metadata=True)
        found = api.get_safetensors_metadata(repo, revision=info.sha)
        has_config = any(file.rfilename == "config.json" for file in info.siblings or ())
        config = Path(api.hf_hub_download(repo, "config.json", revision=info.sha)) if has_config else None
    except Exception as error:
        # Releases of huggingface_hub speak HTTP through requests, httpx and others: their errors share only names.
        known = {"OSError", "HTTPError", "HFValidationError", "NotASafetensorsRepoError"}
        if known.isdisjoint(kind.__name__ for kind in type(error).__mro__):
            raise
        raise _explained(text, repo, error, errors) from None
    digests = {file.rfilename: file.lfs.sha256 for file in info.siblings or () if file.lfs}
    shards = {Path(name): _header(file) for name, file in sorted(found.files_metadata.items())}
    document = json.loads(config.read_bytes()) if config else {}
    model = Model(Path(repo), shards, document if isinstance(document, dict) else {})
    files = {name: digests[name] for name in map(str, shards) if name in digests}
    return identify_headers(model, (text.removeprefix(PREFIX), *names), files)


def _header(file: Any) -> Header:
    tensors = {
        name: Tensor(name, tensor.dtype, tuple(tensor.shape), *tensor.data_offsets)
        for name, tensor in file.tensors.items()
    }
    return Header(tensors, {})


def _explained(text: str, repo: str, error: Exception, errors: Any) -> LoregError:
    if isinstance(error, errors.GatedRepoError):
        return NotAllowedError(f"{text} is gated, and your account may not read it", hint="hf auth login")
    if isinstance(error, errors.RevisionNotFoundError):
        return NotFoundError(f"{text}: {repo} has no such revision", hint=f"loreg base add hf:{repo}")
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return NotFoundError(
            f"{text}: there is no such model on the Hub, or your account may not see it", hint="hf auth login"
        )
    if isinstance(error, errors.NotASafetensorsRepoError):
        return AdapterFormatError(
            f"{text} has no safetensors, the only format that loreg reads",
            hint="save it with model.save_pretrained(DIR), then loreg base add DIR",
        )
    reason = " ".join(str(error).split())[:160]
    return UnavailableError(
        f"{text} cannot be looked up, the Hub does not answer: {reason}",
        hint="loreg base add ./the/downloaded/folder works offline; unset HF_HUB_OFFLINE if it is set",
    )
