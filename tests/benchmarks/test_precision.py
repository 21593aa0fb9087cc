"""bf16 is timed only where the CPU computes it."""

import pytest

from benchmarks.precision import computed


@pytest.mark.parametrize(
    ("avx512", "amx", "kept"),
    [(False, False, ["fp32"]), (True, False, ["fp32", "bf16"]), (False, True, ["fp32", "bf16"])],
)
def test_bf16_is_left_out_with_a_line_where_it_is_emulated(
    avx512: bool, amx: bool, kept: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert computed(["fp32", "bf16"], {"avx512_bf16": avx512, "amx_bf16": amx}) == kept
    assert ("bf16: left out" in capsys.readouterr().out) is ("bf16" not in kept)
