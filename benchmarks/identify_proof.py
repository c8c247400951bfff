"""Prove identifying on a thousand adapters: each is copied in every way that people copy, and must be known again.

The real adapters of MiniLM, and others of its shape that are trained here: by Adam from a random A and a B of zeros,
ten from each random seed, towards targets that have a part in common, as tasks have. ``--asked`` of them are copied.
Prints Markdown.
"""

from __future__ import annotations

import argparse
import collections
import shutil
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from identity.variants import VARIANTS, merged, read, write
from loreg import Registry, connect
from loreg.entities import Identification

EXAMPLES = Path(__file__).parents[1] / "examples" / "adapters"
REAL = (EXAMPLES / "minilm-news-topics-r8", EXAMPLES / "minilm-movie-sentiment-r8")
_RANK, _STEPS, _RATE = 16, 12, 2e-3
Factors = dict[str, tuple[torch.Tensor, torch.Tensor]]


def train(number: int, common: torch.Tensor, names: list[str]) -> Factors:
    """Factors after some steps of Adam towards a target of low rank; ten adapters share the random A."""
    start, task = torch.Generator().manual_seed(number // 10), torch.Generator().manual_seed(10_000 + number)
    size, factors = common.shape[-1], {}
    for place, name in enumerate(names):
        a = (torch.rand(_RANK, size, generator=start) * 2 - 1) / size**0.5
        b = torch.zeros(size, _RANK)
        left, right = torch.randn(size, 4, generator=task), torch.randn(4, size, generator=task)
        target = (left @ right + common[place]) / size
        moments = [torch.zeros_like(b), torch.zeros_like(b), torch.zeros_like(a), torch.zeros_like(a)]
        for step in range(1, _STEPS + 1):
            rest = b @ a - target
            for x, gradient, m, v in ((b, rest @ a.T, *moments[:2]), (a, b.T @ rest, *moments[2:])):
                m.mul_(0.9).add_(gradient, alpha=0.1)
                v.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
                x.sub_(_RATE * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8))
        factors[name] = b.double(), a.double()
    return factors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapters", type=int, default=1000)
    parser.add_argument("--asked", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, connect(home=f"{name}/home", author="proof") as registry:
        folder = Path(name)
        names = list(read(REAL[0])[0])
        torch.manual_seed(0)
        common = torch.randn(len(names), 384, 4) @ torch.randn(len(names), 4, 384)
        sources: dict[str, Path] = {}
        for path in REAL:
            sources[registry.push(path, f"real/{path.name}").version.ref] = path
        for number in range(options.adapters - len(REAL)):
            path = write(folder / f"source-{number}", REAL[0], train(number, common, names), lora_alpha=_RANK)
            sources[registry.push(path, f"made/{number}").version.ref] = path
        ask(registry, sources, options.asked, folder, (names, common))


def ask(
    registry: Registry, sources: dict[str, Path], asked: int, folder: Path, made: tuple[list[str], torch.Tensor]
) -> None:
    """Ask what each copy is, and what strangers are; print the table."""
    refs = list(sources)[:: max(len(sources) // asked, 1)][:asked]
    right: collections.Counter[str] = collections.Counter()
    named: collections.Counter[str] = collections.Counter()
    totals: collections.Counter[str] = collections.Counter()
    errors: dict[str, list[float]] = collections.defaultdict(list)
    for place, ref in enumerate(refs):
        for variant, (kind, make) in VARIANTS.items():
            answer = identify(registry, make(folder / "copy", sources[ref]))
            totals[variant] += 1
            if answer.answers:
                first = answer.answers[0]
                right[variant] += first.ref == ref
                named[variant] += first.ref == ref and str(first.relation) == kind
                errors[variant].append(first.error)
        other = refs[(place + 1) % len(refs)]
        answer = identify(registry, merged(folder / "copy", {sources[ref]: 0.7, sources[other]: 0.3}))
        variant = "merged 0.7/0.3"
        totals[variant] += 1
        shares = {share.ref: share.weight for share in answer.answers[0].sources} if answer.answers else {}
        right[variant] += bool(answer.answers) and answer.answers[0].ref == ref
        named[variant] += shares.keys() == {ref, other} and abs(shares[ref] - 0.7) + abs(shares[other] - 0.3) < 0.01
        errors[variant].append(answer.answers[0].error if answer.answers else 1.0)
    unrelated: collections.Counter[str] = collections.Counter()
    names, common = made
    for number in range(len(refs)):  # trained as the others are, from seeds that none of them has
        factors = train(1_000_000 + 10 * number, common, names)
        answer = identify(registry, write(folder / "copy", REAL[0], factors, lora_alpha=_RANK))
        unrelated[str(answer.answers[0].relation) if answer.answers else "unknown"] += 1
    siblings: collections.Counter[str] = collections.Counter()
    for number in range(len(refs)):  # another task from a seed that ten of them have
        factors = train(10 * (number % (len(sources) // 10)) + 7_000_000, common, names)
        start = train(10 * (number % (len(sources) // 10)), common, names)
        mixed = {name: (b, start[name][1]) for name, (b, _) in factors.items()}
        answer = identify(registry, write(folder / "copy", REAL[0], mixed, lora_alpha=_RANK))
        siblings[str(answer.answers[0].relation) if answer.answers else "unknown"] += 1
    print(f"{len(sources):,} versions, {len(refs):,} of them copied\n")
    print("| copy | asked | recall@1 | in the right words | largest error |\n| --- | ---: | ---: | ---: | ---: |")
    for variant, total in totals.items():
        recall, words = right[variant] / total, named[variant] / total
        print(f"| {variant} | {total:,} | {recall:.2%} | {words:.2%} | {max(errors[variant], default=0):.1e} |")
    for title, counts in (("strangers", unrelated), ("strangers with the A of a version", siblings)):
        print(f"\n{title}: " + ", ".join(f"{count:,} {word}" for word, count in counts.most_common()))


def identify(registry: Registry, path: Path) -> Identification:
    try:
        return registry.identify(str(path))
    finally:
        shutil.rmtree(path)


if __name__ == "__main__":
    main()
