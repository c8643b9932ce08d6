# SPDX-License-Identifier: MIT
"""PyTorch on the CPU: a small network trained with Adam, a data loader half-way through its epoch,
threads of OpenMP and of autograd, a traced function.

live: rounds=30 needs=torch
"""
import sys

import pyheap
import torch
from torch import nn

torch.manual_seed(1)
torch.set_num_threads(2)


def main():
    rounds = int(sys.argv[1])
    x = torch.rand(640, 20)
    y = (x.sum(dim=1, keepdim=True) - 10).tanh()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=64,
                                         shuffle=True, generator=torch.Generator().manual_seed(2))
    model = nn.Sequential(nn.Linear(20, 256), nn.ReLU(), nn.Dropout(0.1), nn.Linear(256, 256),
                          nn.ReLU(), nn.Linear(256, 1))
    traced = torch.jit.trace(nn.Sequential(nn.Linear(20, 5), nn.Tanh()), x[:2])
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, 50, 0.9)
    model[0].weight.register_hook(lambda gradient: gradient * 0.5)
    batches = iter(loader)
    for r in range(rounds):
        try:
            inputs, wanted = next(batches)
        except StopIteration:
            batches = iter(loader)
            inputs, wanted = next(batches)
        optimiser.zero_grad()
        loss = nn.functional.mse_loss(model(inputs), wanted)
        pyheap.epoch()  # the graph of the forward pass is alive
        loss.backward()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            assert traced(inputs).shape == (64, 5)
        if r % 10 == 0:
            print(r, f"{loss.item():.6f}")
    print(f"{sum(p.double().sum().item() for p in model.parameters()):.4f}")


main()
