"""Collect what all adapters see of each task's training text, as anybody would: by PEFT and ``collect_calibration``."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import peft
import torch
from safetensors.torch import load_file, save_file
from sweep_classifiers import label_names, load_classifier, read_examples
from sweep_setting import HOME, Setting, read_splits
from sweep_texts import held_out_rows, load_base, load_tokenizer

import loreg

#: Rows of 128 tokens, or examples, of each task's training documents.
COUNTS = {"smollm2": 4, "minilm": 32}


def collect_moments(name: str, setting: Setting) -> Path:
    """Return the file of cross moments of a setting's adapters, collected unless it is there."""
    file = HOME / name / "moments.safetensors"
    if file.is_file():
        return file
    splits = read_splits(name)
    base = load_base(setting.base) if name == "smollm2" else load_classifier(setting.base, [""])
    with tempfile.TemporaryDirectory() as temporary:
        model = None
        for task, folder in setting.adapters.items():
            bare = _without_head(folder, Path(temporary) / task)
            if model is None:
                model = peft.PeftModel.from_pretrained(base, bare, adapter_name=task)
            else:
                model.load_adapter(bare, task)
    with loreg.collect_calibration(model, adapter=[*setting.adapters]) as moments, torch.no_grad():
        for task, own in splits.items():
            model.set_adapter(task)
            if name == "smollm2":
                model(input_ids=held_out_rows(load_tokenizer(), own.train, COUNTS[name]))
            else:
                examples = read_examples(setting.base, own.train[: COUNTS[name]], label_names(own))
                for batch in examples.batches():
                    model(input_ids=batch.tokens, attention_mask=batch.mask)
    moments.save(file)
    return file


def _without_head(folder: Path, copy: Path) -> Path:
    """Copy an adapter without its classifier: heads of several numbers of labels do not go into one model."""
    shutil.copytree(folder, copy)
    config = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps({**config, "modules_to_save": None, "task_type": None}))
    tensors = {
        name: tensor for name, tensor in load_file(copy / "adapter_model.safetensors").items() if "lora_" in name
    }
    save_file(tensors, copy / "adapter_model.safetensors", {"format": "pt"})
    return copy
