"""Reinforcement learning without a shared disk: train, publish each step, sample from a vLLM that follows.

The policy learns to write even words: a word's reward is 1 if its number is even, else 0 (REINFORCE, Williams 1992).
The samples come from vLLM, which must answer with the version that was published a moment ago, and is checked to.

    python examples/reinforce.py ./tiny                        # writes a tiny random model
    loreg serve                                                # in a second terminal
    export LOREG_ENDPOINT=http://127.0.0.1:8470                # here, and in a third:
    VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 vllm serve ./tiny --enable-lora \
      --middleware loreg.plugins.vllm_middleware.FollowAliases
    python examples/reinforce.py ./tiny http://127.0.0.1:8000
"""

from __future__ import annotations

import sys
from pathlib import Path

import httpx
import torch
import transformers
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import loreg

NAME, ALIAS = "team/policy", "live"
WORDS, SAMPLES, LENGTH, PROMPT = 64, 48, 8, [1, 9, 20, 33]
STEPS, LEARNING_RATE = 12, 1e-2


def make_base(folder: Path) -> None:
    """Write a random Llama of 64 words, w0 to w63, as transformers writes models."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=WORDS, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=256, initializer_range=0.08,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).float().save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(WORDS)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, bos_token="w1", eos_token="w2").save_pretrained(folder)


def sample(server: httpx.Client) -> tuple[torch.Tensor, str]:
    """Let vLLM continue the prompt, with the version that the alias means now.

    Returns the numbers of the words (samples, length), and the pinned ref of the version that wrote them.
    """
    request = {
        "model": f"{NAME}:{ALIAS}", "prompt": PROMPT, "n": SAMPLES, "max_tokens": LENGTH, "temperature": 1,
        "ignore_eos": True, "return_token_ids": True,
    }  # fmt: skip
    answer = server.post("/v1/completions", json=request).raise_for_status().json()
    return torch.tensor([choice["token_ids"] for choice in answer["choices"]]), answer["model"]


def train(base: Path, server: httpx.Client) -> list[float]:
    """Train an adapter of the base, which the server has too; returns the mean reward of each step's samples."""
    torch.manual_seed(0)
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    projections = ["q_proj", "v_proj", "o_proj", "down_proj"]
    policy = get_peft_model(model, LoraConfig(r=8, target_modules=projections, task_type="CAUSAL_LM"))
    optimizer = torch.optim.Adam((p for p in policy.parameters() if p.requires_grad), lr=LEARNING_RATE)
    rewards = []
    with loreg.connect() as registry:
        for step in range(STEPS):
            # publish: from memory; when it returns the version is durable, and the alias means it
            published = registry.publish(policy, NAME, step=step, aliases=[ALIAS])

            # sample: every replica now answers with this version, and says so
            words, version = sample(server)
            if version != published.version.pinned:
                sys.exit(f"published {published.version.pinned}, but the samples are of {version}")

            # reward: one for each even word; what is better than the mean of all is made likelier
            reward = (words % 2 == 0).float()
            advantage = reward - reward.mean()

            # log-probability of each sampled word, given those before it
            texts = torch.cat([torch.tensor(PROMPT).expand(len(words), -1), words], dim=1)
            logits = policy(input_ids=texts).logits[:, len(PROMPT) - 1 : -1]
            logprobs = torch.log_softmax(logits, -1).gather(-1, words.unsqueeze(-1)).squeeze(-1)

            # REINFORCE: the gradient of advantage · log p
            loss = -(advantage * logprobs).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

            rewards.append(float(reward.mean()))
            print(f"step {step:2}   {published.version.ref:16}   mean reward {rewards[-1]:.2f}", flush=True)
    return rewards


def main() -> None:
    transformers.utils.logging.disable_progress_bar()
    base = Path(sys.argv[1])
    if not base.exists():
        make_base(base)
        print(f"{base} is a model now: start vLLM on it, then run this again with vLLM's address")
        return
    with httpx.Client(base_url=sys.argv[2], timeout=300) as vllm:
        rewards = train(base, vllm)
    if rewards[-1] < 0.9:
        sys.exit("the policy has not learned to write even words")


if __name__ == "__main__":
    main()
