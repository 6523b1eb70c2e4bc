"""What is said of the machine."""

import pytest

from utils.environment import bf16_instructions


@pytest.mark.parametrize(
    "content, expected",
    [
        ("model name\t: A\nflags\t\t: fpu avx2 avx512_bf16 amx_bf16\n", ["amx_bf16", "avx512_bf16"]),
        ("Features\t: fp asimd bf16\n", ["bf16"]),
        ("flags\t\t: fpu avx2\n", []),
        ("processor\t: 0\n", None),
    ],
)
def test_bf16_instructions(content, expected, tmp_path):
    (tmp_path / "cpuinfo").write_text(content)
    assert bf16_instructions(tmp_path / "cpuinfo") == expected
    assert bf16_instructions(tmp_path / "none") is None
