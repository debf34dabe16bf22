"""A mixing and the class blend in somebody's own PyTorch loop: python examples/own_loop.py"""

import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

from mixcli.mix import Context
from mixcli.mixing import class_blend, cutmix
from mixcli.sampling import Random
from mixcli.settings import CutMix

torch.manual_seed(0)
x, y = (torch.from_numpy(a) for a in load_digits(return_X_y=True))
x = (x / 16).float().view(-1, 1, 8, 8)
body = torch.nn.Sequential(torch.nn.Conv2d(1, 32, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(1152, 64))
head = torch.nn.Linear(64, 10)
optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], 1e-3)

for step in range(400):
    rows = torch.randint(1437, (64,))
    images, labels, random = x[rows], y[rows], Random(seed=0, purpose="mix", step=step)
    mix = cutmix.draw(CutMix(per="sample"), Context((64, 8, 8), labels.numpy(), classes=10), random)
    inter = cross_entropy(head(body(mix.images(images))), mix.targets(labels, 10))
    blend = class_blend.draw(labels.numpy(), 10, random.child("intra"))
    intra = cross_entropy(head(blend.features(body(images))), blend.labels, reduction="none") @ blend.shares
    optimizer.zero_grad()
    (0.9 * inter + 0.1 * intra).backward()
    optimizer.step()

print(f"accuracy on 360 held-out digits: {(head(body(x[1437:])).argmax(1) == y[1437:]).float().mean():.1%}")
