"""What the soak's command line takes."""

from __future__ import annotations

import pytest

from soak.__main__ import main


@pytest.mark.parametrize("seconds", ["0", "-3", "nan", "inf", "long"])
def test_no_time_is_no_soak(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    """None would find nothing, and pass; and one has to end."""
    with pytest.raises(SystemExit) as ended:
        main(["--seconds", seconds])

    assert ended.value.code == 2
    assert "argument --seconds: " in capsys.readouterr().err
