"""Runs llama.cpp's own converter, of a base and of adapters for it, in one process.

Reads JSON on standard input: ``llama`` (the folder of the converter), ``base``, ``adapters`` (name → folder), ``model``
and ``converted`` (name → file) to write, ``answer`` (a JSON file to write: name → words of the refusal).
"""

from __future__ import annotations

import json
import logging
import runpy
import sys
from pathlib import Path
from typing import Any

import torch


class Errors(logging.Handler):
    """Keeps what the converter logs as an error before it leaves."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def convert_base(base: Path, target: Path) -> None:
    """The model by the converter's class for it; its words are made up, for nothing is read or written with them."""
    import gguf
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class

    hparams = ModelBase.load_hparams(base, False)
    kind: Any = get_model_class(get_model_architecture(hparams, ModelType.TEXT))

    class WithoutWords(kind):  # type: ignore[misc]
        model_arch = kind.model_arch

        def set_vocab(self) -> None:
            words = ["<unk>", "<s>", "</s>", *(f"w{i}" for i in range(3, hparams["vocab_size"]))]
            types = [2, 3, 3, *[1] * (len(words) - 3)]  # unknown, control, normal
            self.gguf_writer.add_tokenizer_model("llama")
            self.gguf_writer.add_token_list(words)
            self.gguf_writer.add_token_scores([-float(i) for i in range(len(words))])
            self.gguf_writer.add_token_types(types)

    with torch.inference_mode():
        WithoutWords(base, gguf.LlamaFileType.ALL_F32, target).write()


def convert_adapter(program: Path, base: Path, folder: str, target: str) -> str:
    """Empty, or why the converter does not take it."""
    errors = Errors()
    logging.getLogger().addHandler(errors)
    sys.argv = [str(program), "--base", str(base), "--outtype", "f32", "--outfile", target, folder]
    try:
        runpy.run_path(str(program), run_name="__main__")
    except SystemExit as left:
        return "; ".join(errors.messages) or f"exit {left.code}" if left.code else ""
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        logging.getLogger().removeHandler(errors)
    return ""


def main() -> None:
    asked = json.load(sys.stdin)
    llama, base = Path(asked["llama"]), Path(asked["base"])
    sys.path[:0] = [str(llama), str(llama / "gguf-py")]
    convert_base(base, Path(asked["model"]))
    program = llama / "convert_lora_to_gguf.py"
    refusals = {
        name: convert_adapter(program, base, folder, asked["converted"][name])
        for name, folder in asked["adapters"].items()
    }
    Path(asked["answer"]).write_text(json.dumps({name: words for name, words in refusals.items() if words}))


main()
