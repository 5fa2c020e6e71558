"""What the processor is good at."""

import pytest

from mario_rl import machine


@pytest.mark.parametrize(
    ("cpuinfo", "fast"),
    [
        ({"vendor_id": "GenuineIntel", "flags": "avx512f avx512_bf16"}, False),
        ({"vendor_id": "GenuineIntel", "flags": "avx512f avx512_bf16 amx_bf16"}, True),
        ({"vendor_id": "AuthenticAMD", "flags": "avx512f avx512_bf16"}, True),
        ({"vendor_id": "AuthenticAMD", "flags": "avx2"}, False),
        ({"Features": "asimd bf16"}, True),
        ({"Features": "asimd"}, False),
        ({}, False),
    ],
)
def test_bfloat16_is_for_processors_that_are_faster_in_it(monkeypatch, cpuinfo, fast):
    monkeypatch.setattr(machine, "_cpuinfo", lambda key: cpuinfo.get(key, ""))
    assert machine.cpu_has_fast_bfloat16() is fast
