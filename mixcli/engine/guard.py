"""guard.py: keeps a non-finite loss or gradient from the weights and from every file.

Whether a step was finite is found on the device. A CPU is asked at once. A GPU is not: the flag, which stays up once
it is up, goes to the fused optimizer as `found_inf` and skips the update (zeroed gradients would not do: momentum and
decay still move weights); the host reads it every `READ_EVERY` steps, at the end of an epoch and before every save.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

READ_EVERY = 50


class Guard:
    """Remembers the first step that was not finite."""

    def __init__(self, device: torch.device):
        self.bad = torch.full((), -1, device=device)  # its number, or -1
        self.what = "loss or gradient"

    def watch(self, step: int, total: Tensor, norm: Tensor, optimizer: Optimizer) -> bool:
        """Looks at a step's loss and the norm of its gradient before the update; true if the flag should be read now.

        Of several batches it is given the mean, which is finite only if each of them is.
        """
        finite = total.detach().isfinite() & norm.isfinite()
        self.bad = torch.where((self.bad < 0) & ~finite, step, self.bad)
        if total.device.type == "cpu":
            self.what = "gradient" if total.isfinite() else "loss"
            return True
        vars(optimizer).update(found_inf=(self.bad >= 0).float(), grad_scale=None)  # what the fused step looks for
        return step % READ_EVERY == 0

    def first_bad(self) -> int | None:
        """The first step, counted from 0, that was not finite. Waits for the device."""
        bad = int(self.bad)
        return None if bad < 0 else bad
