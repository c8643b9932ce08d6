# SPDX-License-Identifier: MIT
"""transformers: a small model of its own making, without any download, that is trained and that
writes text token by token from its cache.

live: rounds=12 needs=torch,transformers environment=HF_HUB_OFFLINE=1
"""
import sys

import pyheap
import torch
from transformers import GPT2Config, GPT2LMHeadModel

torch.set_num_threads(2)


def main():
    rounds = int(sys.argv[1])
    torch.manual_seed(3)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=64, n_embd=32, n_layer=2,
                                       n_head=2, bos_token_id=0, eos_token_id=0,
                                       resid_pdrop=0.0))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    tokens = torch.arange(40).repeat(4, 1) % 50
    cache, now = None, torch.tensor([[1]])
    for r in range(rounds):
        model.train()
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        pyheap.epoch()  # gradients are there, the step is not made yet
        optimiser.step()
        optimiser.zero_grad()
        model.eval()
        with torch.no_grad():
            if r % 30 == 0:
                cache, now = None, torch.tensor([[1]])
            out = model(input_ids=now, past_key_values=cache, use_cache=True)
            cache, now = out.past_key_values, out.logits[:, -1:].argmax(dim=-1)
        assert now.shape == (1, 1)
        if r % 10 == 0:
            print(r, f"{loss.item():.4f}")


main()
