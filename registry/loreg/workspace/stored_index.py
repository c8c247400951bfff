"""What a store has, asked once and kept on the disk: a look at each blob in the order of digests costs no request."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from loreg.storage import Blob

_BUFFER = 64 * 1024  # bytes of one part that wait in memory
_DIGEST, _SIZE = 32, 8  # bytes of an entry


class StoredIndex:
    """Digests and sizes, in 256 files of ``folder`` by the first two digits; one of them is in memory at a time."""

    def __init__(self, folder: Path, blobs: Iterable[Blob]) -> None:
        """Read the blobs, in any order; names that are no digests are passed over."""
        self._folder = folder
        self._loaded = ""
        self._sizes: dict[bytes, int] = {}
        folder.mkdir()
        buffers: dict[str, bytearray] = defaultdict(bytearray)
        for blob in blobs:
            try:
                entry = bytes.fromhex(blob.sha256) + blob.size.to_bytes(_SIZE, "big")
            except ValueError:
                continue
            buffer = buffers[blob.sha256[:2]]
            buffer += entry
            if len(buffer) >= _BUFFER:
                self._append(blob.sha256[:2], buffer)
        for part, buffer in buffers.items():
            self._append(part, buffer)

    def contains(self, blob: Blob) -> bool:
        """Whether the store had an object of that digest and size. Quick for digests in their order."""
        return self.size(blob.sha256) == blob.size

    def size(self, sha256: str) -> int | None:
        """Return the size that goes with a digest; None if it is not in the index. Quick for digests in their order."""
        part = sha256[:2]
        if part != self._loaded:
            self._load(part)
        return self._sizes.get(bytes.fromhex(sha256))

    def _append(self, part: str, buffer: bytearray) -> None:
        with (self._folder / part).open("ab") as sink:
            sink.write(buffer)
        buffer.clear()

    def _load(self, part: str) -> None:
        path = self._folder / part
        data = path.read_bytes() if path.exists() else b""
        width = _DIGEST + _SIZE
        self._sizes = {
            data[at : at + _DIGEST]: int.from_bytes(data[at + _DIGEST : at + width], "big")
            for at in range(0, len(data), width)
        }
        self._loaded = part
