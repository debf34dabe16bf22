"""Laws over every method: losses draw nothing, add up, reach the stem, compile whole and never wait for a GPU."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mixcli.studies import laws
from tests import fakes

each_method = pytest.mark.parametrize("settings", fakes.METHOD_CASES, ids=fakes.label)
each_law = pytest.mark.parametrize("law", laws.METHOD_LAWS, ids=lambda law: law.name)


@each_method
@each_law
def test_a_method_obeys(law, settings):
    assert law.holds(settings)


def test_the_sync_law_catches_a_sync():
    with FakeTensorMode(), pytest.raises(Exception, match="_local_scalar_dense"):
        bool(torch.ones(3, device="cuda").sum() > 1)
