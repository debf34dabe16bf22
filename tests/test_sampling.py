from __future__ import annotations

import numpy as np
from numpy.random import Generator, Philox

from mixcli.sampling import Random


def test_the_host_stream_is_philox_under_the_key():
    random = Random(3, "mix", 7)
    assert np.array_equal(random.host.random(9), Generator(Philox(key=random.key)).random(9))
