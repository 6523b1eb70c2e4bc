"""A command ends with the message of an error alone, or with its traceback where that is asked for."""

import pytest

from utils.errors import RunError, run_errors, user_errors


@pytest.mark.parametrize(
    ("ends", "error", "status"), [(user_errors, ValueError, 2), (run_errors, RunError, 1)]
)
@pytest.mark.parametrize("debug", [False, True])
def test_the_traceback_is_shown_on_demand(monkeypatch, capsys, ends, error, status, debug):
    if debug:
        monkeypatch.setenv("TVTS_DEBUG", "1")
    else:
        monkeypatch.delenv("TVTS_DEBUG", raising=False)
    with pytest.raises(SystemExit) as stop, ends():
        raise error("data.root is missing")
    said = capsys.readouterr().err
    assert stop.value.code == status
    assert said.endswith("error: data.root is missing\n")
    assert ("Traceback" in said and "test_errors.py" in said) == debug
