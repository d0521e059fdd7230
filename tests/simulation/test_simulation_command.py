"""What the simulation's command line takes."""

from __future__ import annotations

import pytest

from simulation.__main__ import main


@pytest.mark.parametrize("many", ["0", "-3", "many"])
@pytest.mark.parametrize("option", ["--seeds", "--processes"])
def test_no_worlds_are_no_test(many: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """None of them would hold anything, and pass."""
    with pytest.raises(SystemExit) as ended:
        main([option, many])

    assert ended.value.code == 2
    assert f"argument {option}: " in capsys.readouterr().err
