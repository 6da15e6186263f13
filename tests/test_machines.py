"""What machines and users met: reports on other tools, as tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coresize.detection.parse import devices, visible_devices


# --- CUDA_VISIBLE_DEVICES -----------------------------------------------------

#: value: the GPUs. The first nine are those of PyTorch's TestVisibleDeviceParses.
VISIBLE = {
    "1gpu2,2ampere": (1, 2),
    "0, 1, 2, -1, 3": (0, 1, 2),
    "0, 1, 2, 1": (),
    "2, +3, -0, 5": (2, 3, 0, 5),
    "one,two,3,4": (),
    "4,3,two,one": (4, 3),
    "GPU-9e8d35e3": ("GPU-9e8d35e3",),
    "GPU-123, 2": ("GPU-123",),
    "MIG-89c850dc": ("MIG-89c850dc",),
    # Numbers
    "": (),
    " ": (),
    "-1": (),
    "NoDevFiles": (),
    "all": (),
    "0": (0,),
    "0,x,1": (0,),
    "0,,1": (0,),
    "0,1,": (0, 1),
    "2 ,\t3": (2, 3),
    "007,7": (),
    "0,-0": (),
    "1,+1": (),
    "0,1,-1,1": (0, 1),
    "1.5,2": (1, 2),
    "+,1": (),
    "-,1": (),
    "0,--1": (0,),
    "0x1,1": (0, 1),
    "\u0663,1": (),
    "9" * 5000: (),
    # Names
    "GPU-4f,GPU-8a": ("GPU-4f", "GPU-8a"),
    "GPU-4f,GPU-4f": (),
    "GPU-4f,GPU-8a,GPU-4f": (),
    "GPU-4f,GPU-8a,0,GPU-4f": ("GPU-4f", "GPU-8a"),
    "GPU-4f, GPU-8a": ("GPU-4f",),
    "GPU-4f,MIG-8a": ("GPU-4f",),
    "0,GPU-4f": (0,),
    "gpu-4f": (),
    "MIG-GPU-4f/1/0,MIG-GPU-4f/2/0": ("MIG-GPU-4f/1/0", "MIG-GPU-4f/2/0"),
    "MIG-4f,MIG-4f": (),
}


@pytest.mark.parametrize("text", VISIBLE, ids=lambda text: text[:24] or "empty")
def test_the_visible_gpus_are_those_of_the_driver(text):
    assert visible_devices(text) == VISIBLE[text]
    assert devices(text) == len(VISIBLE[text])


@given(st.lists(st.integers(0, 99), unique=True), st.text(max_size=9), st.data())
def test_what_follows_an_entry_that_is_no_gpu_never_counts(numbers, rest, data):
    text = ",".join(map(str, numbers))
    assert visible_devices(text) == tuple(numbers)
    assert visible_devices(f"{text},-1,{rest}") == tuple(numbers)
    if numbers:
        twice = data.draw(st.sampled_from(numbers))
        assert visible_devices(f"{text},{twice},{rest}") == ()
